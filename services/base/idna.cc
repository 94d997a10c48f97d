#include "services/base/idna.h"

#include <idn2.h>

namespace sluice {
namespace {

constexpr size_t kMaxNameBytes = 1024;

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
  return ascii;
}

}  // namespace sluice
