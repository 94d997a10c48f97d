// Text for people: safe to print, short to read; and what people type, read back.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::ctl {

// Text from the network may hold terminal escapes: every control character becomes '?', line ends
// become a space, and what is not UTF-8 is shown byte by byte as '?'.
std::string PrintableText(std::string_view text);

// "1.5 GiB"; below 1 KiB "512 B".
std::string FormatBytes(uint64_t bytes);

// A span of time at two units' precision: "45 ms", "12 s", "3m05s", "4h12m", "2d07h". Negative
// spans get a minus sign.
std::string FormatSpan(int64_t span_us);

// "90s", "4d12h", "1h 30m": numbers with units d, h, m, s, ms; a bare number is seconds. Nothing
// where the text is no span, or does not fit.
std::optional<int64_t> ParseSpanUs(std::string_view text);

// "2026-11-21 04:20:38" in UTC; "-" for zero.
std::string FormatTime(int64_t unix_us);

// True where `text` is well-formed UTF-8 (without C1 controls).
bool IsUtf8(std::string_view text);

// Number of characters a terminal shows, taking each code point as one.
size_t DisplayWidth(std::string_view text);

}  // namespace sluice::ctl
