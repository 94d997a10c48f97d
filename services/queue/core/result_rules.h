// What holds for the results of groups and for those of whole queues.
#pragma once

#include <cstddef>
#include <cstdint>

#include "sluice/common/v1/message.pb.h"

namespace sluice::queue {

// Of a reply, that is kept.
inline constexpr size_t kMaxReplyTextBytes = 2048;

inline void CutReply(common::v1::Reply& reply) {
  if (reply.text().size() > kMaxReplyTextBytes) reply.mutable_text()->resize(kMaxReplyTextBytes);
}

// With a queue-interval retries are due together, at its multiples.
inline int64_t OnTheSweep(int64_t due_us, int64_t interval_us) {
  if (interval_us <= 0) return due_us;
  const int64_t past_us = due_us % interval_us;
  return past_us == 0 ? due_us : due_us - past_us + interval_us;
}

}  // namespace sluice::queue
