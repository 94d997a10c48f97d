// The part of TcpConnection that speaks TLS.
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "services/base/check.h"
#include "services/base/net/tcp_connection.h"
#include "services/base/net/tls_session.h"

namespace sluice {
namespace {

// Of the loop's read buffer: the rest takes the plain text, which is no longer than this and a
// record that had begun before.
constexpr size_t kReadBytes = 96 * 1024;
constexpr size_t kRecordBytes = 16 * 1024;
// While this much encrypted output waits, no more is made: bodies stay shared until then.
constexpr size_t kEncryptAheadBytes = 64 * 1024;

absl::Status SocketError(int error) { return absl::UnavailableError(std::strerror(error)); }

}  // namespace

void TcpConnection::StartTls(std::unique_ptr<TlsSession> tls, std::string_view begun) {
  SLUICE_CHECK(tls_ == nullptr && handler_ != nullptr);
  if (!fd_) return;
  for (size_t i = first_piece_; i < pieces_.size(); ++i) {
    const Piece& piece = pieces_[i];
    const std::string_view source =
        piece.body.empty() ? std::string_view(text_) : piece.body.view();
    clear_text_.append(source.substr(piece.offset, piece.size));
  }
  if (unsent_bytes_ > 0) ConsumeOutput(unsent_bytes_);
  tls_ = std::move(tls);
  tls_->Start();
  if (!begun.empty()) {
    // No handshake is done with one message, so there is no plain text yet; a failure is found by
    // the flush.
    std::vector<char> none(begun.size() + TlsSession::kCarryBytes);
    tls_->Receive(begun, none);
  }
  QueueFlush();
}

void TcpConnection::ReadTls() {
  const std::span<char> buffer = loop_.read_buffer();
  const std::span<char> encrypted = buffer.last(kReadBytes);
  const std::span<char> plain = buffer.first(buffer.size() - kReadBytes);
  ssize_t got;
  do {
    got = ::recv(fd_.get(), encrypted.data(), std::min(encrypted.size(), read_limit_), 0);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
    ReportClosed(SocketError(errno));
    return;
  }
  const bool handshake = tls_->state() == TlsSession::State::kHandshake;
  if (got == 0) {
    if (handshake) {
      ReportClosed(absl::UnavailableError("the peer closed the connection in the TLS handshake"));
    } else {
      EndOfInput();
    }
    return;
  }
  if (close_when_flushed_) return;
  const size_t size =
      tls_->Receive(std::string_view(encrypted.data(), static_cast<size_t>(got)), plain);
  const TlsSession::State state = tls_->state();
  // Also what waited for the handshake.
  if (!tls_->output().empty() || handshake) QueueFlush();
  DestructionGuard guard(&guard_);
  if (handshake && state != TlsSession::State::kHandshake && state != TlsSession::State::kFailed) {
    handler_->OnTlsReady();
    if (guard.owner_destroyed() || !fd_) return;
  }
  if (size > 0 && !close_when_flushed_) {
    handler_->OnBytes(std::string_view(plain.data(), size));
    if (guard.owner_destroyed() || !fd_) return;
  }
  if (state == TlsSession::State::kPeerClosed) {
    EndOfInput();
  } else if (state == TlsSession::State::kFailed) {
    bool full = false;
    if (SendEncrypted(full)) ReportClosed(tls_->failure());  // with the alert, if that fits
  }
}

void TcpConnection::EncryptOutput() {
  // Small pieces share a record. Nobody reads while output is flushed, so the buffer is free.
  const std::span<char> record = loop_.read_buffer().first(kRecordBytes);
  while (unsent_bytes_ > 0 && tls_->output().size() < kEncryptAheadBytes) {
    size_t filled = 0;
    bool sent_whole = false;
    for (size_t i = first_piece_; i < pieces_.size() && filled < record.size(); ++i) {
      const Piece& piece = pieces_[i];
      const char* base =
          (piece.body.empty() ? text_.data() : piece.body.view().data()) + piece.offset;
      if (filled == 0 && piece.size >= record.size()) {
        tls_->Send(std::string_view(base, record.size()));
        filled = record.size();
        sent_whole = true;
        break;
      }
      const size_t taken = std::min(piece.size, record.size() - filled);
      std::memcpy(record.data() + filled, base, taken);
      filled += taken;
    }
    if (!sent_whole) tls_->Send(std::string_view(record.data(), filled));
    ConsumeOutput(filled);
  }
}

bool TcpConnection::SendEncrypted(bool& full) {
  while (!full) {
    const std::string_view output = tls_->output();
    if (clear_text_.empty() && output.empty()) return true;
    iovec vectors[2] = {{clear_text_.data(), clear_text_.size()},
                        {const_cast<char*>(output.data()), output.size()}};
    msghdr message{};
    message.msg_iov = clear_text_.empty() ? vectors + 1 : vectors;
    message.msg_iovlen = clear_text_.empty() ? 1 : 2;
    const ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        ReportClosed(SocketError(errno));
        return false;
      }
      full = true;
      return true;
    }
    size_t taken = static_cast<size_t>(sent);
    full = taken < clear_text_.size() + output.size();
    const size_t clear = std::min(taken, clear_text_.size());
    if (clear == clear_text_.size()) {
      clear_text_ = std::string();
    } else {
      clear_text_.erase(0, clear);
    }
    tls_->Sent(taken - clear);
  }
  return true;
}

void TcpConnection::FlushTls() {
  const bool handshake = tls_->state() == TlsSession::State::kHandshake;
  const bool ends = close_when_flushed_ || shutdown_when_flushed_;
  // What waits for a handshake that nobody waits for is lost.
  if (handshake && close_when_flushed_ && unsent_bytes_ > 0) ConsumeOutput(unsent_bytes_);
  bool full = false;
  do {
    if (!handshake) {
      EncryptOutput();
      if (tls_->state() == TlsSession::State::kFailed) {
        if (SendEncrypted(full)) ReportClosed(tls_->failure());  // with the alert, if that fits
        return;
      }
      if (unsent_bytes_ == 0 && ends) tls_->Close();
    }
    if (!SendEncrypted(full)) return;
  } while (!handshake && unsent_bytes_ > 0 && !full);
  want_write_ = full;
  if (unsent_bytes() == 0 && !EndOutput()) return;
  UpdateWatch();
  TellWritable();
}

}  // namespace sluice
