// Hostile DNS answers: any bytes give an answer or a failure, within bounds, and what is to be
// connected to is an address or a name that can stand in a log line.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/base/net/ip_address.h"
#include "services/delivery/dns/dns_answer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using sluice::delivery::DnsType;
  const std::string_view message(reinterpret_cast<const char*>(data), size);
  for (DnsType type : {DnsType::kMx, DnsType::kA, DnsType::kAaaa, DnsType::kTxt, DnsType::kTlsa}) {
    const auto answer = sluice::delivery::ParseDnsAnswer(message, "example.com", type);
    SLUICE_CHECK(answer.records.size() <= sluice::delivery::kMaxDnsRecords);
    SLUICE_CHECK((answer.status == sluice::delivery::DnsStatus::kAnswer) ==
                 !answer.records.empty());
    const bool failed = answer.status == sluice::delivery::DnsStatus::kFailed;
    SLUICE_CHECK(failed == !answer.detail.empty());
    for (const auto& record : answer.records) {
      SLUICE_CHECK(answer.ttl_s <= record.ttl_s && record.ttl_s <= 0x7fffffffU);
      if (type == DnsType::kA || type == DnsType::kAaaa) {
        SLUICE_CHECK(sluice::IpAddress::Parse(record.data).has_value());
      } else if (type == DnsType::kMx) {
        SLUICE_CHECK(record.data.size() <= 1024);
        SLUICE_CHECK(std::all_of(record.data.begin(), record.data.end(),
                                 [](char c) { return c >= ' ' && c <= '~'; }));
      }
    }
    // It says nothing of another name, unless an alias leads there.
    if (message.find('\x05') == message.npos && !failed) {
      SLUICE_CHECK(answer.canonical == "example.com");
    }
  }
  return 0;
}
