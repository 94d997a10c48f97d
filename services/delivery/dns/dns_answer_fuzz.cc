// Hostile DNS answers: any bytes give an answer or a failure, within bounds.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "services/base/check.h"
#include "services/delivery/dns/dns_answer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using sluice::delivery::DnsType;
  const std::string_view message(reinterpret_cast<const char*>(data), size);
  for (DnsType type : {DnsType::kMx, DnsType::kA, DnsType::kAaaa, DnsType::kTxt, DnsType::kTlsa}) {
    const auto answer = sluice::delivery::ParseDnsAnswer(message, "example.com", type);
    SLUICE_CHECK(answer.records.size() <= sluice::delivery::kMaxDnsRecords);
    SLUICE_CHECK((answer.status == sluice::delivery::DnsStatus::kAnswer) ==
                 !answer.records.empty());
  }
  return 0;
}
