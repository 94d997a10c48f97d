// The header with which a proxy says who its client is (PROXY protocol, versions 1 and 2, as
// haproxy's document defines it).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::mail {

// Longest header that is taken: version 2 with extensions, which are skipped.
inline constexpr size_t kMaxProxyHeaderBytes = 4096;

struct ProxyHeader {
  enum class Outcome {
    kIncomplete,  // more bytes are wanted
    kMalformed,   // no header, or a wrong one: the connection is worth nothing
    kLocal,       // the proxy speaks for itself (a health check), or does not know its client
    kClient,
  };
  Outcome outcome = Outcome::kIncomplete;
  size_t size = 0;  // of the header; what follows is the client's
  // With kClient, as text: "192.0.2.1", "2001:db8::1".
  std::string client_ip;
  std::string server_ip;
  uint16_t client_port = 0;
  uint16_t server_port = 0;
};

// Reads the header at the front of `bytes`, all that has come so far. Never kIncomplete with
// kMaxProxyHeaderBytes of them.
ProxyHeader ReadProxyHeader(std::string_view bytes);

}  // namespace sluice::mail
