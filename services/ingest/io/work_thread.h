// A thread for password hashes, so that no loop waits for one.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "absl/container/flat_hash_map.h"
#include "services/ingest/core/slow_work.h"

namespace sluice::ingest {

// One thread: who guesses passwords gets one core at most. Thread-safety: any. Lifetime: as
// SlowWork; what waits at its destruction is dropped, without `done`.
class WorkThread final : public SlowWork {
 public:
  // Jobs that may wait: a sender may open some hundred connections at once, and each
  // authenticates.
  static constexpr size_t kMaxWaiting = 1024;
  static constexpr size_t kMaxWaitingOfOne = 512;

  WorkThread();
  ~WorkThread() override;

  bool Run(std::string_view whose, absl::AnyInvocable<bool()> work, Executor& executor,
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
  // Guarded by mutex_. Whoever is in jobs_ has one place in turn_, and no empty queue.
  absl::flat_hash_map<std::string, std::deque<Job>> jobs_;
  std::deque<std::string> turn_;
  size_t waiting_ = 0;
  bool ending_ = false;  // guarded by mutex_
  std::thread thread_;   // last: it uses the others
};

}  // namespace sluice::ingest
