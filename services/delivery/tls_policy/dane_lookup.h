// Finds the TLSA records of a host that takes mail, with RFC 7672's rules of what may be believed:
// only answers that a validating resolver on loopback calls authentic.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "services/delivery/dns/dns_client.h"
#include "services/delivery/tls_policy/dane_record.h"

namespace sluice::delivery {

enum class DaneOutcome : uint8_t {
  kNone,       // no DANE: not signed, or no TLSA record
  kUsable,     // the host must be verified by `tlsa`
  kUnusable,   // authentic records, none that SMTP can use: TLS is a must, without verification
  kTemporary,  // nothing authentic is known (SERVFAIL, bogus, timeout): the host must not be used
};

struct DaneResult {
  DaneOutcome outcome = DaneOutcome::kNone;
  DaneTlsa tlsa;  // base_domain and records; kUsable only
  std::string detail;
};

// Thread-safety: one executor. Lifetime: the DNS client outlives it; callbacks of a destroyed
// DaneLookup are dropped. Caching is the resolver's on loopback.
class DaneLookup {
 public:
  using Done = absl::AnyInvocable<void(DaneResult)>;

  explicit DaneLookup(DnsClient& dns) : dns_(dns) {}

  // `host` has been found in an authentic way (an authentic MX record, or a route of the
  // configuration): RFC 7672 section 2.2.1 is the caller's. Calls `done` once, possibly before it
  // returns.
  void Lookup(std::string_view host, uint16_t port, Done done);

 private:
  struct Search;

  void OnAddress(const std::shared_ptr<Search>& search, DnsAnswer answer);
  void OnAlias(const std::shared_ptr<Search>& search, const DnsAnswer& answer);
  void AskNext(const std::shared_ptr<Search>& search);
  void OnTlsa(const std::shared_ptr<Search>& search, const std::string& base, DnsAnswer answer);

  DnsClient& dns_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::delivery
