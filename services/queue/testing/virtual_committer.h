// A committer in virtual time: the batch reaches the store when the sync would have ended.
#pragma once

#include <memory>
#include <utility>

#include "services/base/executor.h"
#include "services/queue/core/committer.h"

namespace sluice::queue::testing {

// Lifetime: executor and store outlive it. A commit under way when it is destroyed never happens:
// that is the power cut.
class VirtualCommitter final : public Committer {
 public:
  VirtualCommitter(Executor& executor, Store& store, Duration sync = std::chrono::microseconds(300))
      : executor_(executor), store_(store), sync_(sync) {}

  void Commit(std::unique_ptr<Batch> batch, Done done) override {
    executor_.After(sync_, [this, alive = std::weak_ptr<bool>(alive_), batch = std::move(batch),
                            done = std::move(done)]() mutable {
      if (alive.expired()) return;
      ++stats_.syncs;
      stats_.bytes += batch->bytes();
      absl::Status status = store_.Commit(*batch, true);
      done(std::move(status), std::move(batch));
    });
  }
  CommitterStats stats() const override { return stats_; }

 private:
  Executor& executor_;
  Store& store_;
  const Duration sync_;
  CommitterStats stats_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::queue::testing
