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

size_t Journal::pending_bytes() const { return pending_->bytes(); }

void Journal::Schedule() {
  if (scheduled_) return;
  scheduled_ = true;
  if (committing_) return;  // Finish begins the next one
  const MonotonicTime earliest = last_begin_ + options_.gap;
  auto begin = [this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) Begin();
  };
  // Posted, so that all that comes in this turn shares the sync.
  if (executor_.clock().Now() >= earliest) {
    executor_.Post(std::move(begin));
  } else {
    executor_.At(earliest, std::move(begin));
  }
}

void Journal::Begin() {
  if (committing_) return;
  scheduled_ = false;
  std::vector<OnDurable> done = std::move(waiting_);
  waiting_.clear();
  if (!failure_.ok()) {
    for (OnDurable& each : done) each(failure_);
    return;
  }
  if (events_.events_size() > 0) {
    events_.SerializeToString(&event_value_);
    event_bytes_total_ += event_value_.size();
    pending_->Put(Family::kEvents, U64Key(next_sequence_++), event_value_);
    events_.Clear();
  }
  if (pending_->count() == 0) {
    for (OnDurable& each : done) each(absl::OkStatus());
    return;
  }
  committing_ = true;
  last_begin_ = executor_.clock().Now();
  std::unique_ptr<Batch> batch = std::exchange(pending_, std::move(spare_));
  committer_.Commit(std::move(batch),
                    [this, alive = std::weak_ptr<bool>(alive_), done = std::move(done)](
                        absl::Status status, std::unique_ptr<Batch> committed) mutable {
                      if (alive.expired()) return;
                      Finish(status, std::move(committed), std::move(done));
                    });
}

void Journal::Finish(const absl::Status& status, std::unique_ptr<Batch> batch,
                     std::vector<OnDurable> done) {
  batch->Clear();
  spare_ = std::move(batch);
  committing_ = false;
  const std::weak_ptr<bool> alive = alive_;
  if (!status.ok()) {
    failure_ = status;
    if (on_failed_) on_failed_(status);
  }
  for (OnDurable& each : done) {
    each(status);
    if (alive.expired()) return;
  }
  if (on_idle_ && status.ok()) on_idle_();
  if (!scheduled_) return;
  scheduled_ = false;
  Schedule();
}

}  // namespace sluice::queue
