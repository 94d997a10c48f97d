// What the sink does for which domain: the script that a test or a benchmark gives it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/base/clock.h"
#include "services/base/net/ip_address.h"

namespace sluice::sink {

// A point of an SMTP session: before the reply to that command (kText: in the middle of the
// message, kDot: when all of it has come).
enum class Stage : uint8_t { kConnect, kEhlo, kMail, kRcpt, kData, kText, kDot };

enum class DnsMode : uint8_t {
  kMx,        // MX hosts mx1.DOMAIN ..., which lead to the sink
  kNoMx,      // no MX, but an address
  kNullMx,    // RFC 7505
  kNxdomain,  // no such name
  kServfail,
  kTimeout,   // no answer at all
  kTruncate,  // as kMx, but by UDP only the advice to use TCP
};

// Thread-safety: a value.
struct Rule {
  double defer_share = 0;   // of recipients (or of messages, at kDot) that get a 4xx
  double reject_share = 0;  // that get a 5xx
  Stage fail_at = Stage::kRcpt;
  std::string defer_reply = "451 4.3.0 try again later";
  std::string reject_reply = "550 5.1.1 no such user";
  Duration delay{0};  // before the reply at `delay_at`
  Stage delay_at = Stage::kDot;
  std::optional<Stage> close_at;
  double close_share = 1;
  uint32_t connections_max = 0;  // at one time from one client IP; 0: no limit
  uint32_t rate_max = 0;         // recipients in a period; what exceeds it gets a 451
  Duration rate_period{std::chrono::seconds(1)};
  Duration greylist{0};  // a new (client IP, sender, recipient) gets a 451 for this long

  DnsMode dns = DnsMode::kMx;
  uint32_t mx_count = 1;
  std::vector<std::string> mx;  // explicit hosts, best first; instead of mx_count
  std::vector<IpAddress> addresses;
  std::string cname;
};

// "250ms", "2s", "5m", "100us", "1h".
std::optional<Duration> ParseDuration(std::string_view text);

// Thread-safety: none; const functions may run side by side.
class RuleTable {
 public:
  // The syntax, for --help.
  static std::string_view Help();

  // One line: "PATTERN key=value ...". PATTERN: a domain, "*.domain" (everything below it), "*"
  // (all the rest), or "@IP" (connections to that address of the sink). A later rule for the same
  // pattern replaces the earlier one. kInvalidArgument names the word that is wrong.
  absl::Status Add(std::string_view line);
  // Lines; empty ones and those that start with '#' do nothing. All or nothing.
  absl::Status AddAll(std::string_view lines);

  // `domain` in lower case. The exact rule, else that of the closest parent's "*.", else "*"'s,
  // else the default one. The reference is good until the next Add.
  const Rule& ForDomain(std::string_view domain) const;
  const Rule& ForAddress(const IpAddress& local) const;
  // Whether a rule names exactly this domain.
  bool HasExact(std::string_view domain) const;
  // Changes with every Add.
  uint64_t generation() const { return generation_; }

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };
  std::unordered_map<std::string, Rule, Hash, std::equal_to<>> rules_;
  uint64_t generation_ = 1;
};

}  // namespace sluice::sink
