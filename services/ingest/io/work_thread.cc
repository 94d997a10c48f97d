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

bool WorkThread::Run(absl::AnyInvocable<bool()> work, Executor& executor,
                     absl::AnyInvocable<void(bool)> done) {
  {
    std::lock_guard lock(mutex_);
    if (jobs_.size() >= kMaxWaiting) return false;
    jobs_.push_back({std::move(work), &executor, std::move(done)});
  }
  changed_.notify_one();
  return true;
}

void WorkThread::Loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (ending_) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    const bool ok = job.work();
    job.executor->Post([ok, done = std::move(job.done)]() mutable { done(ok); });
    lock.lock();
  }
}

}  // namespace sluice::ingest
