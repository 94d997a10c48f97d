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

// Thread-safety: the loop's thread. Lifetime: the loop outlives it and its connections.
class OutboundConnections final : public ConnectionFactory {
 public:
  explicit OutboundConnections(EventLoop& loop);
  ~OutboundConnections();
  std::unique_ptr<Connection> Connect(const ConnectTarget& target,
                                      ConnectionHandler* handler) override;
  const OutboundTlsStats& tls_stats() const;

 private:
  EventLoop& loop_;
  std::unique_ptr<OutboundTls> tls_;
};

}  // namespace sluice::delivery
