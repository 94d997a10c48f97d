// Outbound SMTP connections over sockets: services/mail's client session on an event loop.
#pragma once

#include <cstdint>
#include <memory>

#include "services/base/net/event_loop.h"
#include "services/delivery/core/connection.h"

namespace sluice::delivery {

class OutboundTls;

// Grow only.
struct OutboundTlsStats {
  uint64_t handshakes = 0;  // that were done
  uint64_t resumed = 0;     // of these
  uint64_t failures = 0;
  uint64_t fallbacks = 0;  // connections made anew in clear after a failure
};

// Connections that ended by the remote's doing (mail::RemoteFault). Grow only.
struct OutboundFaultStats {
  uint64_t no_smtp = 0;
  uint64_t unasked = 0;
  uint64_t injections = 0;
  uint64_t timeouts = 0;
  uint64_t hang_ups = 0;  // gone, or half-closed, while an answer of it was due
};

// Thread-safety: the loop's thread. Lifetime: the loop outlives it and its connections.
class OutboundConnections final : public ConnectionFactory {
 public:
  explicit OutboundConnections(EventLoop& loop);
  ~OutboundConnections();
  std::unique_ptr<Connection> Connect(const ConnectTarget& target,
                                      ConnectionHandler* handler) override;
  const OutboundTlsStats& tls_stats() const;
  const OutboundFaultStats& fault_stats() const { return *faults_; }

 private:
  EventLoop& loop_;
  std::unique_ptr<OutboundTls> tls_;
  // Connections have it, too.
  const std::unique_ptr<OutboundFaultStats> faults_ = std::make_unique<OutboundFaultStats>();
};

}  // namespace sluice::delivery
