#include "services/ingest/io/work_thread.h"

#include <utility>

namespace sluice::ingest {

WorkThread::WorkThread() : thread_([this] { Loop(); }) {}

WorkThread::~WorkThread() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

bool WorkThread::Run(std::string_view whose, absl::AnyInvocable<bool()> work, Executor& executor,
                     absl::AnyInvocable<void(bool)> done) {
  {
    std::lock_guard lock(mutex_);
    if (waiting_ >= kMaxWaiting) return false;
    const auto [found, fresh] = jobs_.try_emplace(std::string(whose));
    if (found->second.size() >= kMaxWaitingOfOne) return false;
    if (fresh) turn_.push_back(found->first);
    found->second.push_back({std::move(work), &executor, std::move(done)});
    ++waiting_;
  }
  changed_.notify_one();
  return true;
}

void WorkThread::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || waiting_ > 0; });
    if (ending_) return;
    std::string whose = std::move(turn_.front());
    turn_.pop_front();
    const auto found = jobs_.find(whose);
    Job job = std::move(found->second.front());
    found->second.pop_front();
    --waiting_;
    if (found->second.empty()) {
      jobs_.erase(found);
    } else {
      turn_.push_back(std::move(whose));
    }
    lock.unlock();
    const bool ok = job.work();
    job.executor->Post([ok, done = std::move(job.done)]() mutable { done(ok); });
    lock.lock();
  }
}

}  // namespace sluice::ingest
