// Any bytes: a header that is found does not depend on what follows it, is not longer than allowed,
// and what it names are addresses.
#include <arpa/inet.h>

#include <cstdint>
#include <string>

#include "services/base/check.h"
#include "services/mail/proxy_protocol.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using sluice::mail::ProxyHeader;
  using Outcome = ProxyHeader::Outcome;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const ProxyHeader header = sluice::mail::ReadProxyHeader(bytes);
  if (header.outcome == Outcome::kIncomplete) {
    SLUICE_CHECK(size < sluice::mail::kMaxProxyHeaderBytes);
    return 0;
  }
  if (header.outcome == Outcome::kMalformed) return 0;
  SLUICE_CHECK(header.size <= size && header.size <= sluice::mail::kMaxProxyHeaderBytes);
  SLUICE_CHECK(sluice::mail::ReadProxyHeader(bytes.substr(0, header.size)).outcome ==
               header.outcome);
  SLUICE_CHECK(sluice::mail::ReadProxyHeader(bytes.substr(0, header.size - 1)).outcome ==
               Outcome::kIncomplete);
  if (header.outcome != Outcome::kClient) return 0;
  unsigned char address[16];
  SLUICE_CHECK(inet_pton(AF_INET, header.client_ip.c_str(), address) == 1 ||
               inet_pton(AF_INET6, header.client_ip.c_str(), address) == 1);
  return 0;
}
