// The admin calls that ask everybody at once.
#include "services/policy/core/admin.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/mail/message_id.h"
#include "services/policy/core/shard_loop.h"

namespace sluice::policy {
namespace {

constexpr uint32_t kDefaultLimit = 1'000;
constexpr uint32_t kMaxLimit = 10'000;

template <class Response>
std::vector<std::string> Unreachable(const Answers<Response>& answers) {
  std::vector<std::string> names;
  for (const auto& answer : answers) {
    if (!answer.response.ok() && !absl::IsNotFound(answer.response.status())) {
      names.push_back(answer.name);
    }
  }
  return names;
}

template <class Response>
absl::Status RequestError(const Answers<Response>& answers) {
  for (const auto& answer : answers) {
    if (IsRequestError(answer.response.status())) return answer.response.status();
  }
  return absl::OkStatus();
}

absl::Status NotFoundOrUnreachable(const char* what, const std::vector<std::string>& unreachable) {
  if (unreachable.empty()) return absl::NotFoundError(absl::StrCat("there is no such ", what));
  return absl::UnavailableError(absl::StrCat("no answer from ", absl::StrJoin(unreachable, ", "),
                                             ", and no other shard has this ", what));
}

// Makes `sum` what an operator sees of a queue that several shards hold.
void MergeQueue(const queue::v1::QueueStatus& part, queue::v1::QueueStatus* sum) {
  if (sum->name().empty()) {
    *sum = part;
    return;
  }
  if (sum->rollup().empty()) sum->set_rollup(part.rollup());
  sum->set_recipients(sum->recipients() + part.recipients());
  sum->set_leased(sum->leased() + part.leased());
  sum->set_delivered(sum->delivered() + part.delivered());
  sum->set_transient(sum->transient() + part.transient());
  sum->set_failed(sum->failed() + part.failed());
  sum->set_counting(sum->counting() || part.counting());
  sum->set_paused(sum->paused() || part.paused());
  sum->set_shard("");
  // The worse state is shown, with its reason.
  if (sum->mode() == "normal" && part.mode() != "normal") sum->set_mode(part.mode());
  // The later word on the mode holds everywhere, once all have heard of it.
  if (part.backoff().since_us() > sum->backoff().since_us()) {
    *sum->mutable_backoff() = part.backoff();
  }
  for (const auto& source : part.sources()) {
    const auto& known = sum->sources();
    if (std::none_of(known.begin(), known.end(),
                     [&](const auto& each) { return each.ip() == source.ip(); })) {
      *sum->add_sources() = source;
    }
  }
  if (part.retry_until_us() > sum->retry_until_us()) {
    sum->set_retry_until_us(part.retry_until_us());
  }
  if (sum->reason().empty()) sum->set_reason(part.reason());
  if (sum->author().empty()) sum->set_author(part.author());
  if (part.next_time_us() != 0 &&
      (sum->next_time_us() == 0 || part.next_time_us() < sum->next_time_us())) {
    sum->set_next_time_us(part.next_time_us());
  }
  if (part.oldest_queued_us() != 0 &&
      (sum->oldest_queued_us() == 0 || part.oldest_queued_us() < sum->oldest_queued_us())) {
    sum->set_oldest_queued_us(part.oldest_queued_us());
  }
  sum->set_oldest_at_least(sum->oldest_at_least() || part.oldest_at_least());
  if (sum->last_replies().empty()) {
    *sum->mutable_last_replies() = part.last_replies();
    *sum->mutable_last_reply_times_us() = part.last_reply_times_us();
  }
}

}  // namespace

void Admin::GetStatus(admin::v1::GetStatusRequest request,
                      Done<admin::v1::GetStatusResponse> done) {
  delivery::v1::GetWorkerStatusRequest of_workers;
  of_workers.set_with_connections(request.with_connections());
  of_workers.set_queue_pattern(request.queue_pattern());
  FanOut<queue::v1::GetShardStatusResponse>(
      executor_, options_.peer_timeout, peers_.shards(),
      [](QueueControlClient& shard, Done<queue::v1::GetShardStatusResponse> answer) {
        shard.GetShardStatus({}, std::move(answer));
      },
      [this, of_workers = std::move(of_workers),
       done = std::move(done)](Answers<queue::v1::GetShardStatusResponse> shards) mutable {
        admin::v1::GetStatusResponse status;
        for (std::string& name : Unreachable(shards)) status.add_unreachable(std::move(name));
        for (auto& shard : shards) {
          if (!shard.response.ok()) continue;
          if (!shard.response->shard().empty() && shard.response->shard() != shard.name) {
            status.add_unreachable(absl::StrCat(shard.name, " (at its address is shard ",
                                                shard.response->shard(), ")"));
            continue;
          }
          *status.add_shards() = *std::move(shard.response);
        }
        FanOut<delivery::v1::GetWorkerStatusResponse>(
            executor_, options_.peer_timeout, peers_.workers(),
            [&of_workers](WorkerClient& worker,
                          Done<delivery::v1::GetWorkerStatusResponse> answer) {
              worker.GetWorkerStatus(of_workers, std::move(answer));
            },
            [this, status = std::move(status), done = std::move(done)](
                Answers<delivery::v1::GetWorkerStatusResponse> workers) mutable {
              for (std::string& name : Unreachable(workers)) {
                status.add_unreachable(std::move(name));
              }
              for (auto& worker : workers) {
                if (worker.response.ok()) *status.add_workers() = *std::move(worker.response);
              }
              for (const WatcherState& state : policy_.watchers().states()) {
                auto* const watcher = status.add_watchers();
                watcher->set_service(state.service);
                watcher->set_instance(state.instance);
                watcher->set_acked_version(state.acked_version);
                watcher->set_error(state.error);
                watcher->set_connected(state.connected);
              }
              for (v1::ControlEntry& entry : policy_.controls()) {
                *status.add_controls() = std::move(entry);
              }
              status.set_snapshot_version(policy_.version());
              status.set_snapshot_unix_us(policy_.snapshot().compiled_unix_us());
              status.set_version(options_.version);
              done(std::move(status));
            });
      });
}

void Admin::ListQueues(admin::v1::ListQueuesRequest request,
                       Done<admin::v1::ListQueuesResponse> done) {
  queue::v1::ListQueuesRequest query = std::move(*request.mutable_request());
  const uint32_t limit = query.limit() == 0 ? kDefaultLimit : std::min(query.limit(), kMaxLimit);
  const bool by_name = query.sort() == "name";
  const size_t shard_count = peers_.shards().size();
  // By count, a queue may be small in each shard and large in all: ask for as many as may be.
  query.set_limit(by_name || shard_count == 1 ? limit : kMaxLimit);
  FanOut<queue::v1::ListQueuesResponse>(
      executor_, options_.peer_timeout, peers_.shards(),
      [&query](QueueControlClient& shard, Done<queue::v1::ListQueuesResponse> answer) {
        shard.ListQueues(query, std::move(answer));
      },
      [limit, by_name,
       done = std::move(done)](Answers<queue::v1::ListQueuesResponse> answers) mutable {
        if (absl::Status error = RequestError(answers); !error.ok()) return done(error);
        admin::v1::ListQueuesResponse response;
        for (std::string& name : Unreachable(answers)) response.add_unreachable(std::move(name));
        std::map<std::string, queue::v1::QueueStatus> merged;
        std::string complete_until;  // by name: what is beyond it, some shard has not sent
        for (const auto& answer : answers) {
          if (!answer.response.ok()) continue;
          for (const auto& queue : answer.response->queues()) {
            MergeQueue(queue, &merged[queue.name()]);
          }
          if (!answer.response->more()) continue;
          response.set_more(true);
          if (!by_name || answer.response->queues().empty()) continue;
          const std::string& last = answer.response->queues().rbegin()->name();
          if (complete_until.empty() || last < complete_until) complete_until = last;
        }
        std::vector<queue::v1::QueueStatus*> order;
        for (auto& [name, queue] : merged) {
          if (complete_until.empty() || name <= complete_until) order.push_back(&queue);
        }
        if (!by_name) {
          std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
            return a->recipients() > b->recipients();
          });
        }
        if (order.size() > limit) {
          order.resize(limit);
          response.set_more(true);
        }
        for (auto* queue : order) *response.add_queues() = std::move(*queue);
        done(std::move(response));
      });
}

void Admin::GetQueue(admin::v1::GetQueueRequest request, Done<admin::v1::GetQueueResponse> done) {
  FanOut<queue::v1::GetQueueResponse>(
      executor_, options_.peer_timeout, peers_.shards(),
      [&request](QueueControlClient& shard, Done<queue::v1::GetQueueResponse> answer) {
        queue::v1::GetQueueRequest query;
        query.set_name(request.name());
        shard.GetQueue(std::move(query), std::move(answer));
      },
      [this, name = request.name(),
       done = std::move(done)](Answers<queue::v1::GetQueueResponse> answers) mutable {
        if (absl::Status error = RequestError(answers); !error.ok()) return done(error);
        admin::v1::GetQueueResponse response;
        for (auto& answer : answers) {
          if (!answer.response.ok()) continue;
          queue::v1::QueueStatus* const status = response.add_per_shard();
          *status = std::move(*answer.response->mutable_queue());
          if (status->shard().empty()) status->set_shard(answer.name);
        }
        if (response.per_shard().empty()) {
          return done(NotFoundOrUnreachable("queue", Unreachable(answers)));
        }
        FanOut<delivery::v1::GetWorkerStatusResponse>(
            executor_, options_.peer_timeout, peers_.workers(),
            [&name](WorkerClient& worker, Done<delivery::v1::GetWorkerStatusResponse> answer) {
              delivery::v1::GetWorkerStatusRequest query;
              query.set_queue_pattern(name);
              worker.GetWorkerStatus(std::move(query), std::move(answer));
            },
            [name, response = std::move(response), done = std::move(done)](
                Answers<delivery::v1::GetWorkerStatusResponse> workers) mutable {
              for (const auto& worker : workers) {
                if (!worker.response.ok()) continue;
                for (const auto& blocked : worker.response->blocked()) {
                  if (blocked.queue() == name) *response.add_blocked() = blocked;
                }
              }
              done(std::move(response));
            });
      });
}

void Admin::ConfirmClock(admin::v1::ConfirmClockRequest request,
                         Done<admin::v1::ConfirmClockResponse> done) {
  FanOut<queue::v1::ConfirmClockResponse>(
      executor_, options_.peer_timeout, peers_.shards(),
      [&request](QueueControlClient& shard, Done<queue::v1::ConfirmClockResponse> answer) {
        queue::v1::ConfirmClockRequest confirmed;
        confirmed.set_author(request.author());
        shard.ConfirmClock(std::move(confirmed), std::move(answer));
      },
      [done = std::move(done)](Answers<queue::v1::ConfirmClockResponse> answers) mutable {
        admin::v1::ConfirmClockResponse response;
        for (std::string& name : Unreachable(answers)) response.add_unreachable(std::move(name));
        for (const auto& answer : answers) {
          if (!answer.response.ok()) continue;
          auto* const shard = response.add_shards();
          shard->set_shard(answer.name);
          shard->set_was_frozen_us(answer.response->was_frozen_us());
          shard->set_wall_unix_us(answer.response->wall_unix_us());
        }
        done(std::move(response));
      });
}

void Admin::GetMessage(admin::v1::GetMessageRequest request,
                       Done<admin::v1::GetMessageResponse> done) {
  const auto id = mail::ParseMessageId(request.message_id());
  if (!id) return done(absl::InvalidArgumentError("a message id has 26 letters and digits"));
  queue::v1::GetMessageRequest query;
  query.set_message_id(*id);
  query.set_with_body(request.with_body());
  FanOut<queue::v1::GetMessageResponse>(
      executor_, options_.peer_timeout, peers_.shards(),
      [&query](QueueControlClient& shard, Done<queue::v1::GetMessageResponse> answer) {
        shard.GetMessage(query, std::move(answer));
      },
      [done = std::move(done)](Answers<queue::v1::GetMessageResponse> answers) mutable {
        admin::v1::GetMessageResponse response;
        bool found = false;
        for (auto& answer : answers) {
          if (!answer.response.ok()) continue;
          for (auto& recipient : *answer.response->mutable_recipients()) {
            if (recipient.shard().empty()) recipient.set_shard(answer.name);
          }
          if (!std::exchange(found, true)) {
            *response.mutable_message() = *std::move(answer.response);
          } else {
            response.mutable_message()->mutable_recipients()->MergeFrom(
                answer.response->recipients());
            if (answer.response->more()) response.mutable_message()->set_more(true);
          }
        }
        if (!found) return done(NotFoundOrUnreachable("message", Unreachable(answers)));
        done(std::move(response));
      });
}

}  // namespace sluice::policy
