#include "services/base/rpc/rpc_tls.h"

#include <openssl/ssl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/base/net/tls_certificate.h"

namespace sluice {

absl::Status CheckTlsFiles(const RpcTls& tls) {
  for (const std::string* file : {&tls.cert_file, &tls.key_file, &tls.ca_file}) {
    if (!file->empty() && access(file->c_str(), R_OK) != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot read ", *file, ": ", std::strerror(errno)));
    }
  }
  const SslCtxPtr context(SSL_CTX_new(TLS_method()));
  const auto wrong = [](const std::string& file, const char* what) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": ", what, " (", TakeOpensslError(), ")"));
  };
  if (SSL_CTX_use_certificate_chain_file(context.get(), tls.cert_file.c_str()) != 1) {
    return wrong(tls.cert_file, "no PEM certificate");
  }
  if (SSL_CTX_use_PrivateKey_file(context.get(), tls.key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    return wrong(tls.key_file, "no PEM key, or not that of the certificate");
  }
  if (!tls.ca_file.empty() && SSL_CTX_load_verify_file(context.get(), tls.ca_file.c_str()) != 1) {
    return wrong(tls.ca_file, "no PEM certificate of an authority");
  }
  return absl::OkStatus();
}

bool IsOnThisMachine(const std::string& address) {
  const std::optional<Endpoint> endpoint = Endpoint::Parse(address);
  if (endpoint) return endpoint->ip.IsLoopback();
  return address.starts_with("unix:") || address.starts_with("localhost:");
}

}  // namespace sluice
