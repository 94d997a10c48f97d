// A ConnectionFactory that asks for the receiver's TLS policy (DANE, MTA-STS) before it connects,
// holds the connection to the verdict, and counts how it went for TLS-RPT.
#pragma once

#include <memory>

#include "services/base/executor.h"
#include "services/delivery/core/connection.h"
#include "services/delivery/tls_policy/chain_verifier.h"
#include "services/delivery/tls_policy/tls_policy.h"
#include "services/delivery/tls_policy/tls_report.h"

namespace sluice::delivery {

struct PolicedStats {
  uint64_t checks = 0;
  uint64_t refused = 0;  // hosts that a policy did not allow
  uint64_t failed = 0;   // connections that failed their verdict, or would have in mode testing
  uint64_t passed = 0;
};

// Targets whose settings want neither DANE nor MTA-STS go straight to the inner factory.
// Thread-safety: one executor. Lifetime: all that it is given outlives it and its connections.
class PolicedConnections final : public ConnectionFactory {
 public:
  PolicedConnections(Executor& executor, ConnectionFactory& inner, TlsPolicy& policy,
                     const ChainVerifier& verifier, TlsReportCounters& reports)
      : executor_(executor),
        inner_(inner),
        policy_(policy),
        verifier_(verifier),
        reports_(reports) {}

  std::unique_ptr<Connection> Connect(const ConnectTarget& target,
                                      ConnectionHandler* handler) override;
  const PolicedStats& stats() const { return stats_; }

 private:
  class Policed;

  Executor& executor_;
  ConnectionFactory& inner_;
  TlsPolicy& policy_;
  const ChainVerifier& verifier_;
  TlsReportCounters& reports_;
  PolicedStats stats_;
};

}  // namespace sluice::delivery
