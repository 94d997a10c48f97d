// SMTP TLS reporting (RFC 8460): how connections to receivers' domains fared, counted for a day,
// and the report that a domain may ask for.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/base/clock.h"

namespace sluice::delivery {

// Where a domain wants its reports: the rua of its one TLSRPTv1 record among the TXT records of
// _smtp._tls.DOMAIN; "mailto:..." and "https:..." only, at most 8. Empty where it wants none
// (section 3).
std::vector<std::string> FindTlsReportUris(std::span<const std::string> records);

// The policy that a connection was held to (section 4.4, "policy").
struct TlsReportPolicy {
  enum class Type : uint8_t { kNone, kSts, kTlsa };
  Type type = Type::kNone;
  std::vector<std::string> text;      // the policy's lines, or TLSA records
  std::vector<std::string> mx_hosts;  // mx patterns of MTA-STS

  friend auto operator<=>(const TlsReportPolicy&, const TlsReportPolicy&) = default;
};

struct TlsFailure {
  std::string result_type;  // section 4.3: "certificate-expired", "starttls-not-supported", ...
  std::string sending_ip;
  std::string mx_host;
  std::string receiving_ip;
  std::string reason;  // "failure-reason-code", for people

  friend auto operator<=>(const TlsFailure&, const TlsFailure&) = default;
};

struct TlsReportOptions {
  size_t max_domains = 50'000;
  size_t max_policies = 8;   // of a domain in a day; what is over is counted with the last one
  size_t max_failures = 64;  // kinds, of a policy; what is over is only in the sums
};

// The session counters of one day. Thread-safety: none. Memory: bounded by the options; domains
// that find no room are not counted, and dropped() says how many sessions that were.
class TlsReportCounters {
 public:
  struct PolicyCount {
    TlsReportPolicy policy;
    uint64_t successes = 0;
    uint64_t failures = 0;
    std::map<TlsFailure, uint64_t> details;
  };
  using Day = absl::flat_hash_map<std::string, std::vector<PolicyCount>>;

  explicit TlsReportCounters(TlsReportOptions options = {}) : options_(options) {}

  void Success(std::string_view domain, const TlsReportPolicy& policy);
  void Failure(std::string_view domain, const TlsReportPolicy& policy, const TlsFailure& failure);
  // Gives what was counted, and begins anew.
  Day Take();
  const Day& day() const { return day_; }
  // What was counted before a restart; what is over the bounds is left out.
  void Restore(Day day);
  size_t domains() const { return day_.size(); }
  uint64_t dropped() const { return dropped_; }

 private:
  PolicyCount* Find(std::string_view domain, const TlsReportPolicy& policy);

  const TlsReportOptions options_;
  Day day_;
  uint64_t dropped_ = 0;
};

struct TlsReportHead {
  std::string organization;
  std::string contact;    // an address
  std::string sender;     // who of the organization reports: its workers do so each for itself
  std::string report_id;  // "1459468800.worker-0.example.org@mx.example.net"
  WallTime begin{};
  WallTime end{};
};

// The report on one domain, as JSON (section 4.4). Text that is not UTF-8 is replaced.
std::string TlsReportJson(const TlsReportHead& head, std::string_view domain,
                          const std::vector<TlsReportCounters::PolicyCount>& policies);

// "2016-04-01T00:00:00Z".
std::string Rfc3339(WallTime time);

}  // namespace sluice::delivery
