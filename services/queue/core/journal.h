// The shard's pending batch and its group commit: what happens while one batch syncs is gathered in
// the next one.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "services/base/executor.h"
#include "services/queue/core/committer.h"
#include "sluice/queue/v1/storage.pb.h"

namespace sluice::queue {

struct JournalOptions {
  // Least time between the starts of two commits of little: an idle journal starts at once, and so
  // does a batch of `full_count` changes or `full_bytes`, which is worth its sync.
  Duration gap = std::chrono::microseconds(500);
  size_t full_count = 64;
  size_t full_bytes = size_t{64} << 10;
  // A batch this large is closed (at the next Seal) and does not wait for the gap.
  size_t max_batch_bytes = size_t{8} << 20;
  // A record of events is written (at the next Seal) when it has so many, some hundred bytes each:
  // who reads one holds all of it, and so does each step of RocksDB.
  int max_record_events = 256;
};

// Thread-safety: the shard's executor. Failure: after a failed commit nothing is ever committed
// again; `on_failed` is called once, all callbacks of that batch and of later ones get the error.
class Journal {
 public:
  using OnDurable = absl::AnyInvocable<void(const absl::Status&)>;

  Journal(Executor& executor, Store& store, Committer& committer, const JournalOptions& options);

  // Where changes go now. Calls NeedCommit itself: whoever takes it will change something.
  Batch& batch();
  // Added to this batch's records of events. To be filled before the next Seal.
  common::v1::Event& AddEvent();
  // Called when all that was put into the batch so far is durable, in the order of asking.
  void WhenDurable(OnDurable done);
  // A place between two changes: what comes now may go into another batch than what came before.
  void Seal();
  // Called before a batch is closed, while it still takes changes.
  void set_on_close(absl::AnyInvocable<void()> on_close) { on_close_ = std::move(on_close); }
  // Called with the events of each record when it is written.
  void set_on_events(absl::AnyInvocable<void(const v1::EventBatch&)> on_events) {
    on_events_ = std::move(on_events);
  }
  // Called between two commits, after the callbacks: the store holds exactly what was committed.
  void set_on_idle(absl::AnyInvocable<void()> on_idle) { on_idle_ = std::move(on_idle); }
  void set_on_failed(absl::AnyInvocable<void(const absl::Status&)> on_failed) {
    on_failed_ = std::move(on_failed);
  }

  // First record in the outbox's key space that was not used yet.
  void set_next_sequence(uint64_t sequence) { next_sequence_ = sequence; }
  uint64_t next_sequence() const { return next_sequence_; }
  // Instead of what the options say.
  void set_max_batch_bytes(size_t bytes) { max_batch_bytes_ = bytes; }
  size_t pending_bytes() const;  // not on the way to the disk yet
  uint64_t event_bytes_total() const { return event_bytes_total_; }
  uint64_t events_total() const { return events_total_; }
  bool failed() const { return !failure_.ok(); }
  bool busy() const { return committing_; }

 private:
  void Schedule();
  bool IsWorthASync() const;
  void PostBegin();
  void Begin();
  void WriteEvents();
  void Close();
  void Tell(std::vector<OnDurable>& done, const absl::Status& status);
  void Finish(const absl::Status& status, std::unique_ptr<Batch> batch,
              std::vector<OnDurable> done);

  Executor& executor_;
  Store& store_;
  Committer& committer_;
  const JournalOptions options_;
  size_t max_batch_bytes_;
  struct Closed {
    std::unique_ptr<Batch> batch;
    std::vector<OnDurable> done;
  };

  std::unique_ptr<Batch> pending_;
  std::unique_ptr<Batch> spare_;
  std::deque<Closed> closed_;  // full batches, oldest first
  size_t closed_bytes_ = 0;
  v1::EventBatch events_;
  std::string event_value_;
  std::vector<OnDurable> waiting_;
  absl::AnyInvocable<void()> on_idle_;
  absl::AnyInvocable<void()> on_close_;
  absl::AnyInvocable<void(const v1::EventBatch&)> on_events_;
  absl::AnyInvocable<void(const absl::Status&)> on_failed_;
  uint64_t next_sequence_ = 1;
  uint64_t event_bytes_total_ = 0;
  uint64_t events_total_ = 0;
  MonotonicTime last_begin_{};
  TimerId gap_timer_ = 0;  // zero where no commit waits for the gap's end
  bool scheduled_ = false;
  bool committing_ = false;
  bool closing_ = false;
  absl::Status failure_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::queue
