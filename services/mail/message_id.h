// The cluster-wide name of a message: 16 bytes, of which the first 6 are big-endian milliseconds
// since the Unix epoch and the other 10 are unique. People see it as 26 Crockford base32
// characters, which sort as the bytes do.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "services/base/clock.h"

namespace sluice::mail {

inline constexpr size_t kMessageIdBytes = 16;
inline constexpr size_t kMessageIdChars = 26;

// `id` is kMessageIdBytes long. Upper case, no padding.
std::string FormatMessageId(std::string_view id);

// Reads what FormatMessageId wrote; small letters, and o, i, l for 0, 1, 1, as Crockford allows.
// Nothing where the text is not exactly one id.
std::optional<std::string> ParseMessageId(std::string_view text);

// Makes ids. Two generators with different `instance` values, or one at different times, never make
// the same id; within a generator ids grow, also when the wall clock steps back.
// Thread-safety: none; one for each thread.
class MessageIdGenerator {
 public:
  // `instance`: 48 random bits, drawn at each start.
  explicit MessageIdGenerator(uint64_t instance) : instance_(instance & 0xffffffffffff) {}

  std::string Next(WallTime now);

 private:
  uint64_t instance_;
  uint64_t last_ms_ = 0;
  uint32_t counter_ = 0;
};

}  // namespace sluice::mail
