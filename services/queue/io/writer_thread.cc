#include "services/queue/io/writer_thread.h"

#include <pthread.h>

#include <utility>

#include "services/base/check.h"

namespace sluice::queue {

WriterThread::WriterThread(Executor& executor, Store& store) : executor_(executor), store_(store) {
  thread_ = std::thread([this] { Run(); });
  pthread_setname_np(thread_.native_handle(), "queue-writer");
}

WriterThread::~WriterThread() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void WriterThread::Commit(std::unique_ptr<Batch> batch, Done done) {
  {
    std::lock_guard lock(mutex_);
    SLUICE_CHECK(batch_ == nullptr);
    batch_ = std::move(batch);
    done_ = std::move(done);
  }
  wake_.notify_one();
}

CommitterStats WriterThread::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

void WriterThread::Run() {
  for (;;) {
    std::unique_ptr<Batch> batch;
    Done done;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || batch_ != nullptr; });
      if (batch_ == nullptr) return;
      batch = std::move(batch_);
      done = std::move(done_);
    }
    const MonotonicTime begin = executor_.clock().Now();
    const size_t bytes = batch->bytes();
    absl::Status status = store_.Commit(*batch, true);
    {
      std::lock_guard lock(mutex_);
      ++stats_.syncs;
      stats_.bytes += bytes;
      stats_.last = executor_.clock().Now() - begin;
    }
    executor_.Post(
        [done = std::move(done), status = std::move(status), batch = std::move(batch)]() mutable {
          done(std::move(status), std::move(batch));
        });
  }
}

}  // namespace sluice::queue
