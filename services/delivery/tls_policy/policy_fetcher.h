// Gets the MTA-STS policy of a domain over HTTPS. io/ implements it; tests and the simulation have
// their own.
#pragma once

#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"

namespace sluice::delivery {

// Thread-safety: one executor.
class PolicyFetcher {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<std::string>)>;
  virtual ~PolicyFetcher() = default;
  // https://mta-sts.DOMAIN/.well-known/mta-sts.txt, as RFC 8461 section 3.3 has it: certificate
  // verified, no redirects, 200 only; bounded in size and time. Calls `done` once, never within the
  // call; not once the fetcher is destroyed. UNAUTHENTICATED: the certificate or the handshake.
  virtual void Fetch(const std::string& domain, Done done) = 0;
};

}  // namespace sluice::delivery
