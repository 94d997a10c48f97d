// What records and decisions need to know of a TLS connection, without the engine.
#pragma once

#include <string>

namespace sluice {

// What is known of a session when its handshake is done.
struct TlsFacts {
  std::string version;      // "TLSv1.3"
  std::string cipher;       // "TLS_AES_256_GCM_SHA384"
  std::string server_name;  // SNI; empty: none
  bool resumed = false;
  // The peer's certificate leads to a trusted root and, where names were asked for, is for one.
  bool verified = false;
  std::string problem;           // why it is not; empty where nobody asked
  std::string peer_subject;      // one line, RFC 2253; empty: the peer showed no certificate
  std::string peer_fingerprint;  // SHA-256 of its certificate in lower-case hexadecimal digits
};

}  // namespace sluice
