// How a TLS client speaks to servers: versions, ciphers, its own certificate, trusted roots, and
// the sessions that it may resume.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/net/tls_options.h"
#include "services/base/net/tls_session.h"

namespace sluice {

struct TlsClientOptions {
  TlsProtocols protocols;
  TlsCertificateFile certificate;  // shown to servers that ask; no file: none
  std::string ca_file;             // PEM; empty: the system's roots
  size_t max_cached_sessions = 10'000;
  bool operator==(const TlsClientOptions&) const = default;
};

// One connection to be.
struct TlsClientTarget {
  std::string server_name;  // SNI; empty, or an IP address: none is sent
  // Sessions are resumed among targets of the same key and verification. Empty: never.
  std::string session_key;
  // kRequired: the handshake fails unless the server's certificate leads to a trusted root and is
  // for one of `names`. kOptional: TlsFacts tells.
  TlsSession::Verify verify = TlsSession::Verify::kNone;
  std::vector<std::string> names;  // none: any name will do
};

// Thread-safety: the context and its sessions belong to one thread.
// Lifetime: sessions outlive it.
class TlsClientContext {
 public:
  // kNotFound, kInvalidArgument: the text names the file or setting. Roots are read at the first
  // session that is to be verified.
  static absl::StatusOr<std::unique_ptr<TlsClientContext>> Load(const TlsClientOptions& options);
  ~TlsClientContext();

  // Roots that cannot be read make kRequired handshakes fail.
  std::unique_ptr<TlsSession> NewSession(const TlsClientTarget& target);
  // A session that was resumed and failed is not to be tried again.
  void Forget(const TlsSession& session);
  size_t cached_sessions() const;

  const TlsClientOptions& options() const { return options_; }

 private:
  struct State;
  explicit TlsClientContext(const TlsClientOptions& options);

  const TlsClientOptions options_;
  std::shared_ptr<State> state_;
};

}  // namespace sluice
