// Threads for work that blocks (files, programs, plain HTTP), so that no event loop waits for it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"

namespace sluice::delivery {

// Thread-safety: all functions from any thread. Lifetime: the destructor drops what has not begun
// and waits for what has.
class BlockingPool {
 public:
  using Task = absl::AnyInvocable<void()>;

  explicit BlockingPool(size_t threads);
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  // Runs `task` on one of the threads, in turn.
  void Run(Task task);

 private:
  void Work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;  // guarded by mutex_
  bool stopping_ = false;   // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace sluice::delivery
