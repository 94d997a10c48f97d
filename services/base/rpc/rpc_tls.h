// The files of TLS between services, and whether they can be used.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace sluice {

struct RpcTls {
  // PEM. All or none; a server that asks nobody for a certificate needs no authority.
  std::string cert_file, key_file, ca_file;
  unsigned reload_seconds = 10;  // how often the files are looked at for new ones
  bool enabled() const { return !cert_file.empty(); }
};

// INVALID_ARGUMENT with the file's name, where gRPC would take the files and then fail at each
// handshake without a word. The authority is looked at where it is given.
absl::Status CheckTlsFiles(const RpcTls& tls);

// Whether an address to serve or to call, "127.0.0.1:7100" or "unix:/run/sluice.sock", can be
// nowhere but on this machine. A name that only begins like a loopback address resolves to
// anything.
bool IsOnThisMachine(const std::string& address);

}  // namespace sluice
