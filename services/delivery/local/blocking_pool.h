// Threads for work that blocks (files, programs, plain HTTP), so that no event loop waits for it.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"

namespace sluice::delivery {

// Threads are begun when they are needed, and stay. No key has more than its share of them, so that
// what hangs at one end does not stop the others. Thread-safety: all functions from any thread.
// Lifetime: the destructor drops what has not begun and waits for what has.
class BlockingPool {
 public:
  using Task = absl::AnyInvocable<void()>;

  // At most `threads`, of which one key has at most `threads_of_a_key`; both at least 1.
  BlockingPool(size_t threads, size_t threads_of_a_key);
  ~BlockingPool();
  BlockingPool(const BlockingPool&) = delete;
  BlockingPool& operator=(const BlockingPool&) = delete;

  // Runs `task` on one of the threads: those of one key in turn, and the keys in turn.
  void Run(const std::string& key, Task task);

 private:
  struct Line {
    std::deque<Task> tasks;
    size_t running = 0;
    bool listed = false;  // in next_
  };
  void Work();
  // Where the key may begin a task, and a thread sees to it.
  void List(const std::string& key, Line& line);

  const size_t max_threads_;
  const size_t max_of_a_key_;
  std::mutex mutex_;
  std::condition_variable changed_;
  absl::flat_hash_map<std::string, Line> lines_;  // guarded by mutex_; those with work
  std::deque<std::string> next_;                  // guarded by mutex_; keys that may begin a task
  size_t idle_ = 0;                               // guarded by mutex_; threads that wait
  bool stopping_ = false;                         // guarded by mutex_
  std::vector<std::thread> threads_;              // guarded by mutex_
};

}  // namespace sluice::delivery
