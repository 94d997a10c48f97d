#include "tools/ctl/message_id_text.h"

#include <cstdint>

namespace sluice::ctl {
namespace {

constexpr size_t kBytes = 16;
constexpr size_t kChars = 26;
constexpr std::string_view kDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

using Uint128 = unsigned __int128;

// -1 where `c` is no digit.
int DigitValue(char c) {
  if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  if (c == 'I' || c == 'L') c = '1';
  if (c == 'O') c = '0';
  const size_t at = kDigits.find(c);
  return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

}  // namespace

std::string MessageIdText(std::string_view bytes) {
  if (bytes.size() != kBytes) {
    constexpr std::string_view kHex = "0123456789abcdef";
    std::string text;
    for (const char c : bytes) {
      text.push_back(kHex[static_cast<unsigned char>(c) >> 4]);
      text.push_back(kHex[static_cast<unsigned char>(c) & 15]);
    }
    return text;
  }
  Uint128 number = 0;
  for (const char c : bytes) number = number << 8 | static_cast<unsigned char>(c);
  std::string text(kChars, '0');
  for (size_t i = kChars; i-- > 0; number >>= 5)
    text[i] = kDigits[static_cast<size_t>(number & 31)];
  return text;
}

std::optional<std::string> ParseMessageId(std::string_view text) {
  // 26 digits hold 130 bits: the first may be at most 7.
  if (text.size() != kChars || DigitValue(text[0]) > 7) return std::nullopt;
  Uint128 number = 0;
  for (const char c : text) {
    const int digit = DigitValue(c);
    if (digit < 0) return std::nullopt;
    number = number << 5 | static_cast<unsigned>(digit);
  }
  std::string bytes(kBytes, '\0');
  for (size_t i = kBytes; i-- > 0; number >>= 8) bytes[i] = static_cast<char>(number & 0xFF);
  return bytes;
}

}  // namespace sluice::ctl
