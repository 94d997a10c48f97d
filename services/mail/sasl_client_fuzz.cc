// Any challenges of a server: each exchange ends, and SCRAM never succeeds for a server that does
// not know the password.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/mail/sasl_client.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  for (std::string_view name :
       {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}) {
    auto sasl = sluice::mail::MakeSaslClient(name, {"user", "not pencil"}, "rOprNGfwEbeRWgbNEkqO",
                                             {.tls_exporter = "what both ends see"});
    sasl->InitialResponse();
    std::string_view rest = input;
    for (int i = 0; i < 8; ++i) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      const auto response = sasl->OnChallenge(rest.substr(0, end));
      rest.remove_prefix(std::min(rest.size(), end + 1));
      if (!response.ok()) break;
      SLUICE_CHECK(!name.starts_with("SCRAM") || !sasl->OnSuccess().ok());
      SLUICE_CHECK(i < 2);
    }
  }
  return 0;
}
