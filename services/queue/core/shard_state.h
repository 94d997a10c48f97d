// What a shard keeps in memory beside its queues. Private to the shard, but for messages and
// counters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "services/base/body.h"
#include "services/base/clock.h"
#include "services/queue/core/key_codec.h"
#include "services/queue/core/queue_table.h"
#include "sluice/common/v1/message.pb.h"

namespace sluice::queue {

struct WorkerSession;

// A message in memory, shared by the leases that use it.
struct StoredMessage {
  common::v1::Message envelope;
  Body body;                // empty where the body is stored in chunks
  uint32_t chunks = 0;      // of a large body
  uint32_t recipients = 0;  // as accepted; 0: not known
};

struct ShardStats {
  uint64_t accepted = 0;
  uint64_t accepted_recipients = 0;
  uint64_t delivered = 0;
  uint64_t transient = 0;
  uint64_t failed = 0;
  uint64_t expired = 0;
  uint64_t lost_leases = 0;
  uint64_t held = 0;
  uint64_t events_dropped = 0;
  uint64_t damaged = 0;  // rows that could not be read
};

// A group out with a worker.
struct GroupLease {
  uint64_t id = 0;
  Queue* queue = nullptr;
  uint64_t lane = 0;
  std::string worker;
  uint64_t incarnation = 0;
  WorkerSession* session = nullptr;  // null: contact lost
  MonotonicTime expires{};
  std::vector<DeliveryKey> keys;
  std::vector<common::v1::Delivery> deliveries;  // empty after a restart, until needed
  std::shared_ptr<const StoredMessage> message;  // likewise
  std::set<uint32_t> delete_asked;               // positions an operator wants gone
  std::set<uint32_t> settled;                    // ended otherwise: a late answer of another lease
  std::set<uint32_t> gone;  // of these: the row was not there any more after a restart
  std::string delete_author;
  std::string delete_reason;
  bool delete_bounce = false;  // the sender is told
  std::string unknown_fields;  // of its row: a later release wrote them
  bool sent = false;
  bool answered = false;  // its end is in a batch
};

// A group that was taken back because its worker was lost. A late `delivered` still counts.
struct LostLease {
  std::vector<DeliveryKey> keys;
  MonotonicTime forget{};
};

// Rows that one message adds, to be counted and dispatched once they are durable.
struct AddedRow {
  Queue* queue;
  DeliveryKey key;
  uint64_t lease_id;  // 0: not born leased
};

// Outstanding recipients of a message with several.
struct OutstandingCount {
  uint32_t left = 0;
  uint32_t pending = 0;
};

// A message in memory for the workers to come.
struct FreshMessage {
  std::shared_ptr<const StoredMessage> message;
  std::list<uint64_t>::iterator place;  // among those of its kind
  size_t bytes = 0;
};

// A worker's latest stream.
struct LastStream {
  uint64_t incarnation = 0;
  uint64_t stream = 0;
  MonotonicTime lost{};  // when it was last seen to end
};

// A row that could not be read.
struct DamagedRow {
  std::string what;
  std::string queue;
  int64_t seen_us = 0;
};

// Where the sweep is: the queue's name, and the last row of it that was looked at.
struct SweepPosition {
  std::string queue;
  std::string row;
  int64_t earliest_us = kNever;  // expiry, of the rows of this queue up to there
  int64_t began_us = 0;
};

// A closed stretch of the outbox.
struct EventSegment {
  uint64_t first = 0;
  uint64_t next = 0;
  int64_t last_time_us = 0;
  uint64_t bytes = 0;
  uint64_t events = 0;
};

}  // namespace sluice::queue
