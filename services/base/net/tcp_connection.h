// A non-blocking TCP connection on an event loop: bytes in by callback, bytes out by gathered
// writes that never copy message bodies.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "services/base/body.h"
#include "services/base/net/destruction_guard.h"
#include "services/base/net/event_loop.h"
#include "services/base/net/ip_address.h"
#include "services/base/net/unique_fd.h"

namespace sluice {

class TlsSession;

struct TcpConnectionOptions {
  // Above this much unsent output the connection is congested (see TcpConnection::congested).
  size_t output_high_bytes = 256 * 1024;
  // OnWritable comes when the unsent output has fallen to this.
  size_t output_low_bytes = 64 * 1024;
};

// Order of callbacks: any number of OnBytes and OnWritable, at most one OnPeerFinished after the
// last OnBytes, and OnClosed once as the very last one. None within a call of the owner's. After
// StartTls nothing comes before OnTlsReady but OnClosed.
// The connection may be destroyed within any of them.
class TcpHandler {
 public:
  // What one read gave. The view is good for the duration of the call.
  virtual void OnBytes(std::string_view bytes) = 0;
  // The connection was congested, and is no longer.
  virtual void OnWritable() {}
  // The handshake that StartTls began is done: see tls()->facts().
  virtual void OnTlsReady() {}
  // The peer sends nothing more, and may still read. False (the default) closes at once, true keeps
  // the connection for writing.
  virtual bool OnPeerFinished() { return false; }
  // The connection is gone: OK where the peer, or CloseAfterFlush, ended it in order; kUnavailable
  // with the system's words where it broke, TlsSession::failure() where TLS did. Not called after
  // Close.
  virtual void OnClosed(const absl::Status& status) = 0;

 protected:
  ~TcpHandler() = default;
};

// Written output leaves at the end of the loop's turn, all of it in one system call.
// Thread-safety: none; used on its loop. Lifetime: loop and handler outlive it; destroying it
// closes at once and drops what was not sent.
class TcpConnection final : private FdWatcher, private TurnEndHook {
 public:
  // Takes a connected socket, made by a Listener or a Connector (or socketpair), and makes it
  // non-blocking with TCP_NODELAY. Reading starts with Start.
  TcpConnection(EventLoop& loop, UniqueFd fd, const TcpConnectionOptions& options = {});
  ~TcpConnection();
  TcpConnection(const TcpConnection&) = delete;
  TcpConnection& operator=(const TcpConnection&) = delete;

  void Start(TcpHandler* handler);

  // Copies `text`. After a close or shutdown writes are dropped.
  void Write(std::string_view text);
  // Shares `body`, and sends `size` bytes of it from `offset`.
  void Write(Body body, size_t offset, size_t size);
  void Write(Body body) {
    size_t size = body.size();
    Write(std::move(body), 0, size);
  }

  // From now on all bytes pass through `tls`; what was written before leaves in clear. The peer's
  // bytes that came before this call are lost to it: they were handed over. To be called once,
  // after Start, and within OnBytes only where the owner drops the rest of those bytes. The owner
  // keeps the time of the handshake, and does not pause reading meanwhile; what it writes waits.
  // `begun`: of the peer's first message, where it was read together with other bytes.
  void StartTls(std::unique_ptr<TlsSession> tls, std::string_view begun = {});
  // Null before StartTls.
  const TlsSession* tls() const { return tls_.get(); }

  // The owner should write no more until OnWritable. Nothing is refused, so that a reply always
  // fits: the bound is what owners heed.
  bool congested() const { return congested_; }
  size_t unsent_bytes() const;

  // Back-pressure towards the peer. Bytes that were read already have been handed over.
  void PauseReading();
  void ResumeReading();
  // At most so many bytes a turn, at least 1: what one OnBytes may bring is what the owner may have
  // to keep. TLS brings up to kCarryBytes more.
  void LimitReads(size_t bytes) { read_limit_ = bytes; }

  // Sends FIN when all output has left; the peer may still write.
  void ShutdownWrite();
  // Closes when all output has left, then OnClosed(OK). Bytes that still come in are dropped.
  void CloseAfterFlush();
  // Closes now; no callback follows.
  void Close();

  bool is_open() const { return static_cast<bool>(fd_); }
  int fd() const { return fd_.get(); }
  EventLoop& loop() { return loop_; }
  // As they were when the connection was made; 0.0.0.0:0 where the socket is not an IP socket.
  const Endpoint& local() const { return local_; }
  const Endpoint& peer() const { return peer_; }

 private:
  // A piece of output: of `text_` where body is empty, else of body.
  struct Piece {
    Body body;
    size_t offset;
    size_t size;
  };

  void OnEvents(uint32_t events) override;
  void OnTurnEnd() override;
  void Read();
  // Tells the owner that the peer has finished.
  void EndOfInput();
  // Everything is with the kernel: ends what was to end then. False where the connection is gone.
  bool EndOutput();
  void TellWritable();
  // tcp_connection_tls.cc
  void ReadTls();
  void FlushTls();
  // Encrypts some of the pieces.
  void EncryptOutput();
  // Sends what the kernel takes of the clear text and the encrypted: false where it broke, and was
  // reported.
  bool SendEncrypted(bool& full);
  // Sends what the kernel takes; errors are reported by ReportClosed.
  void Flush();
  void ConsumeOutput(size_t bytes);
  void QueueFlush();
  void UpdateWatch();
  void StopWatchingInput();
  void ReportClosed(const absl::Status& status);
  void Release();

  EventLoop& loop_;
  UniqueFd fd_;
  const TcpConnectionOptions options_;
  Endpoint local_;
  Endpoint peer_;
  TcpHandler* handler_ = nullptr;

  std::string text_;  // copied output; emptied when all pieces have left, so that it is reused
  std::vector<Piece> pieces_;
  size_t first_piece_ = 0;
  size_t unsent_bytes_ = 0;

  uint32_t watched_ = 0;
  bool reading_ = false;
  size_t read_limit_ = SIZE_MAX;
  bool paused_ = false;
  bool peer_finished_ = false;
  bool want_write_ = false;  // the kernel's buffer was full
  bool congested_ = false;
  bool shutdown_when_flushed_ = false;
  bool close_when_flushed_ = false;
  bool write_ended_ = false;
  DestructionGuard* guard_ = nullptr;
  std::unique_ptr<TlsSession> tls_;
  std::string clear_text_;  // written before StartTls, and not sent
};

}  // namespace sluice
