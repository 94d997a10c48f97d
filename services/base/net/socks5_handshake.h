// The client's side of SOCKS5 (RFC 1928), with a user name and password where there are any
// (RFC 1929).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "services/base/net/egress_handshake.h"
#include "services/base/net/egress_proxy.h"

namespace sluice {

// Asks for a TCP connection to an address; names are never given to the proxy, because what may be
// connected to is decided here. Thread-safety: none. Memory: 512 bytes, whatever the proxy sends.
class Socks5Handshake final : public EgressHandshake {
 public:
  explicit Socks5Handshake(const Endpoint& remote,
                           std::optional<Socks5Credentials> credentials = std::nullopt)
      : remote_(remote), credentials_(std::move(credentials)) {}

  std::string Begin() override;
  absl::StatusOr<size_t> OnBytes(std::string_view bytes, std::string* out) override;
  bool done() const override { return state_ == State::kDone; }
  bool asked() const override { return state_ == State::kReply || done(); }
  size_t wanted() const override { return done() ? 0 : Wanted() - message_.size(); }

 private:
  enum class State : uint8_t { kMethod, kPassword, kReply, kDone, kFailed };

  // How many bytes the message that is awaited has, as far as it can be told.
  size_t Wanted() const;
  absl::Status OnMessage(std::string* out);
  std::string ConnectRequest() const;

  const Endpoint remote_;
  const std::optional<Socks5Credentials> credentials_;
  State state_ = State::kMethod;
  std::string message_;
};

}  // namespace sluice
