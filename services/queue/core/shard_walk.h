// A look through queued recipients, a bounded number a turn. Private to the shard.
#pragma once

#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "services/queue/core/shard.h"

namespace sluice::queue {

struct WalkRow {
  Queue* queue = nullptr;
  DeliveryKey key;
  common::v1::Delivery delivery;
  std::shared_ptr<const common::v1::Message> message;  // where asked for
  bool busy = false;
  bool lane_paused = false;
};

struct Shard::Walk {
  v1::MessageFilter filter;
  uint32_t limit = 0;
  std::string position;  // key of the last row that was looked at; empty: the beginning
  bool needs_message = false;
  uint32_t matched = 0;
  // False: this row does not count.
  absl::AnyInvocable<bool(const WalkRow&)> on_row;
  absl::AnyInvocable<void(bool more, const std::string& position)> on_end;
};

}  // namespace sluice::queue
