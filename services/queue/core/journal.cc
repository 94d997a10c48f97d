#include "services/queue/core/journal.h"

#include <algorithm>

#include "services/queue/core/key_codec.h"

namespace sluice::queue {

Journal::Journal(Executor& executor, Store& store, Committer& committer,
                 const JournalOptions& options)
    : executor_(executor),
      store_(store),
      committer_(committer),
      options_(options),
      max_batch_bytes_(options.max_batch_bytes),
      pending_(store.NewBatch()),
      spare_(store.NewBatch()) {}

Batch& Journal::batch() {
  Schedule();
  return *pending_;
}

common::v1::Event& Journal::AddEvent() {
  Schedule();
  return *events_.add_events();
}

void Journal::WhenDurable(OnDurable done) {
  waiting_.push_back(std::move(done));
  Schedule();
}

size_t Journal::pending_bytes() const { return pending_->bytes() + closed_bytes_; }

void Journal::Seal() {
  if (events_.events_size() >= options_.max_record_events) WriteEvents();
  if (pending_->bytes() >= max_batch_bytes_) Close();
}

void Journal::WriteEvents() {
  if (on_events_) on_events_(events_);
  events_.SerializeToString(&event_value_);
  event_bytes_total_ += event_value_.size();
  events_total_ += static_cast<uint64_t>(events_.events_size());
  pending_->Put(Family::kEvents, U64Key(next_sequence_++), event_value_);
  events_.Clear();
}

void Journal::Close() {
  closing_ = true;
  if (on_close_) on_close_();
  closing_ = false;
  if (events_.events_size() > 0) WriteEvents();
  closed_bytes_ += pending_->bytes();
  closed_.push_back({std::move(pending_), std::move(waiting_)});
  waiting_.clear();
  pending_ = spare_ != nullptr ? std::move(spare_) : store_.NewBatch();
}

void Journal::Schedule() {
  if (closing_) return;
  if (!scheduled_) {
    scheduled_ = true;
    if (committing_) return;  // Finish begins the next one
    const MonotonicTime earliest = last_begin_ + options_.gap;
    if (IsWorthASync() || executor_.clock().Now() >= earliest) {
      PostBegin();
    } else {
      gap_timer_ = executor_.At(earliest, [this, alive = std::weak_ptr<bool>(alive_)] {
        if (!alive.expired()) Begin();
      });
    }
  } else if (gap_timer_ != 0 && IsWorthASync()) {
    executor_.Cancel(std::exchange(gap_timer_, 0));
    PostBegin();
  }
}

bool Journal::IsWorthASync() const {
  return !closed_.empty() || pending_->count() >= options_.full_count ||
         pending_->bytes() >= options_.full_bytes;
}

// Posted, so that all that comes in this turn shares the sync.
void Journal::PostBegin() {
  executor_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) Begin();
  });
}

void Journal::Begin() {
  if (committing_) return;
  gap_timer_ = 0;
  scheduled_ = false;
  if (closed_.empty()) Close();
  Closed next = std::move(closed_.front());
  closed_.pop_front();
  closed_bytes_ -= next.batch->bytes();
  if (!closed_.empty() || pending_->count() > 0 || !waiting_.empty() || events_.events_size() > 0) {
    scheduled_ = true;
  }
  if (!failure_.ok() || next.batch->count() == 0) {
    next.batch->Clear();
    spare_ = std::move(next.batch);
    Tell(next.done, failure_);
    return;
  }
  committing_ = true;
  last_begin_ = executor_.clock().Now();
  committer_.Commit(std::move(next.batch),
                    [this, alive = std::weak_ptr<bool>(alive_), done = std::move(next.done)](
                        absl::Status status, std::unique_ptr<Batch> committed) mutable {
                      if (alive.expired()) return;
                      Finish(status, std::move(committed), std::move(done));
                    });
}

void Journal::Finish(const absl::Status& status, std::unique_ptr<Batch> batch,
                     std::vector<OnDurable> done) {
  batch->Clear();
  spare_ = std::move(batch);
  if (!status.ok()) {
    failure_ = status;
    if (on_failed_) on_failed_(status);
  }
  Tell(done, status);
}

void Journal::Tell(std::vector<OnDurable>& done, const absl::Status& status) {
  committing_ = true;  // what they ask for is scheduled once, below
  const std::weak_ptr<bool> alive = alive_;
  for (OnDurable& each : done) {
    each(status);
    if (alive.expired()) return;
  }
  committing_ = false;
  if (std::exchange(scheduled_, false)) Schedule();
  if (on_idle_ && status.ok()) on_idle_();
}

}  // namespace sluice::queue
