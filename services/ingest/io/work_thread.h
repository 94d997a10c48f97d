// A thread for password hashes, so that no loop waits for one.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "services/ingest/core/slow_work.h"

namespace sluice::ingest {

// One thread: who guesses passwords gets one core at most. Thread-safety: any. Lifetime: as
// SlowWork; what waits at its destruction is dropped, without `done`.
class WorkThread final : public SlowWork {
 public:
  // Jobs that may wait; a client waits at most as long as so many hashes take.
  static constexpr size_t kMaxWaiting = 64;

  WorkThread();
  ~WorkThread() override;

  bool Run(absl::AnyInvocable<bool()> work, Executor& executor,
           absl::AnyInvocable<void(bool)> done) override;

 private:
  struct Job {
    absl::AnyInvocable<bool()> work;
    Executor* executor;
    absl::AnyInvocable<void(bool)> done;
  };
  void Loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;  // guarded by mutex_
  bool ending_ = false;   // guarded by mutex_
  std::thread thread_;    // last: it uses the others
};

}  // namespace sluice::ingest
