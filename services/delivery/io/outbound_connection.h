// Outbound SMTP connections over sockets: services/mail's client session on an event loop.
#pragma once

#include <memory>

#include "services/base/net/event_loop.h"
#include "services/delivery/core/connection.h"

namespace sluice::delivery {

// Thread-safety: the loop's thread. Lifetime: the loop outlives it and its connections.
class OutboundConnections final : public ConnectionFactory {
 public:
  explicit OutboundConnections(EventLoop& loop) : loop_(loop) {}
  std::unique_ptr<Connection> Connect(const ConnectTarget& target,
                                      ConnectionHandler* handler) override;

 private:
  EventLoop& loop_;
};

}  // namespace sluice::delivery
