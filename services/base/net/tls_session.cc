#include "services/base/net/tls_session.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "services/base/check.h"
#include "services/base/net/tls_certificate.h"

namespace sluice {

// The engine's end of the session: reads what Receive was given, appends to the output.
struct TlsSessionBio {
  static int Read(BIO* bio, char* into, int size) {
    TlsSession& session = *static_cast<TlsSession*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (session.input_.empty()) {
      BIO_set_retry_read(bio);
      return -1;
    }
    const size_t taken = std::min(session.input_.size(), static_cast<size_t>(size));
    std::memcpy(into, session.input_.data(), taken);
    session.input_.remove_prefix(taken);
    return static_cast<int>(taken);
  }

  static int Write(BIO* bio, const char* from, int size) {
    TlsSession& session = *static_cast<TlsSession*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (session.receiving_ &&
        session.output_.size() - session.sent_ >= TlsSession::kMaxOutputBytes) {
      BIO_set_retry_write(bio);
      return -1;
    }
    session.output_.append(from, static_cast<size_t>(size));
    return size;
  }

  static long Control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

  static BIO_METHOD* Method() {
    static BIO_METHOD* const method = [] {
      BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sluice");
      BIO_meth_set_read(made, Read);
      BIO_meth_set_write(made, Write);
      BIO_meth_set_ctrl(made, Control);
      return made;
    }();
    return method;
  }

  static int Index() {
    static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
    return index;
  }
};

namespace {

constexpr size_t kKeptOutputBytes = 1024;
constexpr size_t kRecordBytes = 16 * 1024;

}  // namespace

TlsSession* TlsSession::Of(const SSL* ssl) {
  return static_cast<TlsSession*>(SSL_get_ex_data(ssl, TlsSessionBio::Index()));
}

TlsSession::TlsSession(SSL* ssl, std::shared_ptr<const void> context)
    : ssl_(ssl), context_(std::move(context)) {
  BIO* bio = BIO_new(TlsSessionBio::Method());
  SLUICE_CHECK(bio != nullptr);
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_, bio, bio);
  SSL_set_ex_data(ssl_, TlsSessionBio::Index(), this);
}

TlsSession::~TlsSession() {
  // A session whose connection ended without close_notify, as mail servers do, may still be
  // resumed; OpenSSL would spoil it.
  if (state_ == State::kOpen || state_ == State::kPeerClosed) {
    SSL_set_shutdown(ssl_, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  }
  SSL_free(ssl_);
}

void TlsSession::Start() {
  ERR_clear_error();
  Handshake();
}

void TlsSession::Handshake() {
  const int result = SSL_do_handshake(ssl_);
  if (result == 1) {
    Opened();
    return;
  }
  Fail(result);
}

void TlsSession::Fail(int result) {
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ:
      return;
    case SSL_ERROR_ZERO_RETURN:
      state_ = State::kPeerClosed;
      return;
    case SSL_ERROR_WANT_WRITE:
      failure_ = absl::UnavailableError("TLS: the peer does not read");
      break;
    default: {
      const unsigned long error = ERR_peek_last_error();
      const char* reason = ERR_reason_error_string(error);
      const long verify = SSL_get_verify_result(ssl_);
      if (ERR_GET_REASON(error) == SSL_R_CERTIFICATE_VERIFY_FAILED && verify != X509_V_OK) {
        failure_ = absl::UnauthenticatedError(
            absl::StrCat("TLS: the peer's certificate: ", X509_verify_cert_error_string(verify)));
      } else {
        failure_ =
            absl::UnavailableError(absl::StrCat("TLS: ", reason == nullptr ? "failed" : reason));
      }
      break;
    }
  }
  state_ = State::kFailed;
  input_ = {};
  ERR_clear_error();
}

void TlsSession::Opened() {
  state_ = State::kOpen;
  facts_.version = SSL_get_version(ssl_);
  facts_.cipher = SSL_get_cipher_name(ssl_);
  facts_.resumed = SSL_session_reused(ssl_) == 1;
  if (const char* name = SSL_get_servername(ssl_, TLSEXT_NAMETYPE_host_name)) {
    facts_.server_name = name;
  }
  if (X509* peer = SSL_get0_peer_certificate(ssl_)) {
    facts_.peer_subject = CertificateSubject(peer);
    facts_.peer_fingerprint = CertificateFingerprint(peer);
    const long verify = SSL_get_verify_result(ssl_);
    facts_.verified = verify_ != Verify::kNone && verify == X509_V_OK;
    if (verify_ != Verify::kNone && verify != X509_V_OK) {
      facts_.problem = X509_verify_cert_error_string(verify);
    }
  }
}

size_t TlsSession::Receive(std::string_view bytes, std::span<char> plain) {
  if (state_ == State::kFailed || state_ == State::kPeerClosed) return 0;
  SLUICE_CHECK(plain.size() >= bytes.size() + kCarryBytes);
  ERR_clear_error();
  input_ = bytes;
  receiving_ = true;
  if (state_ == State::kHandshake) Handshake();
  size_t got = 0;
  while (state_ == State::kOpen) {
    size_t size = 0;
    const int result = SSL_read_ex(ssl_, plain.data() + got, plain.size() - got, &size);
    if (result == 1) {
      got += size;
      continue;
    }
    Fail(result);
    break;
  }
  receiving_ = false;
  input_ = {};
  return got;
}

void TlsSession::Send(std::string_view plain) {
  if ((state_ != State::kOpen && state_ != State::kPeerClosed) || closed_) return;
  ERR_clear_error();
  while (!plain.empty()) {
    size_t size = 0;
    const int result =
        SSL_write_ex(ssl_, plain.data(), std::min(plain.size(), kRecordBytes), &size);
    if (result != 1) {
      Fail(result);
      return;
    }
    plain.remove_prefix(size);
  }
}

void TlsSession::Close() {
  if (state_ == State::kHandshake || state_ == State::kFailed || std::exchange(closed_, true)) {
    return;
  }
  ERR_clear_error();
  SSL_shutdown(ssl_);
  ERR_clear_error();
}

void TlsSession::Sent(size_t bytes) {
  sent_ += bytes;
  SLUICE_CHECK(sent_ <= output_.size());
  if (sent_ < output_.size()) return;
  sent_ = 0;
  if (output_.capacity() > kKeptOutputBytes) {
    output_ = std::string();
  } else {
    output_.clear();
  }
}

std::vector<std::string> TlsSession::PeerChain() const {
  std::vector<std::string> chain;
  X509* peer = SSL_get0_peer_certificate(ssl_);
  if (peer == nullptr) return chain;
  // A server's view of the chain lacks the peer's own certificate, a client's begins with it.
  STACK_OF(X509)* given = SSL_get_peer_cert_chain(ssl_);
  const int count = given == nullptr ? 0 : sk_X509_num(given);
  if (count == 0 || X509_cmp(sk_X509_value(given, 0), peer) != 0) {
    chain.push_back(CertificateDer(peer));
  }
  for (int i = 0; i < count; ++i) chain.push_back(CertificateDer(sk_X509_value(given, i)));
  return chain;
}

}  // namespace sluice
