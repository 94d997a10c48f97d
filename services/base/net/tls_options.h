// What a TLS context accepts: protocol versions and cipher suites, as directives name them.
#pragma once

#include <cstddef>
#include <string>

namespace sluice {

struct TlsProtocols {
  bool tls1_0 = false;
  bool tls1_1 = false;
  bool tls1_2 = true;
  bool tls1_3 = true;
  std::string ciphers;       // OpenSSL's cipher list for TLS 1.2 and before; empty: OpenSSL's own
  std::string ciphersuites;  // of TLS 1.3; empty: OpenSSL's own
  bool operator==(const TlsProtocols&) const = default;
};

// A PEM file with a private key, its certificate and the chain above it, in this order or another.
struct TlsCertificateFile {
  std::string file;
  std::string password;  // of the key; empty: the key must not be encrypted
  bool operator==(const TlsCertificateFile&) const = default;
};

// A peer's certificates, all together; a longer chain ends the handshake.
inline constexpr size_t kTlsMaxChainBytes = 64 * 1024;

}  // namespace sluice
