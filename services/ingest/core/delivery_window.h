// The header field X-Schedule: when a message may leave, and until when.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::ingest {

// Microseconds since the epoch; 0: not said.
struct DeliveryWindow {
  int64_t begin_us = 0;
  int64_t end_us = 0;
};

// "2026-11-21 17:00:00 / 2026-11-21 17:30:00", or its first half alone. Times are this system's
// local ones, unless an offset (+01:00, Z) follows them. Nothing where that is not what stands
// there, where the end is not behind the beginning, and where there are several windows: `problem`
// says so, for the client. Thread-safety: any thread.
std::optional<DeliveryWindow> ParseDeliveryWindow(std::string_view text, std::string& problem);

}  // namespace sluice::ingest
