#include "services/base/net/tls_client_context.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/base/net/tls_certificate.h"
#include "services/base/net/tls_session_cache.h"

namespace sluice {

struct TlsClientContext::State {
  explicit State(size_t max_cached_sessions) : cache(max_cached_sessions) {}

  SslCtxPtr context;
  TlsSessionCache cache;
  bool roots_read = false;

  // TLS 1.3 sends tickets when it likes, after the handshake.
  static int OnNewSession(SSL* ssl, SSL_SESSION* session) {
    auto* state = static_cast<State*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    const TlsSession* of = TlsSession::Of(ssl);
    if (of == nullptr || of->session_key().empty()) return 0;
    state->cache.Put(of->session_key(), session);
    return 1;  // the reference is ours now
  }

  static int OnVerify(X509_STORE_CTX* store, void*) {
    const SSL* ssl =
        static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
    const TlsSession* of = TlsSession::Of(ssl);
    if (of != nullptr && of->verify() == TlsSession::Verify::kNone) return 1;
    return X509_verify_cert(store);
  }
};

TlsClientContext::TlsClientContext(const TlsClientOptions& options)
    : options_(options), state_(std::make_shared<State>(options.max_cached_sessions)) {}

TlsClientContext::~TlsClientContext() = default;

absl::StatusOr<std::unique_ptr<TlsClientContext>> TlsClientContext::Load(
    const TlsClientOptions& options) {
  std::unique_ptr<TlsClientContext> made(new TlsClientContext(options));
  made->state_->context.reset(SSL_CTX_new(TLS_client_method()));
  SSL_CTX* const context = made->state_->context.get();
  if (context == nullptr) return absl::InternalError(TakeOpensslError());
  ApplyDefaults(context);
  if (absl::Status status = ApplyProtocols(context, options.protocols); !status.ok()) return status;
  if (!options.certificate.file.empty()) {
    auto read = ReadKeyAndChain(options.certificate);
    if (!read.ok()) return read.status();
    if (absl::Status used = UseKeyAndChain(context, *read, options.certificate.file); !used.ok()) {
      return used;
    }
  }
  SSL_CTX_set_app_data(context, made->state_.get());
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
  SSL_CTX_sess_set_new_cb(context, &State::OnNewSession);
  SSL_CTX_set_cert_verify_callback(context, &State::OnVerify, nullptr);
  return made;
}

std::unique_ptr<TlsSession> TlsClientContext::NewSession(const TlsClientTarget& target) {
  SSL_CTX* const context = state_->context.get();
  const bool verified = target.verify != TlsSession::Verify::kNone;
  if (verified && !std::exchange(state_->roots_read, true)) {
    if (options_.ca_file.empty()) {
      SSL_CTX_set_default_verify_paths(context);
    } else {
      SSL_CTX_load_verify_file(context, options_.ca_file.c_str());
    }
    ERR_clear_error();
  }
  SSL* ssl = SSL_new(context);
  if (ssl == nullptr) return nullptr;
  SSL_set_connect_state(ssl);
  auto session = std::make_unique<TlsSession>(ssl, state_);
  session->set_verify(target.verify);
  if (!target.server_name.empty() && !IpAddress::Parse(target.server_name)) {
    SSL_set_tlsext_host_name(ssl, target.server_name.c_str());
  }
  if (target.verify == TlsSession::Verify::kRequired) {
    SSL_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
  }
  if (verified) {
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    for (const std::string& name : target.names) SSL_add1_host(ssl, name.c_str());
  }
  if (!target.session_key.empty()) {
    // What a session was verified for is part of what it may be resumed for.
    std::string key = absl::StrCat(target.session_key, "\n", static_cast<int>(target.verify), "\n",
                                   target.server_name);
    if (verified) {
      for (const std::string& name : target.names) absl::StrAppend(&key, "\n", name);
    }
    if (SSL_SESSION* known = state_->cache.Find(key)) SSL_set_session(ssl, known);
    session->set_session_key(std::move(key));
  }
  ERR_clear_error();
  return session;
}

void TlsClientContext::Forget(const TlsSession& session) {
  state_->cache.Erase(session.session_key());
}

size_t TlsClientContext::cached_sessions() const { return state_->cache.size(); }

}  // namespace sluice
