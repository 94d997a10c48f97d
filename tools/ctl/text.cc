#include "tools/ctl/text.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <ctime>
#include <limits>

#include "services/base/utf8.h"

namespace sluice::ctl {
namespace {

// Length of the character at the start of `text`, or 0 where it is none to show.
size_t Utf8Length(std::string_view text) {
  const size_t length = Utf8CharacterBytes(text);
  // C1 controls, which terminals obey, do not pass.
  if (length == 2 && text[0] == '\xC2' && static_cast<unsigned char>(text[1]) < 0xA0) return 0;
  return length;
}

}  // namespace

std::string PrintableText(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const unsigned char c = static_cast<unsigned char>(text[0]);
    if (length == 1) {
      if (c == '\n' || c == '\t') {
        out.push_back(' ');
      } else if (c != '\r') {
        out.push_back(c < 0x20 || c == 0x7F ? '?' : text[0]);
      }
    } else if (length == 0) {
      out.push_back('?');
    } else {
      out.append(text.substr(0, length));
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

std::string FormatBytes(uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string FormatSpan(int64_t span_us) {
  // Negated as unsigned: the most negative value has no positive twin.
  const uint64_t us =
      span_us < 0 ? uint64_t{0} - static_cast<uint64_t>(span_us) : static_cast<uint64_t>(span_us);
  const std::string sign = span_us < 0 ? "-" : "";
  const uint64_t seconds = us / 1'000'000;
  if (seconds == 0) return sign + std::to_string(us / 1'000) + " ms";
  if (seconds < 60) return sign + std::to_string(seconds) + " s";
  const auto pair = [&](uint64_t unit_s, const char* unit, uint64_t sub_s, const char* sub) {
    char text[48];
    std::snprintf(text, sizeof text, "%llu%s%02llu%s",
                  static_cast<unsigned long long>(seconds / unit_s), unit,
                  static_cast<unsigned long long>(seconds % unit_s / sub_s), sub);
    return sign + text;
  };
  if (seconds < 3600) return pair(60, "m", 1, "s");
  if (seconds < 86400) return pair(3600, "h", 60, "m");
  return pair(86400, "d", 3600, "h");
}

std::optional<int64_t> ParseSpanUs(std::string_view text) {
  struct Unit {
    std::string_view name;
    int64_t us;
  };
  static constexpr std::array<Unit, 6> kUnits = {{{"ms", 1'000},
                                                  {"d", 86'400'000'000},
                                                  {"h", 3'600'000'000},
                                                  {"m", 60'000'000},
                                                  {"s", 1'000'000},
                                                  {"", 1'000'000}}};
  int64_t total_us = 0;
  bool any = false;
  while (true) {
    while (!text.empty() && text[0] == ' ') text.remove_prefix(1);
    if (text.empty()) break;
    int64_t number = 0;
    size_t digits = 0;
    for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
      if (__builtin_mul_overflow(number, 10, &number) ||
          __builtin_add_overflow(number, text[digits] - '0', &number)) {
        return std::nullopt;
      }
    }
    if (digits == 0) return std::nullopt;
    text.remove_prefix(digits);
    const auto unit = std::find_if(kUnits.begin(), kUnits.end(),
                                   [&](const Unit& u) { return text.starts_with(u.name); });
    // A bare number stands alone: "1h30" is more likely a slip than thirty seconds.
    if (unit->name.empty() && (!text.empty() || any)) return std::nullopt;
    text.remove_prefix(unit->name.size());
    if (__builtin_mul_overflow(number, unit->us, &number) ||
        __builtin_add_overflow(total_us, number, &total_us)) {
      return std::nullopt;
    }
    any = true;
  }
  return any ? std::optional<int64_t>(total_us) : std::nullopt;
}

std::string FormatTime(int64_t unix_us) {
  if (unix_us == 0) return "-";
  const std::time_t seconds = unix_us / 1'000'000;
  std::tm parts{};
  char text[40];
  if (gmtime_r(&seconds, &parts) == nullptr ||
      std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts) == 0) {
    return std::to_string(unix_us);
  }
  return text;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

size_t DisplayWidth(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

}  // namespace sluice::ctl
