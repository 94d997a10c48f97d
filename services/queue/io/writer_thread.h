// The shard's blocking writer: one thread that commits and syncs.
#pragma once

#include <array>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>

#include "services/base/executor.h"
#include "services/queue/core/committer.h"

namespace sluice::queue {

// Lifetime: `executor` and `store` outlive it; the destructor waits for the commit under way, whose
// `done` may then never run.
class WriterThread final : public Committer {
 public:
  WriterThread(Executor& executor, Store& store);
  ~WriterThread() override;

  void Commit(std::unique_ptr<Batch> batch, Done done) override;
  CommitterStats stats() const override;

 private:
  void Run();

  Executor& executor_;
  Store& store_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::unique_ptr<Batch> batch_;  // guarded by mutex_, like all below
  Done done_;
  bool stopping_ = false;
  CommitterStats stats_;
  std::array<Duration, 256> latest_{};  // a ring, by stats_.syncs
  std::thread thread_;
};

}  // namespace sluice::queue
