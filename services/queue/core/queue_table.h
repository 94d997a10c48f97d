// The queues that have mail or a state, in memory: at most about a kilobyte each, whatever they
// hold.
#pragma once

#include <cstdint>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "services/base/executor.h"
#include "services/config/policy_view.h"
#include "services/queue/core/key_codec.h"
#include "services/queue/core/store.h"
#include "sluice/queue/v1/storage.pb.h"

namespace sluice::queue {

inline constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
// Of a queue, whatever max-events-recorded says.
inline constexpr uint32_t kMostKeptReplies = 100;

struct WorkerSession;

// Rows of one lane, in their order. Most lanes have none, and these cost a pointer.
class RowSet {
 public:
  bool empty() const { return rows_ == nullptr; }
  size_t size() const { return rows().size(); }
  bool contains(const DeliveryKey& key) const { return rows_ != nullptr && rows_->contains(key); }
  auto begin() const { return rows().begin(); }
  auto end() const { return rows().end(); }
  // Quickest behind all others.
  void insert(const DeliveryKey& key) {
    if (rows_ == nullptr) rows_ = std::make_unique<std::set<DeliveryKey>>();
    rows_->insert(rows_->end(), key);
  }
  void erase(const DeliveryKey& key) {
    if (rows_ != nullptr && rows_->erase(key) > 0 && rows_->empty()) rows_.reset();
  }

 private:
  const std::set<DeliveryKey>& rows() const {
    static const auto& kNone = *new std::set<DeliveryKey>();
    return rows_ == nullptr ? kNone : *rows_;
  }

  std::unique_ptr<std::set<DeliveryKey>> rows_;  // none is empty
};

// A job or a priority within a queue.
struct Lane {
  uint64_t id = 0;
  std::unique_ptr<const std::string> job;  // nullptr: none
  uint32_t priority = kDefaultPriority;
  uint32_t taken_since_floor = 0;
  // No live row that is neither leased nor about to change sorts before this.
  DeliveryKey cursor;
  // Rows out to a worker, or changed by a batch that is not durable yet.
  RowSet busy;
  // As stored, or as it will be with the next batch: no live row at all sorts before this.
  DeliveryKey floor;
  int64_t next_due_us = 0;  // lower bound of what lies at or behind the cursor; kNever: nothing
  uint64_t recipients = 0;
  int32_t deficit = 0;  // groups that it may still take in this round
  bool paused = false;
  bool looked_at = true;  // false: next_due_us comes from before a restart, read before believing
  bool dirty = false;     // its row is to be written
  std::list<Lane>::iterator place;  // in its queue's lanes

  const std::string& job_id() const;  // empty: none
};

struct Queue {
  uint64_t id = 0;
  std::string name;                   // domain/vmta
  const std::string* pool = nullptr;  // shared, as last_worker is
  // Of <mx-rollup-list>; nullptr: none. Shared. The wish is what its worker said last.
  const std::string* rollup = nullptr;
  const std::string* rollup_wish = nullptr;
  int64_t rollup_since_us = 0;
  uint32_t domain_bytes = 0;
  std::list<Lane> lanes;  // the next one to serve is the first
  Lane* main_lane = nullptr;
  std::unique_ptr<absl::flat_hash_map<uint64_t, Lane*>> lane_index;  // where there are many

  uint64_t recipients = 0;  // queued and leased
  uint32_t leased = 0;
  uint32_t pending = 0;  // changes in batches that are not durable
  uint64_t delivered = 0;
  uint64_t transient = 0;
  uint64_t failed = 0;
  int64_t active_us = 0;  // when something last came or went

  v1::QueueMode mode = v1::QUEUE_MODE_UNSPECIFIED;
  uint32_t retry_step = 0;
  uint32_t penalties = 0;  // since the last delivery
  int64_t retry_until_us = 0;
  int64_t penalty_until_us = 0;
  bool deferred = false;  // in retry mode because a reply asked for it
  // Lower bounds over all live rows, as stored; both only ever move back between two writes.
  int64_t stored_next_due_us = kNever;
  int64_t earliest_expiry_us = kNever;
  int64_t expiry_added_us = kNever;  // of rows that came since the sweep began with this queue

  // Whom it is dispatched to: one worker at a time, so that workers never multiply its limits.
  WorkerSession* session = nullptr;
  uint64_t queue_ref = 0;
  const std::string* last_worker = nullptr;  // had it last
  int deficit = 0;                           // groups that it may still take in its turn
  bool in_ready_list = false;
  bool waiting = false;         // for a worker that can take it
  bool waits_for_last = false;  // of these: for last_worker alone
  bool dirty = false;           // its row is to be written
  bool paused = false;
  bool stored_replies = false;  // the row has replies that are not in memory
  // When the first pause of a lane ends; kNever: none does by itself.
  int64_t lanes_resume_us = kNever;
  TimerId timer = 0;
  int64_t timer_us = 0;
  std::unique_ptr<const std::string> blocked_limit;  // nullptr: none
  int64_t blocked_until_us = 0;

  std::shared_ptr<const policy::v1::QueueSettings> settings;
  uint64_t settings_version = 0;

  // Of queues whose mode ever changed, or that do without some source address.
  struct Backoff {
    v1::QueueModeState mode;
    std::vector<v1::DisabledSource> sources;  // and some that are enabled again
    int64_t told_us = 0;                      // when people were told last
  };
  std::unique_ptr<Backoff> backoff;

  struct History {
    std::vector<common::v1::Reply> replies;  // newest first
    std::vector<int64_t> times_us;
    std::list<Queue*>::iterator place;
    bool unsaved = false;
  };
  std::unique_ptr<History> history;

  // In the time for which defer-queue of a reply has it wait: what was under way does not end that.
  bool Deferred(int64_t now_us) const {
    return mode == v1::QUEUE_MODE_RETRY && deferred && now_us < retry_until_us;
  }
  // In the time that a reply's penalty has it wait, unless an operator has ended that.
  bool Penalised(int64_t now_us) const {
    return mode == v1::QUEUE_MODE_RETRY && now_us < penalty_until_us && now_us < retry_until_us;
  }
  std::string_view domain() const { return std::string_view(name).substr(0, domain_bytes); }
  std::string_view vmta() const { return std::string_view(name).substr(domain_bytes + 1); }
  // Makes it where there is none. References stay valid until the lane is dropped.
  Lane& LaneOf(uint64_t lane, std::string_view job_id = {}, uint32_t priority = 0);
  Lane* FindLane(uint64_t lane);
  void DropLane(Lane& lane);
  // Before those of lower priority and those that have nothing due, if it is not there.
  void PutBeforeLower(Lane& lane, int64_t now_us);
  // Moves the lane that was served behind the others.
  void NextLane() { lanes.splice(lanes.end(), lanes, lanes.begin()); }
};

// Thread-safety: the shard's executor.
class QueueTable {
 public:
  // Replies of queues kept in memory; those of others are in their rows.
  explicit QueueTable(const Store& store, size_t histories = 1000)
      : store_(store), most_histories_(histories) {}

  Queue* Find(std::string_view name);
  Queue* FindById(uint64_t id);
  // Makes it, with its row in the next batch, where there is none.
  Queue& Get(std::string_view domain, std::string_view vmta, std::string_view pool, Batch& batch);
  // To be called with every row that a batch adds: moves floor and lower bounds back where they
  // must be, so that a restart finds the row.
  void NoteRow(Queue& queue, Lane& lane, const DeliveryKey& key, int64_t expires_us);
  // Its row goes into the next batch.
  void Touch(Queue& queue);
  void Touch(Queue& queue, Lane& lane);
  // Writes the rows that were touched. Called as a batch is closed.
  void WriteTouched(Batch& batch);
  // Deletes the rows and forgets it.
  void Remove(Queue& queue, Batch& batch);
  void RemoveLane(Queue& queue, Lane& lane, Batch& batch);
  // Reads all rows. One that cannot be read is made anew from the first delivery that tells what
  // was in it; without any it is left as it is.
  absl::Status Load();
  // Of Load.
  struct Damaged {
    std::string key;
    std::string value;
    std::string what;
    std::string queue;  // made anew; empty: not
  };
  std::vector<Damaged> TakeDamaged() { return std::exchange(damaged_, {}); }

  // One copy of a name that many queues share; kept for as long as the table.
  const std::string* Shared(std::string_view name);

  // As the latest of at most `most`.
  void Remember(Queue& queue, const common::v1::Reply& reply, int64_t now_us, uint32_t most = 10);
  // nullptr where there are none; read from the row where need be.
  const Queue::History* HistoryOf(Queue& queue);

  const std::map<std::string_view, std::unique_ptr<Queue>>& all() const { return by_name_; }
  size_t size() const { return by_name_.size(); }

  // Called with each row before it is written.
  void set_on_write(absl::AnyInvocable<void(const Queue&, v1::QueueRow&)> on_write) {
    on_write_ = std::move(on_write);
  }
  // As it was written last; an empty one where it was not.
  v1::QueueRow StoredRow(const Queue& queue) const;

 private:
  void WriteRow(Queue& queue, Batch& batch);
  void Put(const std::string& key, const google::protobuf::Message& row, Batch& batch) const;
  void KeepUnknown(std::string_view key, const google::protobuf::Message& row);
  void LoadHistory(Queue& queue, const v1::QueueRow& row);
  void AddLoaded(std::unique_ptr<Queue> made);
  bool FirstDelivery(const std::string& prefix, common::v1::Delivery* delivery) const;
  void Rebuild(Damaged& row);
  void KeepHistory(Queue& queue);

  const Store& store_;
  const size_t most_histories_;
  std::map<std::string_view, std::unique_ptr<Queue>> by_name_;  // keys lie in the queues
  absl::flat_hash_map<uint64_t, Queue*> by_id_;
  std::vector<Queue*> touched_;
  std::list<Queue*> histories_;  // latest use first
  std::set<std::string, std::less<>> shared_;
  uint64_t last_id_ = 0;
  uint64_t id_mark_ = 0;  // as stored: no id up to here is given again after a restart
  std::string lookup_;
  std::vector<Damaged> damaged_;
  absl::AnyInvocable<void(const Queue&, v1::QueueRow&)> on_write_;
  // Fields that a later release wrote, by the key of their row.
  absl::flat_hash_map<std::string, std::string> unknown_;
};

}  // namespace sluice::queue
