// Reads a DNS response (RFC 1035 section 4) into the records that mail routing needs. The bytes
// come from the network and may be anything.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::delivery {

enum class DnsType : uint16_t {
  kA = 1,
  kCname = 5,
  kSoa = 6,
  kMx = 15,
  kTxt = 16,
  kAaaa = 28,
  kTlsa = 52
};

enum class DnsStatus : uint8_t {
  kAnswer,    // at least one record of the type that was asked for
  kNoData,    // the name exists, without that type
  kNxDomain,  // the name does not exist
  kFailed,    // SERVFAIL, REFUSED, timeout, malformed: nothing is known
};

struct DnsRecord {
  uint32_t ttl_s = 0;
  uint16_t preference = 0;  // MX
  std::string data;         // MX: host, lower case, "" for the root; A, AAAA: text; else raw RDATA
};

// Longer answers are cut: no sender needs more hosts or addresses than this for one name.
inline constexpr int kMaxDnsRecords = 128;
// Links followed from the name asked for to the name that has the records.
inline constexpr int kMaxCnameLinks = 16;

struct DnsAnswer {
  DnsStatus status = DnsStatus::kFailed;
  std::vector<DnsRecord> records;  // at most kMaxDnsRecords
  // How long this may be believed: the least TTL on the way, or the zone's negative TTL (RFC 2308).
  uint32_t ttl_s = 0;
  // AD bit; worth something from a validating resolver on loopback only.
  bool authenticated = false;
  // The name at the end of the aliases, lower case; kFailed has none.
  std::string canonical;
  std::string detail;  // for people, where status is kFailed
};

// Negative answers without an SOA are believed for this long.
inline constexpr uint32_t kDefaultNegativeTtlSeconds = 60;

// `message` is a whole response to a question for (`name`, `type`). Never fails otherwise than by
// kFailed with a detail. Pure.
DnsAnswer ParseDnsAnswer(std::string_view message, std::string_view name, DnsType type);

// What `type` is called: "MX".
std::string_view DnsTypeName(DnsType type);

}  // namespace sluice::delivery
