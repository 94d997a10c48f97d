// What a TLS server shows and accepts: certificates chosen by the name that the client asks for
// (SNI), versions, ciphers, session tickets. Files that change are read anew.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/clock.h"
#include "services/base/net/tls_options.h"
#include "services/base/net/tls_session.h"
#include "services/base/net/tls_ticket_keys.h"

namespace sluice {

struct TlsServerOptions {
  // The first one serves clients that ask for no name, or for one that no certificate has. Two of
  // the same names with keys of different kinds serve those names together.
  std::vector<TlsCertificateFile> certificates;
  TlsProtocols protocols;
  // Asks clients for a certificate, and takes any: what it is worth is in TlsFacts (verified: it
  // leads to ca_file).
  bool ask_client_certificate = false;
  std::string ca_file;  // PEM; empty: no client certificate is verified
  bool operator==(const TlsServerOptions&) const = default;
};

// Thread-safety: all functions from any thread. Lifetime: `clock` outlives it and its sessions;
// sessions outlive it, and keep the certificates with which they began.
// Failure: where a changed file cannot be used, the old certificates stay.
class TlsServerContext {
 public:
  // kNotFound, kInvalidArgument: the text names the file or setting.
  static absl::StatusOr<std::unique_ptr<TlsServerContext>> Load(const TlsServerOptions& options,
                                                                const Clock& clock);
  ~TlsServerContext();

  std::unique_ptr<TlsSession> NewSession() const;

  // Looks at the files, and reads them where one has changed: true where certificates were
  // replaced. Tickets stay valid.
  absl::StatusOr<bool> ReloadIfChanged();

  const TlsServerOptions& options() const { return options_; }

 private:
  struct CertificateSet;
  TlsServerContext(const TlsServerOptions& options, const Clock& clock);
  absl::StatusOr<std::shared_ptr<const CertificateSet>> Read() const;
  std::vector<std::string> Stamps() const;

  const TlsServerOptions options_;
  const std::shared_ptr<TlsTicketKeys> ticket_keys_;
  mutable std::mutex mutex_;
  std::shared_ptr<const CertificateSet> set_;  // guarded by mutex_
  std::vector<std::string> stamps_;            // guarded by mutex_; of the files as they were read
};

}  // namespace sluice
