// Answers DNS queries for any name, as the rules say, so that MX lookups of tests and benchmarks
// are real ones. Without IO.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/net/ip_address.h"
#include "tools/sink/rules.h"

namespace sluice::sink {

struct DnsOptions {
  std::vector<IpAddress> addresses;  // behind every name whose rule gives none
  uint32_t ttl_s = 300;
};

// The answer (RFC 1035) to the query message `query`; empty where none is to be sent (scripted
// timeouts, and messages that are not queries). By UDP an answer that exceeds what the client takes
// (512 octets, or its EDNS size) is cut to its question with the TC bit.
std::string AnswerDns(const RuleTable& rules, const DnsOptions& options, std::string_view query,
                      bool udp);

}  // namespace sluice::sink
