// Makes one TCP connection, from a chosen source address, within a time limit.
#pragma once

#include <memory>
#include <optional>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "services/base/net/event_loop.h"
#include "services/base/net/ip_address.h"
#include "services/base/net/unique_fd.h"

namespace sluice {

struct ConnectOptions {
  Endpoint remote;
  // Bound with IP_BIND_ADDRESS_NO_PORT, so that sources do not use up each other's ports.
  std::optional<IpAddress> source;
  Duration timeout = std::chrono::seconds(30);
};

// One attempt. Thread-safety: none; used on its loop. Lifetime: the loop outlives it; destroying it
// cancels the attempt, and no callback follows.
class Connector final : private FdWatcher {
 public:
  // kFailedPrecondition: this machine lacks the source address; kInvalidArgument: source and remote
  // are of different families; kResourceExhausted: no free port or descriptor; kDeadlineExceeded;
  // kUnavailable: refused, unreachable, and the rest. The text is fit for a log and an operator.
  using OnDone = absl::AnyInvocable<void(absl::StatusOr<UniqueFd>)>;

  // `on_done` is called once, never within the constructor; it may destroy the connector.
  Connector(EventLoop& loop, const ConnectOptions& options, OnDone on_done);
  ~Connector();
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;

 private:
  absl::Status Begin(const ConnectOptions& options);
  void OnEvents(uint32_t events) override;
  void Finish(absl::Status status);

  EventLoop& loop_;
  const Endpoint remote_;
  OnDone on_done_;
  UniqueFd fd_;
  bool watched_ = false;
  absl::Status immediate_error_;
  Deadline deadline_;
};

}  // namespace sluice
