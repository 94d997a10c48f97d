#include "services/base/idna.h"

#include <idn2.h>

#include <algorithm>

namespace sluice {
namespace {

constexpr size_t kMaxNameBytes = 1024;

// Labels of what stands before and behind the letters beyond ASCII are not looked at by the
// conversion, and it makes ">", "@" and a space of their full-width forms: no name that comes out
// may end an address, a command or a line.
bool IsHostNameByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
}

}  // namespace

std::optional<std::string> HostNameToAscii(std::string_view name) {
  if (name.size() > kMaxNameBytes || name.find('\0') != name.npos) return std::nullopt;
  const std::string text(name);
  uint8_t* converted = nullptr;
  if (idn2_lookup_u8(reinterpret_cast<const uint8_t*>(text.c_str()), &converted,
                     IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK) {
    return std::nullopt;
  }
  std::string ascii(reinterpret_cast<const char*>(converted));
  idn2_free(converted);
  if (!std::all_of(ascii.begin(), ascii.end(), IsHostNameByte)) return std::nullopt;
  return ascii;
}

}  // namespace sluice
