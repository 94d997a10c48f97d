#include "services/delivery/local/blocking_pool.h"

#include <utility>

namespace sluice::delivery {

BlockingPool::BlockingPool(size_t threads, size_t threads_of_a_key)
    : max_threads_(threads), max_of_a_key_(threads_of_a_key) {}

BlockingPool::~BlockingPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    lines_.clear();
    next_.clear();
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void BlockingPool::List(const std::string& key, Line& line) {
  if (line.listed || line.tasks.empty() || line.running >= max_of_a_key_) return;
  line.listed = true;
  next_.push_back(key);
  if (next_.size() > idle_ && threads_.size() < max_threads_) {
    ++idle_;  // it is, as soon as it is there
    threads_.emplace_back([this] { Work(); });
  } else {
    changed_.notify_one();
  }
}

void BlockingPool::Run(const std::string& key, Task task) {
  const std::lock_guard lock(mutex_);
  Line& line = lines_[key];
  line.tasks.push_back(std::move(task));
  List(key, line);
}

void BlockingPool::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !next_.empty(); });
    if (stopping_) return;
    --idle_;
    const std::string key = std::move(next_.front());
    next_.pop_front();
    Line& line = lines_[key];
    line.listed = false;
    ++line.running;
    Task task = std::move(line.tasks.front());
    line.tasks.pop_front();
    List(key, line);
    lock.unlock();
    task();
    // What it holds may be large, or end a file: not under the lock.
    task = Task();
    lock.lock();
    ++idle_;
    const auto done = lines_.find(key);
    if (done == lines_.end()) continue;  // stopping
    --done->second.running;
    List(key, done->second);
    if (done->second.running == 0 && done->second.tasks.empty()) lines_.erase(done);
  }
}

}  // namespace sluice::delivery
