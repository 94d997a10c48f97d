// Channel bindings of TlsSession (RFC 5056).
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <array>
#include <string_view>

#include "services/base/net/tls_session.h"

namespace sluice {
namespace {

constexpr size_t kExporterBytes = 32;  // RFC 9266 2
constexpr std::string_view kExporterLabel = "EXPORTER-Channel-Binding";

}  // namespace

bool TlsSession::has_exporter_binding() const {
  if (state_ != State::kOpen && state_ != State::kPeerClosed) return false;
  return SSL_version(ssl_) >= TLS1_3_VERSION || SSL_get_extms_support(ssl_) == 1;
}

std::string TlsSession::ExporterBinding() const {
  if (!has_exporter_binding()) return "";
  std::array<unsigned char, kExporterBytes> out;
  // An empty context, which TLS 1.2 tells from none (RFC 5705 4): RFC 9266 wants the empty one.
  if (SSL_export_keying_material(ssl_, out.data(), out.size(), kExporterLabel.data(),
                                 kExporterLabel.size(), nullptr, 0, 1) != 1) {
    return "";
  }
  return {reinterpret_cast<char*>(out.data()), out.size()};
}

std::string TlsSession::ServerEndPointBinding() const {
  if ((state_ != State::kOpen && state_ != State::kPeerClosed) || facts_.resumed) return "";
  X509* const certificate =
      SSL_is_server(ssl_) == 1 ? SSL_get_certificate(ssl_) : SSL_get0_peer_certificate(ssl_);
  int digest_id = 0;
  // No digest goes with Ed25519's signatures, and so no binding (RFC 5929 4.1).
  if (certificate == nullptr ||
      X509_get_signature_info(certificate, &digest_id, nullptr, nullptr, nullptr) != 1 ||
      digest_id == NID_undef) {
    return "";
  }
  if (digest_id == NID_md5 || digest_id == NID_sha1) digest_id = NID_sha256;
  const EVP_MD* const digest = EVP_get_digestbynid(digest_id);
  std::array<unsigned char, EVP_MAX_MD_SIZE> out;
  unsigned size = 0;
  if (digest == nullptr || X509_digest(certificate, digest, out.data(), &size) != 1) return "";
  return {reinterpret_cast<char*>(out.data()), size};
}

}  // namespace sluice
