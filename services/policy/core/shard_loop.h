// Calls shards one after the other, each as often as it has more.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/policy/core/fan_out.h"
#include "services/policy/core/queue_control_client.h"

namespace sluice::policy {

enum class LoopStep { kSameShard, kNextShard, kStop };

// INVALID_ARGUMENT: the request itself is wrong, and asking others is no use.
inline bool IsRequestError(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsOutOfRange(status);
}

// Thread-safety: everything on the executor, which outlives the loop. Keeps itself alive until
// `finish` was called, once.
template <class Response>
class ShardLoop : public std::enable_shared_from_this<ShardLoop<Response>> {
 public:
  using Ask = absl::AnyInvocable<void(QueueControlClient&, Done<Response>)>;
  using Take = absl::AnyInvocable<LoopStep(const std::string& shard, Response)>;
  // OK, the request error, or NOT_FOUND where each shard said that; and the shards that did not
  // answer.
  using Finish = absl::AnyInvocable<void(absl::Status, std::vector<std::string> unreachable)>;

  ShardLoop(Executor& executor, Duration timeout, AdminPeers::Shards shards)
      : executor_(executor), timeout_(timeout), shards_(std::move(shards)) {}

  void Run(size_t first, Ask ask, Take take, Finish finish) {
    next_ = first;
    ask_ = std::move(ask);
    take_ = std::move(take);
    finish_ = std::move(finish);
    Step();
  }

 private:
  void Step() {
    if (next_ >= shards_.size()) {
      const bool nowhere = !taken_ && unreachable_.empty();
      return finish_(nowhere ? not_found_ : absl::OkStatus(), std::move(unreachable_));
    }
    FanOut<Response, QueueControlClient>(
        executor_, timeout_, {shards_[next_]},
        [this](QueueControlClient& shard, Done<Response> done) { ask_(shard, std::move(done)); },
        [self = this->shared_from_this()](Answers<Response> answers) {
          // Not from inside: shards that answer in the call would nest without end.
          self->executor_.Post([self, answer = std::move(answers.front())]() mutable {
            self->OnAnswer(std::move(answer));
          });
        });
  }

  void OnAnswer(Answer<Response> answer) {
    LoopStep step = LoopStep::kNextShard;
    if (answer.response.ok()) {
      taken_ = true;
      step = take_(answer.name, *std::move(answer.response));
    } else if (IsRequestError(answer.response.status())) {
      return finish_(answer.response.status(), std::move(unreachable_));
    } else if (absl::IsNotFound(answer.response.status())) {
      not_found_ = answer.response.status();
    } else {
      unreachable_.push_back(answer.name);
    }
    if (step == LoopStep::kStop) return finish_(absl::OkStatus(), std::move(unreachable_));
    if (step == LoopStep::kNextShard) ++next_;
    Step();
  }

  Executor& executor_;
  const Duration timeout_;
  const AdminPeers::Shards shards_;
  size_t next_ = 0;
  Ask ask_;
  Take take_;
  Finish finish_;
  std::vector<std::string> unreachable_;
  bool taken_ = false;  // an answer
  absl::Status not_found_;
};

}  // namespace sluice::policy
