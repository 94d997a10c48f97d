// One TLS connection without IO: the peer's bytes in, plain text out, and the other way round. The
// engine is OpenSSL's; the socket is somebody else's (tcp_connection.h).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "services/base/net/tls_facts.h"

typedef struct ssl_st SSL;
typedef struct bio_st BIO;

namespace sluice {

// Thread-safety: none; contexts make sessions for any thread. Lifetime: independent of the context
// that made it. Memory: some 12 KiB while idle, two records more while bytes pass; what the peer
// makes us send is bounded by kMaxOutputBytes.
// Failure: after the first one (failure()) nothing is read or sent any more; output() may hold an
// alert for the peer.
class TlsSession {
 public:
  enum class State : uint8_t {
    kHandshake,
    kOpen,
    kPeerClosed,  // the peer sends nothing more, and may still read
    kFailed,
  };
  // Receive's room must be larger than its input by this: a record that had begun before.
  static constexpr size_t kCarryBytes = 18 * 1024;
  // A peer that does not read what it asks for (key updates) fails the session here.
  static constexpr size_t kMaxOutputBytes = 256 * 1024;

  // For contexts: takes `ssl`, which has its role, and what must live as long as it does.
  TlsSession(SSL* ssl, std::shared_ptr<const void> context);
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  // Begins the handshake: a client has something to send then.
  void Start();
  // Takes all of `bytes`, and puts the plain text that they complete into `plain`; returns its
  // size.
  size_t Receive(std::string_view bytes, std::span<char> plain);
  // Only in kOpen and kPeerClosed; dropped otherwise. A call makes records of its own.
  void Send(std::string_view plain);
  // Tells the peer that nothing more comes. Once, and not in the handshake.
  void Close();

  // For the peer; Sent takes from the front.
  std::string_view output() const { return std::string_view(output_).substr(sent_); }
  void Sent(size_t bytes);

  State state() const { return state_; }
  // kUnauthenticated: the peer's certificate is not what was required. kUnavailable: all else.
  const absl::Status& failure() const { return failure_; }
  // From kOpen on.
  const TlsFacts& facts() const { return facts_; }
  // The certificates that the peer showed, its own first, in DER; for checks of the owner's (DANE).
  // Also of a resumed session, on the client's side.
  std::vector<std::string> PeerChain() const;

  // What ties something above to this connection (RFC 5056), from kOpen on; empty where there is
  // none. tls-exporter (RFC 9266 wants TLS 1.3, or 1.2 with the extended master secret):
  bool has_exporter_binding() const;
  std::string ExporterBinding() const;
  // tls-server-end-point (RFC 5929 4): none of a resumed session, whose certificate is not shown.
  std::string ServerEndPointBinding() const;

  SSL* ssl() { return ssl_; }

  // For client contexts: how the peer's certificate counts, before Start.
  enum class Verify : uint8_t { kNone, kOptional, kRequired };
  void set_verify(Verify verify) { verify_ = verify; }
  Verify verify() const { return verify_; }
  void set_session_key(std::string key) { session_key_ = std::move(key); }
  const std::string& session_key() const { return session_key_; }
  // The session behind an SSL within a callback of OpenSSL's.
  static TlsSession* Of(const SSL* ssl);

 private:
  friend struct TlsSessionBio;

  void Handshake();
  void Opened();
  void Fail(int result);

  SSL* ssl_;
  const std::shared_ptr<const void> context_;
  State state_ = State::kHandshake;
  Verify verify_ = Verify::kNone;
  bool closed_ = false;
  bool receiving_ = false;
  std::string_view input_;
  std::string output_;
  size_t sent_ = 0;
  std::string session_key_;
  TlsFacts facts_;
  absl::Status failure_;
};

}  // namespace sluice
