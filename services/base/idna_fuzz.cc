// Any name: what comes out has only bytes that a host name has, is lower case, and is a name of its
// own that stays as it is.
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/base/idna.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view name(reinterpret_cast<const char*>(data), size);
  const auto ascii = sluice::HostNameToAscii(name);
  if (!ascii) return 0;
  for (const char c : *ascii) {
    SLUICE_CHECK((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
                 c == '.');
  }
  SLUICE_CHECK(ascii->size() <= 255);
  SLUICE_CHECK(sluice::HostNameToAscii(*ascii) == ascii);
  return 0;
}
