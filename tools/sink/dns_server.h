// Serves the sink's DNS by UDP and TCP.
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/net/event_loop.h"
#include "services/base/net/listener.h"
#include "tools/sink/dns_answer.h"
#include "tools/sink/sink_state.h"

namespace sluice::sink {

// Thread-safety: none; used on its loop. Lifetime: loop and state outlive it.
class DnsServer {
 public:
  // UDP and TCP on the same port of `address`; port 0 takes one that both have free.
  static absl::StatusOr<std::unique_ptr<DnsServer>> Open(EventLoop& loop, SinkState& state,
                                                         const Endpoint& address,
                                                         const DnsOptions& options);
  ~DnsServer();

  const Endpoint& address() const { return address_; }

 private:
  class Udp;
  class TcpClient;

  DnsServer(EventLoop& loop, SinkState& state, const DnsOptions& options);
  absl::Status Bind(const Endpoint& address);

  EventLoop& loop_;
  SinkState& state_;
  const DnsOptions options_;
  Endpoint address_;
  std::unique_ptr<Udp> udp_;
  std::unique_ptr<Listener> listener_;
  std::list<std::unique_ptr<TcpClient>> clients_;
};

}  // namespace sluice::sink
