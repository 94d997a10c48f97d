// Certificates for tests: authorities and servers, made on the spot with ECDSA P-256 keys.
#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

namespace sluice::delivery::testing {

struct CertificateSpec {
  std::vector<std::string> names;  // DNS names of subjectAltName; may hold a NUL
  bool authority = false;
  int valid_from_s = -3600;  // from now
  int valid_to_s = 86400;
};

// Thread-safety: immutable.
class TestCertificate {
 public:
  // Self-signed, or signed by `issuer`.
  explicit TestCertificate(const CertificateSpec& spec, const TestCertificate* issuer = nullptr);

  X509* x509() const { return x509_.get(); }
  EVP_PKEY* key() const { return key_.get(); }
  std::string Pem() const;
  std::string KeyPem() const;
  // DER of the certificate, and of its public key.
  std::string Der() const;
  std::string KeyDer() const;

 private:
  std::shared_ptr<EVP_PKEY> key_;
  std::shared_ptr<X509> x509_;
};

// SHA-256, as bytes.
std::string Sha256(const std::string& bytes);

}  // namespace sluice::delivery::testing
