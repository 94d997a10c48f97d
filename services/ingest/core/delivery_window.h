// The header field X-Schedule: when a message may leave.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::ingest {

// Microseconds since the epoch; 0: not said.
struct DeliveryWindow {
  int64_t begin_us = 0;
  int64_t end_us = 0;
};

inline constexpr size_t kMaxDeliveryWindows = 32;

// "2026-11-21 17:00:00 / 2026-11-21 17:30:00", or its first half alone; several, with commas
// between them, in order of time and none over another. Times are this system's local ones, unless
// an offset (+01:00, Z) follows them. Nothing where that is not what stands there: `problem` says
// so, for the client. Thread-safety: any thread.
std::vector<DeliveryWindow> ParseDeliveryWindows(std::string_view text, std::string& problem);

}  // namespace sluice::ingest
