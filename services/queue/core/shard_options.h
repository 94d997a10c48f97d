// Settings of one shard that are not mail policy.
#pragma once

#include <cstdint>
#include <string>

#include "services/base/log/log.h"
#include "services/queue/core/journal.h"

namespace sluice::queue {

struct ShardOptions {
  std::string name = "shard-0";
  Log* log = nullptr;  // outlives the shard; none: silence
  JournalOptions journal;
  // A worker's lease of a group, renewed by its stream.
  Duration lease = std::chrono::seconds(60);
  // After lost contact a group is leased again at lease + this: the longest wait for a final reply
  // (RFC 5321 4.5.3.2.6) and a margin.
  Duration lost_contact_grace = std::chrono::seconds(630);
  // Enqueues stop when batches of this size wait for the writer.
  size_t max_pending_bytes = size_t{32} << 20;
  // Enqueues stop when the database is larger; 0: no limit of its own.
  uint64_t spool_limit_bytes = 0;
  // Enqueues stop when the volume has less than this left.
  uint64_t reserve_bytes = uint64_t{256} << 20;
  // Messages kept in memory so that a worker gets them without a read.
  size_t fresh_window_bytes = size_t{48} << 20;
  // Events are kept this long, and at most this many bytes, where nobody reads them.
  Duration events_keep = std::chrono::hours(24);
  uint64_t events_keep_bytes = uint64_t{2} << 30;
  uint32_t lost_leases_alone = 2;  // from then on alone in its transaction
  uint32_t lost_leases_held = 5;   // from then on held for an operator
  // Of this boot of the machine: monotonic times of another one cannot be compared.
  std::string boot_id;
  // Unanswered announcements of one worker stream.
  size_t max_unanswered = 4096;
  // Announced queues of one virtual MTA that stand in line at one worker for a limit of all of
  // them: what a worker keeps of queues does not grow with the backlog.
  size_t max_in_line = 4096;
};

}  // namespace sluice::queue
