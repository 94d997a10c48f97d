// Any TXT record: the URIs of it are few, and can be put in a header or a request.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/check.h"
#include "services/delivery/tls_policy/tls_report.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::vector<std::string> records = {std::string(reinterpret_cast<const char*>(data), size)};
  const auto uris = sluice::delivery::FindTlsReportUris(records);
  SLUICE_CHECK(uris.size() <= 8);
  for (const std::string& uri : uris) {
    SLUICE_CHECK(uri.starts_with("mailto:") || uri.starts_with("https://"));
    SLUICE_CHECK(uri.find_first_of(std::string("\r\n \0<>", 6)) == std::string::npos);
  }
  return 0;
}
