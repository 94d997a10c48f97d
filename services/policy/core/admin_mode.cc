// Backoff mode and sources of queues by an operator's word, the same in all shards: mail of a queue
// may come to any of them, and the word must hold there too.
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/policy/core/admin.h"
#include "services/policy/core/shard_loop.h"

namespace sluice::policy {
namespace {

constexpr int kMostNamesShown = 1'000;

bool HasWildcards(const std::string& pattern) {
  return pattern.find_first_of("*?") != pattern.npos;
}

template <class Request, class Response, class Total>
class ModeChange : public std::enable_shared_from_this<ModeChange<Request, Response, Total>> {
 public:
  using Method = void (QueueControlClient::*)(Request, Done<Response>);

  // `makes`: a queue that no shard has is made where its name is given.
  ModeChange(Executor& executor, Duration timeout, AdminPeers::Shards shards, Method method,
             Request request, bool makes, Done<Total> done)
      : executor_(executor),
        timeout_(timeout),
        shards_(std::move(shards)),
        method_(method),
        request_(std::move(request)),
        makes_(makes),
        done_(std::move(done)) {}

  void Begin() {
    request_.clear_names();
    const size_t slash = request_.pattern().find('/');
    if (slash == std::string::npos) {
      return done_(absl::InvalidArgumentError(
          "which queues? They are named domain/vmta, with * and ? for more than one"));
    }
    // As queues are named.
    std::string& pattern = *request_.mutable_pattern();
    pattern.replace(0, slash, absl::AsciiStrToLower(pattern.substr(0, slash)));
    if (makes_ && !HasWildcards(request_.pattern())) request_.add_names(request_.pattern());
    FanOut<Response>(
        executor_, timeout_, shards_,
        [this](QueueControlClient& shard, Done<Response> answer) {
          (shard.*method_)(request_, std::move(answer));
        },
        [self = this->shared_from_this()](Answers<Response> answers) {
          self->OnFirst(std::move(answers));
        });
  }

 private:
  void OnFirst(Answers<Response> answers) {
    absl::Status none = absl::NotFoundError("no shard is configured");
    size_t found = 0;
    for (size_t i = 0; i < answers.size(); ++i) {
      const absl::Status status = answers[i].response.status();
      if (IsRequestError(status)) return done_(status);
      if (absl::IsNotFound(status)) {
        none = status;
      } else if (absl::IsUnimplemented(status)) {
        total_.add_notes(absl::StrCat("shard ", answers[i].name,
                                      " is of a release that cannot do this: upgrade it"));
        total_.add_unreachable(answers[i].name);
      } else if (!status.ok()) {
        total_.add_unreachable(answers[i].name);
      }
      if (!status.ok()) continue;
      ++found;
      cut_ |= answers[i].response->changed_cut();
      for (const std::string& name : answers[i].response->changed()) changed_[name].insert(i);
    }
    if (found == 0) {
      if (total_.unreachable().empty()) {
        // Of a name that was to be made the shards say what is wrong.
        if (!request_.names().empty()) return done_(std::move(none));
        return done_(absl::NotFoundError(
            absl::StrCat("no shard has a queue that matches ", request_.pattern(),
                         makes_ ? "" : ", so nothing is to be undone")));
      }
      return done_(
          absl::UnavailableError(absl::StrCat("no answer from ", total_.unreachable(0),
                                              total_.unreachable_size() > 1 ? " and others" : "",
                                              ", and nothing was changed elsewhere")));
    }
    if (cut_) {
      total_.add_notes(
          "too many queues for one request to be told to shards that have no mail of them: repeat "
          "it with narrower patterns");
    }
    // Who had something to change, by shard; the others hear of it by name.
    std::vector<Request> missing(shards_.size());
    for (const auto& [name, has] : changed_) {
      for (size_t i = 0; i < shards_.size(); ++i) {
        const absl::Status status = answers[i].response.status();
        const bool answered = status.ok() || absl::IsNotFound(status);
        if (answered && !has.contains(i)) missing[i].add_names(name);
      }
    }
    AdminPeers::Shards asked;
    auto requests = std::make_shared<std::map<std::string, Request>>();
    for (size_t i = 0; i < shards_.size(); ++i) {
      if (missing[i].names().empty()) continue;
      Request request = request_;
      request.clear_pattern();
      request.mutable_names()->Swap(missing[i].mutable_names());
      asked.push_back(shards_[i]);
      requests->emplace(shards_[i]->name(), std::move(request));
    }
    FanOut<Response>(
        executor_, timeout_, asked,
        [this, requests](QueueControlClient& shard, Done<Response> answer) {
          (shard.*method_)(requests->at(shard.name()), std::move(answer));
        },
        [self = this->shared_from_this()](Answers<Response> later) {
          for (const auto& answer : later) {
            // Its virtual MTA is no more: no mail comes for it.
            if (answer.response.ok() || absl::IsNotFound(answer.response.status())) continue;
            self->total_.add_unreachable(answer.name);
          }
          self->Finish();
        });
  }

  void Finish() {
    total_.set_queues(changed_.size());
    for (const auto& [name, shards] : changed_) {
      if (total_.names_size() == kMostNamesShown) break;
      total_.add_names(name);
    }
    done_(std::move(total_));
  }

  Executor& executor_;
  const Duration timeout_;
  const AdminPeers::Shards shards_;
  const Method method_;
  Request request_;
  const bool makes_;
  Done<Total> done_;
  Total total_;
  std::map<std::string, std::set<size_t>> changed_;  // by name: positions of the shards
  bool cut_ = false;
};

template <class Request, class Response, class Total>
void Run(Executor& executor, Duration timeout, AdminPeers::Shards shards,
         void (QueueControlClient::*method)(Request, Done<Response>), Request request, bool makes,
         Done<Total> done) {
  std::make_shared<ModeChange<Request, Response, Total>>(
      executor, timeout, std::move(shards), method, std::move(request), makes, std::move(done))
      ->Begin();
}

}  // namespace

void Admin::SetQueueMode(admin::v1::SetQueueModeRequest request,
                         Done<admin::v1::SetQueueModeResponse> done) {
  queue::v1::SetQueueModeRequest change = std::move(*request.mutable_request());
  const bool makes = change.backoff();
  Run(executor_, options_.peer_timeout, peers_.shards(), &QueueControlClient::SetQueueMode,
      std::move(change), makes, std::move(done));
}

void Admin::SetQueueSource(admin::v1::SetQueueSourceRequest request,
                           Done<admin::v1::SetQueueSourceResponse> done) {
  queue::v1::SetQueueSourceRequest change = std::move(*request.mutable_request());
  const auto ip = IpAddress::Parse(change.ip());
  if (!ip) return done(absl::InvalidArgumentError("which source address? It is no IP address"));
  change.set_ip(ip->ToString());
  const bool makes = change.disable();
  Run(executor_, options_.peer_timeout, peers_.shards(), &QueueControlClient::SetQueueSource,
      std::move(change), makes, std::move(done));
}

}  // namespace sluice::policy
