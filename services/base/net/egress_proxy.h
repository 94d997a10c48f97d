// A proxy that connections leave through, as a value.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "services/base/net/ip_address.h"

namespace sluice {

struct Socks5Credentials {
  std::string username;  // 1 to 255 bytes
  std::string password;  // 1 to 255 bytes
};

struct EgressProxy {
  enum class Protocol : uint8_t { kProxyV1, kProxyV2, kSocks5 };
  Protocol protocol = Protocol::kProxyV1;
  Endpoint server;
  // The address that the proxy shall connect from, as PROXY tells it; port 0: that of our own
  // socket.
  Endpoint client;
  std::optional<Socks5Credentials> credentials;
};

}  // namespace sluice
