// A look through queued recipients, a bounded number a turn. Private to the shard.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "services/queue/core/shard.h"

namespace sluice::queue {

// Of one recipient in Message.shard_positions: queue id, lane, due.
inline constexpr size_t kPositionBytes = 24;

struct WalkRow {
  Queue* queue = nullptr;
  DeliveryKey key;
  common::v1::Delivery delivery;
  std::shared_ptr<const common::v1::Message> message;  // where asked for
  bool busy = false;
  bool lane_paused = false;
  bool damaged = false;  // it, or its message, cannot be read: only a filter by queue finds it
};

// Finds recipients by the most telling field of the filter: through the index and, for what came
// after its watermark, through the messages; else by a walk over the deliveries in the order of
// their queues. What was moved to a place before the walk's (an operator's retry or release, a
// reroute) is looked for behind it: such a recipient may be found twice, and is never missed.
struct Shard::Walk {
  v1::MessageFilter filter;
  uint32_t limit = 0;
  bool needs_message = false;
  // False: this row does not count.
  absl::AnyInvocable<bool(const WalkRow&)> on_row;
  absl::AnyInvocable<void(bool more, const std::string& position)> on_end;

  // Where it goes on. False where the text was not made by Position.
  bool SetPosition(std::string_view position);
  std::string Position() const;

  enum class Phase : char {
    kStart = 0,
    kDeliveries = 'D',
    kMoved = 'M',  // deliveries once more, for those that have moved since moved_since_us
    kIndex = 'I',
    kRecent = 'R'
  };
  Phase phase = Phase::kStart;
  std::string next;            // key in the phase's family: the first that was not dealt with
  uint32_t recipient = 0;      // first one of that message that was not dealt with
  uint64_t watermark = 0;      // the index is asked below, the messages from here on
  int64_t began_us = 0;        // this round over the deliveries
  uint64_t moves = 0;          // moves_back_ then
  int64_t moved_since_us = 0;  // kMoved: the round before it
  uint32_t matched = 0;
  int budget = 0;  // rows to look at in this turn
  uint64_t message_key = 0;
  std::shared_ptr<const common::v1::Message> message;
};

// Whether two addresses are the same: domains whatever their case.
bool SameAddress(std::string_view a, std::string_view b);
// How the index writes an address.
std::string IndexedAddress(std::string_view address);

}  // namespace sluice::queue
