// Writes the header of HAProxy's PROXY protocol, versions 1 and 2: said once at the start of a
// connection to a proxy, it names the connection that is wanted.
#pragma once

#include <string>

#include "services/base/net/egress_handshake.h"
#include "services/base/net/ip_address.h"

namespace sluice {

// "PROXY TCP4 192.0.2.1 198.51.100.2 40000 25\r\n". Both ends are of one family, or it is
// "PROXY UNKNOWN\r\n".
std::string ProxyPreambleV1(const Endpoint& source, const Endpoint& destination);
// The binary form: PROXY command, TCP over IPv4 or IPv6; AF_UNSPEC where the families differ.
std::string ProxyPreambleV2(const Endpoint& source, const Endpoint& destination);

// A proxy that is told in this way answers nothing: the remote's bytes are the first that come.
// Thread-safety: none.
class ProxyPreamble final : public EgressHandshake {
 public:
  // `version`: 1 or 2.
  ProxyPreamble(int version, const Endpoint& source, const Endpoint& destination)
      : text_(version == 1 ? ProxyPreambleV1(source, destination)
                           : ProxyPreambleV2(source, destination)) {}
  std::string Begin() override { return text_; }
  absl::StatusOr<size_t> OnBytes(std::string_view, std::string*) override { return size_t{0}; }
  bool done() const override { return true; }
  bool asked() const override { return true; }
  size_t wanted() const override { return 0; }

 private:
  const std::string text_;
};

}  // namespace sluice
