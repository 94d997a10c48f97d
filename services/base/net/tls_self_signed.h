// Makes certificates on the spot: for tests, and for tools that only want TLS to be spoken.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "services/base/net/tls_certificate.h"

namespace sluice {

struct NewCertificate {
  std::string common_name = "localhost";
  std::vector<std::string> names;  // subjectAltName, as given: a test may put a NUL into one
  bool rsa = false;                // 2048 bits; else ECDSA P-256
  bool authority = false;          // may sign others
  std::chrono::seconds valid_for = std::chrono::hours(24);  // negative: has run out
  size_t extra_bytes = 0;                                   // of a comment, to make it large
};

// Failure: aborts, as OpenSSL only fails for want of memory here.
// Signed by `issuer`, or by itself where that is null.
KeyAndChain MakeCertificate(const NewCertificate& wanted, const KeyAndChain* issuer = nullptr);

// PEM: key, certificate, and what is in chain.
std::string ToPem(const KeyAndChain& from);
std::string CertificatePem(X509* certificate);

}  // namespace sluice
