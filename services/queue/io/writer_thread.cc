#include "services/queue/io/writer_thread.h"

#include <pthread.h>

#include <algorithm>
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
  CommitterStats stats;
  std::array<Duration, 256> latest;
  {
    std::lock_guard lock(mutex_);
    stats = stats_;
    latest = latest_;
  }
  const size_t count = std::min<uint64_t>(stats.syncs, latest.size());
  if (count == 0) return stats;
  std::sort(latest.begin(), latest.begin() + static_cast<ptrdiff_t>(count));
  stats.p50 = latest[count / 2];
  stats.p99 = latest[count * 99 / 100];
  return stats;
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
      latest_[stats_.syncs % latest_.size()] = executor_.clock().Now() - begin;
      ++stats_.syncs;
      stats_.bytes += bytes;
    }
    executor_.Post(
        [done = std::move(done), status = std::move(status), batch = std::move(batch)]() mutable {
          done(std::move(status), std::move(batch));
        });
  }
}

}  // namespace sluice::queue
