// The IP address in what gRPC calls a peer.
#pragma once

#include <string>
#include <string_view>

namespace sluice {

// "192.0.2.1" of "ipv4:192.0.2.1:4711", "2001:db8::1" of "ipv6:%5B2001:db8::1%5D:4711" or
// "ipv6:[2001:db8::1]:4711"; empty for all that is no IP address (Unix sockets, "inproc").
inline std::string PeerIp(std::string_view peer) {
  const size_t colon = peer.rfind(':');
  if (peer.starts_with("ipv4:") && colon > 5) return std::string(peer.substr(5, colon - 5));
  if (!peer.starts_with("ipv6:") || colon <= 5) return {};
  std::string_view host = peer.substr(5, colon - 5);
  for (const std::string_view open : {"%5B", "["}) {
    if (host.starts_with(open)) host.remove_prefix(open.size());
  }
  for (const std::string_view close : {"%5D", "]"}) {
    if (host.ends_with(close)) host.remove_suffix(close.size());
  }
  return std::string(host);
}

}  // namespace sluice
