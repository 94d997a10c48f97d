#include "services/delivery/tls_policy/chain_verifier.h"

#include <openssl/err.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::delivery {
namespace {

constexpr int kAuthenticationLevel = 1;  // 80 bits: OpenSSL's own default for TLS

struct Free {
  void operator()(X509* x509) const { X509_free(x509); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(X509_STORE_CTX* context) const { X509_STORE_CTX_free(context); }
  void operator()(STACK_OF(X509) * stack) const { sk_X509_pop_free(stack, X509_free); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

struct Chain {
  Owned<X509> leaf;
  Owned<STACK_OF(X509)> rest{sk_X509_new_null()};
};

bool ReadChain(std::span<const std::string> ders, Chain* chain) {
  if (ders.empty() || ders.size() > kMaxChainCertificates) return false;
  for (const std::string& der : ders) {
    const auto* at = reinterpret_cast<const unsigned char*>(der.data());
    X509* x509 = d2i_X509(nullptr, &at, static_cast<long>(der.size()));
    if (x509 == nullptr) return false;
    if (chain->leaf == nullptr) {
      chain->leaf.reset(x509);
    } else if (sk_X509_push(chain->rest.get(), x509) <= 0) {
      X509_free(x509);
      return false;
    }
  }
  return true;
}

ChainResult Bad(std::string reason, std::string_view type) {
  return {false, std::move(reason), std::string(type)};
}

std::string_view ResultType(int error) {
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "certificate-expired";
    case X509_V_ERR_HOSTNAME_MISMATCH:
      return "certificate-host-mismatch";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED:
      return "certificate-not-trusted";
    default:
      return "validation-failure";
  }
}

}  // namespace

struct ChainVerifier::State {
  X509_STORE* store = X509_STORE_new();
  SSL_CTX* dane = SSL_CTX_new(TLS_client_method());
  ~State() {
    X509_STORE_free(store);
    SSL_CTX_free(dane);
  }
};

ChainVerifier::ChainVerifier(std::unique_ptr<State> state) : state_(std::move(state)) {}
ChainVerifier::~ChainVerifier() = default;

absl::StatusOr<std::unique_ptr<ChainVerifier>> ChainVerifier::Create(const std::string& ca_file) {
  auto state = std::make_unique<State>();
  const int loaded = ca_file.empty() ? X509_STORE_set_default_paths(state->store)
                                     : X509_STORE_load_file(state->store, ca_file.c_str());
  ERR_clear_error();
  if (loaded != 1) {
    return absl::FailedPreconditionError(absl::StrCat(
        "certificate authorities", ca_file.empty() ? "" : " in ", ca_file, " cannot be read"));
  }
  if (absl::Status status = EnableDane(state->dane); !status.ok()) return status;
  return std::unique_ptr<ChainVerifier>(new ChainVerifier(std::move(state)));
}

ChainResult ChainVerifier::VerifyPkix(std::span<const std::string> ders,
                                      std::span<const std::string> names) const {
  Chain chain;
  if (!ReadChain(ders, &chain))
    return Bad("no certificates, or none that can be read", "validation-failure");
  if (names.empty()) return Bad("no name to verify", "validation-failure");
  Owned<X509_STORE_CTX> context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), state_->store, chain.leaf.get(), chain.rest.get());
  X509_STORE_CTX_set_default(context.get(), "ssl_server");
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_auth_level(param, kAuthenticationLevel);
  X509_VERIFY_PARAM_set_hostflags(
      param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  for (const std::string& name : names) {
    if (X509_VERIFY_PARAM_add1_host(param, name.data(), name.size()) != 1) {
      return Bad("a name that cannot be verified", "validation-failure");
    }
  }
  const bool good = X509_verify_cert(context.get()) == 1;
  const int error = X509_STORE_CTX_get_error(context.get());
  ERR_clear_error();
  if (good && error == X509_V_OK) return {true, "", ""};
  return Bad(X509_verify_cert_error_string(error), ResultType(error));
}

ChainResult ChainVerifier::VerifyDane(std::span<const std::string> ders,
                                      const DaneTlsa& dane) const {
  Chain chain;
  if (!ReadChain(ders, &chain))
    return Bad("no certificates, or none that can be read", "validation-failure");
  // OpenSSL keeps the state of DANE in a connection; this one never sees a byte.
  Owned<SSL> ssl(SSL_new(state_->dane));
  if (absl::Status status = VerifyByDane(ssl.get(), dane); !status.ok()) {
    return Bad(std::string(status.message()), "tlsa-invalid");
  }
  Owned<X509_STORE_CTX> context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), state_->store, chain.leaf.get(), chain.rest.get());
  X509_STORE_CTX_set0_dane(context.get(), SSL_get0_dane(ssl.get()));
  X509_STORE_CTX_set_default(context.get(), "ssl_server");
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(context.get());
  X509_VERIFY_PARAM_set_auth_level(param, kAuthenticationLevel);
  X509_VERIFY_PARAM_set1(param, SSL_get0_param(ssl.get()));
  const bool good = X509_verify_cert(context.get()) == 1;
  const int error = X509_STORE_CTX_get_error(context.get());
  ERR_clear_error();
  if (good && error == X509_V_OK) return {true, "", ""};
  return Bad(X509_verify_cert_error_string(error), ResultType(error));
}

}  // namespace sluice::delivery
