// Makes one TCP connection through a proxy: SOCKS5, or the PROXY protocol, version 1 or 2. What it
// gives is as good as the socket of a Connector: not a byte of the remote's has been read.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "services/base/net/connector.h"
#include "services/base/net/egress_handshake.h"
#include "services/base/net/egress_proxy.h"

namespace sluice {

// One attempt. Thread-safety: none; used on its loop. Lifetime: the loop outlives it; destroying it
// cancels the attempt, and no callback follows.
class EgressConnector final : private FdWatcher {
 public:
  // As Connector's. kFailedPrecondition: the proxy cannot be reached, does not answer, or refuses
  // us whatever the remote: nothing is said against the remote. kUnavailable: the proxy could not
  // reach the remote, or ended the connection when it was asked to. kDeadlineExceeded: it had not
  // reached the remote in time.
  using OnDone = Connector::OnDone;

  // `options.source`: where we connect to the proxy from; `options.timeout`: of all of it.
  EgressConnector(EventLoop& loop, const EgressProxy& proxy, const ConnectOptions& options,
                  OnDone on_done);
  ~EgressConnector();
  EgressConnector(const EgressConnector&) = delete;
  EgressConnector& operator=(const EgressConnector&) = delete;

 private:
  void OnConnected(absl::StatusOr<UniqueFd> fd);
  void OnEvents(uint32_t events) override;
  // Sends what waits; false where that ended the attempt.
  bool Write();
  bool Read();
  void OnDeadline();
  // Of what a proxy does that says nothing: its own fault until it was asked for the remote.
  absl::StatusCode SilenceMeans() const;
  void Finish(absl::Status status);
  absl::Status ProxyError(absl::StatusCode code, const std::string& what) const;

  EventLoop& loop_;
  const EgressProxy proxy_;
  const Endpoint remote_;
  OnDone on_done_;
  Deadline deadline_;
  std::optional<Connector> connector_;
  std::unique_ptr<EgressHandshake> handshake_;
  UniqueFd fd_;
  bool watched_ = false;
  std::string out_;
};

}  // namespace sluice
