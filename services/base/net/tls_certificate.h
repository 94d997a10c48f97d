// Certificates and keys as OpenSSL has them: read from PEM files, described, and made for tests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/net/tls_options.h"

typedef struct x509_st X509;
typedef struct evp_pkey_st EVP_PKEY;
typedef struct ssl_ctx_st SSL_CTX;

namespace sluice {

struct X509Free {
  void operator()(X509* certificate) const;
};
struct PkeyFree {
  void operator()(EVP_PKEY* key) const;
};
struct SslCtxFree {
  void operator()(SSL_CTX* context) const;
};
using X509Ptr = std::unique_ptr<X509, X509Free>;
using PkeyPtr = std::unique_ptr<EVP_PKEY, PkeyFree>;
using SslCtxPtr = std::unique_ptr<SSL_CTX, SslCtxFree>;

struct KeyAndChain {
  PkeyPtr key;
  X509Ptr certificate;
  std::vector<X509Ptr> chain;  // above the certificate
  // Of the certificate, in lower case: those of subjectAltName, or else the common name. A name
  // with a NUL is none.
  std::vector<std::string> names;
  int key_type = 0;  // EVP_PKEY_EC, EVP_PKEY_RSA
};

// kNotFound where the file is not to be read, kInvalidArgument where its content is not a
// certificate with its key; the text names the file. The first certificate that fits the key is the
// certificate.
absl::StatusOr<KeyAndChain> ReadKeyAndChain(const TlsCertificateFile& from);

// Gives them to a context; kInvalidArgument names `file` where OpenSSL does not take them.
absl::Status UseKeyAndChain(SSL_CTX* context, const KeyAndChain& read, const std::string& file);

// The certificate of a PEM file without its key: the first one.
absl::StatusOr<X509Ptr> ReadCertificate(const std::string& file);

// The file as it is now: what changes when it is replaced or written. Of one that is not there,
// too.
std::string FileStamp(const std::string& file);

std::string CertificateSubject(X509* certificate);
std::string CertificateFingerprint(X509* certificate);  // SHA-256, lower-case hexadecimal
std::string CertificateDer(X509* certificate);

// What OpenSSL last had to say on this thread; takes it all.
std::string TakeOpensslError();

// Sets versions and ciphers of a context; kInvalidArgument names what OpenSSL does not take.
absl::Status ApplyProtocols(SSL_CTX* context, const TlsProtocols& protocols);
// What all contexts have in common: buffers let go while idle, bounds, no renegotiation.
void ApplyDefaults(SSL_CTX* context);

}  // namespace sluice
