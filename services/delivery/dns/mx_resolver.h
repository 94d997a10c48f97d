// Where the mail of a domain goes: the hosts to try, in order, with their addresses (RFC 5321
// section 5.1, null MX RFC 7505).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "services/base/clock.h"

namespace sluice::delivery {

enum class MxOutcome : uint8_t {
  kFound,         // at least one host has an address
  kTemporary,     // SERVFAIL, timeout, refused, malformed: try again later, never a bounce
  kNoSuchDomain,  // NXDOMAIN: 5.1.2
  kNullMx,        // the domain says that it takes no mail: 5.1.10
  kNoAddress,     // the domain exists, and nothing in it has an address: 5.4.4
};

struct MxHost {
  std::string name;  // lower case, no final dot
  uint16_t preference = 0;
  // "192.0.2.1" or "2001:db8::1", in the order to try. Empty where only this host's own lookup
  // failed.
  std::vector<std::string> addresses;
};

struct MxResult {
  MxOutcome outcome = MxOutcome::kTemporary;
  // By preference; hosts of equal preference are shuffled anew at each lookup that asks the
  // network.
  std::vector<MxHost> hosts;
  // For people: what was asked, and what came back.
  std::string detail;
  // Not used after this; negative results have one, too.
  MonotonicTime expires{};
  // Equal for domains whose sets of hosts are equal: "mx1.example.net,mx2.example.net", sorted.
  std::string site;
  // The addresses came from DNS (and not from a literal or a route, which are consent to private
  // addresses).
  bool from_dns = true;
  // A validating resolver on loopback vouches for the MX records, or for their absence. DANE may
  // then be looked up for the hosts (RFC 7672 section 2.2.1).
  bool authenticated = false;
  // The name at the end of the aliases that the domain is, or the domain itself; lower case, empty
  // where no MX was asked for. As sure as `authenticated` says (RFC 7672 section 3.2.2).
  std::string canonical;
};

// Thread-safety: one executor. Lifetime: outlives the lookups that it was asked for; callbacks of a
// destroyed resolver are dropped.
class MxResolver {
 public:
  using Done = absl::AnyInvocable<void(std::shared_ptr<const MxResult>)>;

  virtual ~MxResolver() = default;

  // `domain`: lower case, A-labels; an address literal ("[192.0.2.1]", "[IPv6:...]") gives that
  // address. Calls `done` exactly once, possibly before it returns where the answer is cached.
  virtual void Resolve(std::string_view domain, Done done) = 0;

  // The addresses of one host (smtp-route to a name): no MX is asked for. An IP address gives
  // itself, with from_dns false.
  virtual void ResolveHost(std::string_view host, Done done) = 0;
};

}  // namespace sluice::delivery
