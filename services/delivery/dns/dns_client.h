// Asks the DNS. The resolver above it knows mail; this knows servers, timeouts and retries.
#pragma once

#include <string>

#include "absl/functional/any_invocable.h"
#include "services/delivery/dns/dns_answer.h"

namespace sluice::delivery {

// Thread-safety: one executor.
class DnsClient {
 public:
  using Done = absl::AnyInvocable<void(DnsAnswer)>;
  virtual ~DnsClient() = default;
  // Calls `done` exactly once, possibly before it returns. Not called once the client is destroyed.
  virtual void Query(const std::string& name, DnsType type, Done done) = 0;
};

}  // namespace sluice::delivery
