// Any header section: fields cover it without gaps or overlaps, names are printable, and neither
// unfolding nor reading an address breaks or lets a line end through.
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/mail/header_fields.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  sluice::mail::HeaderFieldReader reader(text);
  size_t at = 0;
  for (sluice::mail::HeaderField field; reader.Next(field);) {
    SLUICE_CHECK(field.begin == at && field.end > at && field.end <= size);
    at = field.end;
    for (char c : field.name) SLUICE_CHECK(c > ' ' && c <= '~');
    const std::string value = sluice::mail::UnfoldHeaderValue(field.value, 100);
    SLUICE_CHECK(value.size() <= 100 && value.find_first_of("\r\n") == std::string::npos);
    const std::string address = sluice::mail::FirstAddress(value);
    SLUICE_CHECK(address.empty() || address.find('@') != std::string::npos);
  }
  SLUICE_CHECK(reader.position() == at);
  SLUICE_CHECK(at == size || text.substr(at, 2) == "\r\n");
  return 0;
}
