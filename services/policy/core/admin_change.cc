// The admin calls that page through messages or change them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/mail/message_id.h"
#include "services/policy/core/admin.h"
#include "services/policy/core/shard_loop.h"

namespace sluice::policy {
namespace {

constexpr uint32_t kDefaultLimit = 1'000;
constexpr uint32_t kMaxLimit = 10'000;
// Recipients that one call of a shard changes.
constexpr uint32_t kChangeStep = 10'000;

absl::Status Partial(const std::vector<std::string>& unreachable, uint64_t done, const char* what) {
  return absl::UnavailableError(absl::StrCat("no answer from ", absl::StrJoin(unreachable, ", "),
                                             "; ", done, " ", what, " changed elsewhere"));
}

// Runs `call` on each shard until `limit` recipients (0: all) are changed; `count` adds a shard's
// response to the totals. `finish` gets the status and who did not answer.
template <class Request, class Response, class Call, class Count, class Finish>
void ChangeMail(Executor& executor, Duration timeout, AdminPeers::Shards shards, Request request,
                Call call, Count count, Finish finish) {
  struct State {
    Request request;
    uint32_t left;
    bool bounded;
  };
  const uint32_t limit = request.limit();
  auto state = std::make_shared<State>(State{std::move(request), limit, limit != 0});
  auto loop = std::make_shared<ShardLoop<Response>>(executor, timeout, std::move(shards));
  loop->Run(
      0,
      [state, call](QueueControlClient& shard, Done<Response> done) {
        Request step = state->request;
        step.set_limit(state->bounded ? std::min(state->left, kChangeStep) : kChangeStep);
        (shard.*call)(std::move(step), std::move(done));
      },
      [state, count](const std::string&, Response response) mutable {
        count(response);
        const uint64_t recipients = response.recipients();
        if (state->bounded) {
          state->left -= static_cast<uint32_t>(std::min<uint64_t>(recipients, state->left));
          if (state->left == 0) return LoopStep::kStop;
        }
        // A shard that says "more" and did nothing would be asked for ever.
        return response.more() && recipients > 0 ? LoopStep::kSameShard : LoopStep::kNextShard;
      },
      std::move(finish));
}

// The same where the answer `Total` counts recipients and cannot name who did not answer: such a
// call fails, and says what was changed.
template <class Request, class Response, class Call, class Total>
void ChangeWhole(Executor& executor, Duration timeout, AdminPeers::Shards shards, Request request,
                 Call call, Done<Total> done) {
  auto total = std::make_shared<Total>();
  ChangeMail<Request, Response>(
      executor, timeout, std::move(shards), std::move(request), call,
      [total](const Response& response) {
        total->set_recipients(total->recipients() + response.recipients());
      },
      [total, done = std::move(done)](absl::Status status,
                                      std::vector<std::string> unreachable) mutable {
        if (!status.ok()) return done(std::move(status));
        if (!unreachable.empty()) {
          return done(Partial(unreachable, total->recipients(), "recipients"));
        }
        done(std::move(*total));
      });
}

}  // namespace

void Admin::ListMessages(admin::v1::ListMessagesRequest request,
                         Done<admin::v1::ListMessagesResponse> done) {
  struct State {
    queue::v1::ListMessagesRequest request;
    admin::v1::ListMessagesResponse response;
    uint32_t left;
  };
  auto state = std::make_shared<State>();
  state->request = std::move(*request.mutable_request());
  state->left =
      state->request.limit() == 0 ? kDefaultLimit : std::min(state->request.limit(), kMaxLimit);
  AdminPeers::Shards shards = peers_.shards();
  size_t first = 0;
  if (const std::string& after = state->request.after(); !after.empty()) {
    // SHARD NUL CURSOR
    const size_t end = after.find('\0');
    const std::string name = after.substr(0, end);
    while (first < shards.size() && shards[first]->name() != name) ++first;
    if (end == after.npos || first == shards.size()) {
      return done(absl::InvalidArgumentError("the cursor is of a shard that is not there"));
    }
    state->request.set_after(after.substr(end + 1));
  }
  std::vector<std::string> names;
  for (const auto& shard : shards) names.push_back(shard->name());
  auto loop = std::make_shared<ShardLoop<queue::v1::ListMessagesResponse>>(
      executor_, options_.peer_timeout, std::move(shards));
  loop->Run(
      first,
      [state](QueueControlClient& shard, Done<queue::v1::ListMessagesResponse> done) {
        // A cursor is for the first shard that is asked, and for one that had more.
        queue::v1::ListMessagesRequest step = state->request;
        step.set_limit(state->left);
        state->request.clear_after();
        shard.ListMessages(std::move(step), std::move(done));
      },
      [state, names](const std::string& name, queue::v1::ListMessagesResponse response) {
        const auto got = static_cast<uint32_t>(response.recipients_size());
        for (auto& recipient : *response.mutable_recipients()) {
          *state->response.add_recipients() = std::move(recipient);
        }
        state->left -= std::min(got, state->left);
        const bool more = !response.after().empty();
        if (state->left > 0 && !more) return LoopStep::kNextShard;
        if (state->left > 0) {
          state->request.set_after(response.after());
          return LoopStep::kSameShard;
        }
        // The page is full: go on here, or with the next shard's start.
        std::string shard = name;
        if (!more) {
          const auto next = std::next(std::find(names.begin(), names.end(), name));
          if (next == names.end()) return LoopStep::kStop;
          shard = *next;
        }
        state->response.set_after(shard + std::string(1, '\0') + response.after());
        return LoopStep::kStop;
      },
      [state, done = std::move(done)](absl::Status status,
                                      std::vector<std::string> unreachable) mutable {
        if (!status.ok()) return done(std::move(status));
        for (std::string& name : unreachable) {
          state->response.add_unreachable(std::move(name));
        }
        done(std::move(state->response));
      });
}

void Admin::DeleteMessages(admin::v1::DeleteMessagesRequest request,
                           Done<admin::v1::DeleteMessagesResponse> done) {
  auto total = std::make_shared<admin::v1::DeleteMessagesResponse>();
  ChangeMail<queue::v1::DeleteMessagesRequest, queue::v1::DeleteMessagesResponse>(
      executor_, options_.peer_timeout, peers_.shards(), std::move(*request.mutable_request()),
      &QueueControlClient::DeleteMessages,
      [total](const queue::v1::DeleteMessagesResponse& response) {
        total->set_recipients(total->recipients() + response.recipients());
        total->set_leased(total->leased() + response.leased());
      },
      [total, done = std::move(done)](absl::Status status,
                                      std::vector<std::string> unreachable) mutable {
        if (!status.ok()) return done(std::move(status));
        for (std::string& name : unreachable) total->add_unreachable(std::move(name));
        done(std::move(*total));
      });
}

void Admin::RerouteMessages(admin::v1::RerouteMessagesRequest request,
                            Done<admin::v1::RerouteMessagesResponse> done) {
  ChangeWhole<queue::v1::RerouteMessagesRequest, queue::v1::RerouteMessagesResponse>(
      executor_, options_.peer_timeout, peers_.shards(), std::move(*request.mutable_request()),
      &QueueControlClient::RerouteMessages, std::move(done));
}

void Admin::ReleaseMessages(admin::v1::ReleaseMessagesRequest request,
                            Done<admin::v1::ReleaseMessagesResponse> done) {
  ChangeWhole<queue::v1::ReleaseMessagesRequest, queue::v1::ReleaseMessagesResponse>(
      executor_, options_.peer_timeout, peers_.shards(), std::move(*request.mutable_request()),
      &QueueControlClient::ReleaseMessages, std::move(done));
}

void Admin::RetryQueues(admin::v1::RetryQueuesRequest request,
                        Done<admin::v1::RetryQueuesResponse> done) {
  FanOut<queue::v1::RetryQueuesResponse>(
      executor_, options_.peer_timeout, peers_.shards(),
      [&](QueueControlClient& shard, Done<queue::v1::RetryQueuesResponse> answer) {
        shard.RetryQueues(request.request(), std::move(answer));
      },
      [done = std::move(done)](Answers<queue::v1::RetryQueuesResponse> answers) mutable {
        admin::v1::RetryQueuesResponse total;
        std::vector<std::string> unreachable;
        for (const auto& answer : answers) {
          if (answer.response.ok()) {
            total.set_queues(total.queues() + answer.response->queues());
          } else if (IsRequestError(answer.response.status())) {
            return done(answer.response.status());
          } else if (!absl::IsNotFound(answer.response.status())) {
            unreachable.push_back(answer.name);
          }
        }
        if (!unreachable.empty()) return done(Partial(unreachable, total.queues(), "queues"));
        done(std::move(total));
      });
}

void Admin::ListEvents(admin::v1::ListEventsRequest request,
                       Done<admin::v1::ListEventsResponse> done) {
  const auto id = mail::ParseMessageId(request.message_id());
  if (!id) return done(absl::InvalidArgumentError("a message id has 26 letters and digits"));
  const uint32_t limit =
      request.limit() == 0 ? kDefaultLimit : std::min(request.limit(), kMaxLimit);
  struct State {
    queue::v1::ReadEventsRequest request;
    std::vector<common::v1::Event> events;
    size_t of_this_shard = 0;
    bool more = false;
  };
  auto state = std::make_shared<State>();
  state->request.set_message_id(*id);
  state->request.set_limit(limit);
  auto loop = std::make_shared<ShardLoop<queue::v1::ReadEventsResponse>>(
      executor_, options_.peer_timeout, peers_.shards());
  loop->Run(
      0,
      [state](QueueControlClient& shard, Done<queue::v1::ReadEventsResponse> done) {
        queue::v1::ReadEventsRequest step = state->request;
        state->request.clear_from_sequence();
        shard.ReadEvents(std::move(step), std::move(done));
      },
      [state, limit](const std::string&, queue::v1::ReadEventsResponse response) {
        for (auto& event : *response.mutable_events()) state->events.push_back(std::move(event));
        state->of_this_shard += static_cast<size_t>(response.events_size());
        if (!response.more() || state->of_this_shard >= limit) {
          state->more |= response.more();
          state->of_this_shard = 0;
          return LoopStep::kNextShard;
        }
        state->request.set_from_sequence(response.next_sequence());
        return LoopStep::kSameShard;
      },
      [state, limit, done = std::move(done)](absl::Status status,
                                             std::vector<std::string> unreachable) mutable {
        if (!status.ok()) return done(std::move(status));
        std::stable_sort(state->events.begin(), state->events.end(),
                         [](const auto& a, const auto& b) { return a.time_us() < b.time_us(); });
        admin::v1::ListEventsResponse response;
        for (auto& event : state->events) {
          if (response.events_size() >= static_cast<int>(limit)) break;
          *response.add_events() = std::move(event);
        }
        response.set_more(state->more || state->events.size() > limit);
        for (std::string& name : unreachable) response.add_unreachable(std::move(name));
        done(std::move(response));
      });
}

}  // namespace sluice::policy
