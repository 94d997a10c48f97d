// The queues that have mail or a state, in memory: at most about a kilobyte each, whatever they
// hold.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/config/policy_view.h"
#include "services/queue/core/journal.h"
#include "services/queue/core/key_codec.h"
#include "sluice/queue/v1/storage.pb.h"

namespace sluice::queue {

inline constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
inline constexpr int kKeptReplies = 10;

struct WorkerSession;

// A job or a priority within a queue.
struct Lane {
  uint64_t id = 0;
  std::string job_id;
  uint32_t priority = kDefaultPriority;
  // No live row that is neither leased nor about to change sorts before this.
  DeliveryKey cursor;
  // Rows out to a worker, or changed by a batch that is not durable yet.
  std::set<DeliveryKey> busy;
  DeliveryKey floor;  // as stored
  uint32_t taken_since_floor = 0;
  int64_t next_due_us = 0;  // lower bound of what lies at or behind the cursor; kNever: nothing
  uint64_t recipients = 0;
  int32_t deficit = 0;  // recipients it may still take in this round
  bool paused = false;
};

struct Queue {
  uint64_t id = 0;
  std::string domain;
  std::string vmta;
  std::string pool;
  std::string name;         // domain/vmta
  std::vector<Lane> lanes;  // [0] is the default lane
  size_t next_lane = 0;

  uint64_t recipients = 0;  // queued and leased
  uint64_t leased = 0;
  uint32_t pending = 0;  // rows in batches that are not durable
  uint64_t delivered = 0;
  uint64_t transient = 0;
  uint64_t failed = 0;

  v1::QueueMode mode = v1::QUEUE_MODE_UNSPECIFIED;
  int64_t retry_until_us = 0;
  uint32_t retry_step = 0;
  int64_t stored_next_due_us = kNever;
  int64_t earliest_expiry_us = kNever;

  // Whom it is dispatched to: one worker at a time, so that workers never multiply its limits.
  WorkerSession* session = nullptr;
  uint64_t queue_ref = 0;
  std::string last_worker;
  bool probing = false;  // retry mode's one connection is under way
  bool in_ready_list = false;
  TimerId timer = 0;
  int64_t timer_us = 0;
  std::string blocked_limit;
  int64_t blocked_until_us = 0;

  std::shared_ptr<const policy::v1::QueueSettings> settings;
  uint64_t settings_version = 0;
  const policy::v1::ControlEntry* pause = nullptr;

  struct History {
    std::vector<common::v1::Reply> replies;  // newest first
    std::vector<int64_t> times_us;
  };
  std::unique_ptr<History> history;

  Lane& LaneOf(uint64_t lane, std::string_view job_id, uint32_t priority);
  Lane* FindLane(uint64_t lane);
  void Remember(const common::v1::Reply& reply, int64_t now_us);
};

// Thread-safety: the shard's executor.
class QueueTable {
 public:
  Queue* Find(std::string_view name);
  Queue* FindById(uint64_t id);
  // Makes it, with its row in `batch`, where there is none.
  Queue& Get(std::string_view domain, std::string_view vmta, std::string_view pool, Batch& batch);
  // The row as it should be stored now.
  void WriteRow(Queue& queue, Batch& batch);
  // Deletes the rows and forgets it.
  void Remove(Queue& queue, Batch& batch);
  // Reads all rows. DATA_LOSS names a row that cannot be read.
  absl::Status Load(const Store& store);

  const std::map<std::string, std::unique_ptr<Queue>, std::less<>>& all() const { return by_name_; }
  size_t size() const { return by_name_.size(); }

 private:
  std::map<std::string, std::unique_ptr<Queue>, std::less<>> by_name_;
  absl::flat_hash_map<uint64_t, Queue*> by_id_;
  uint64_t last_id_ = 0;
  uint64_t id_mark_ = 0;  // as stored: no id up to here is given again after a restart
};

}  // namespace sluice::queue
