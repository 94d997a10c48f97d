#include "services/mail/message_id.h"

#include <algorithm>

#include "services/base/check.h"

namespace sluice::mail {
namespace {

constexpr char kDigits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

int DigitValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  if (c == 'O') return 0;
  if (c == 'I' || c == 'L') return 1;
  for (int i = 10; i < 32; ++i) {
    if (kDigits[i] == c) return i;
  }
  return -1;
}

}  // namespace

std::string FormatMessageId(std::string_view id) {
  SLUICE_CHECK(id.size() == kMessageIdBytes);
  std::string text(kMessageIdChars, '0');
  // 26 digits hold 130 bits: the two spare bits are the highest ones.
  unsigned bits = 0;
  int bit_count = 2;
  size_t at = 0;
  for (char c : id) {
    bits = (bits << 8) | static_cast<unsigned char>(c);
    bit_count += 8;
    while (bit_count >= 5) {
      bit_count -= 5;
      text[at++] = kDigits[(bits >> bit_count) & 31];
    }
    bits &= (1u << bit_count) - 1;
  }
  return text;
}

std::optional<std::string> ParseMessageId(std::string_view text) {
  if (text.size() != kMessageIdChars) return std::nullopt;
  const int first = DigitValue(text[0]);
  if (first < 0 || first > 7) return std::nullopt;
  std::string id;
  id.reserve(kMessageIdBytes);
  unsigned bits = static_cast<unsigned>(first);
  int bit_count = 3;
  for (char c : text.substr(1)) {
    const int value = DigitValue(c);
    if (value < 0) return std::nullopt;
    bits = (bits << 5) | static_cast<unsigned>(value);
    bit_count += 5;
    if (bit_count >= 8) {
      bit_count -= 8;
      id.push_back(static_cast<char>(bits >> bit_count));
      bits &= (1u << bit_count) - 1;
    }
  }
  return id;
}

std::string MessageIdGenerator::Next(WallTime now) {
  const int64_t now_ms = std::max<int64_t>(ToUnixMicros(now) / 1000, 0);
  // The counter never repeats within one value of the milliseconds: when it wraps, time moves on.
  last_ms_ = std::max(last_ms_, static_cast<uint64_t>(now_ms));
  if (++counter_ == 0) ++last_ms_;
  std::string id(kMessageIdBytes, '\0');
  for (int i = 0; i < 6; ++i) id[i] = static_cast<char>(last_ms_ >> (40 - 8 * i));
  for (int i = 0; i < 4; ++i) id[6 + i] = static_cast<char>(counter_ >> (24 - 8 * i));
  for (int i = 0; i < 6; ++i) id[10 + i] = static_cast<char>(instance_ >> (40 - 8 * i));
  return id;
}

}  // namespace sluice::mail
