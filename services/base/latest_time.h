// The last moment that a time given to us may name.
#pragma once

#include <cstdint>

namespace sluice {

// The end of the year 9999 in microseconds since the Unix epoch: RFC 3339 writes no later one, and
// what is added to times, at most centuries, does not run over behind it.
inline constexpr int64_t kLatestUnixUs = 253'402'300'799'999'999;

}  // namespace sluice
