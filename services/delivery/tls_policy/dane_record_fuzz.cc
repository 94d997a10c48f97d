// Hostile TLSA RDATA: what is called usable is taken by OpenSSL, and nothing else crashes it.
#include <openssl/ssl.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "services/base/check.h"
#include "services/delivery/tls_policy/dane_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice::delivery;  // NOLINT(build/namespaces): the subject of this file
  static SSL_CTX* const context = [] {
    SSL_CTX* made = SSL_CTX_new(TLS_client_method());
    SLUICE_CHECK(EnableDane(made).ok());
    return made;
  }();
  const auto record = ParseTlsa(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!record) return 0;
  SLUICE_CHECK(!record->ToString().empty());
  const bool usable = record->usable();
  SSL* ssl = SSL_new(context);
  const absl::Status status = VerifyByDane(ssl, {"mx.example", {"example"}, {*record}});
  SLUICE_CHECK(!usable || status.ok());
  SSL_free(ssl);
  return 0;
}
