#include "services/base/net/tcp_connection.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "services/base/check.h"
#include "services/base/net/tls_session.h"

namespace sluice {
namespace {

constexpr size_t kPiecesPerWrite = 64;
// Sent text is cut off the front when it has grown to this (only on a stream that never drains).
constexpr size_t kTextCompactBytes = 256 * 1024;
constexpr size_t kTextKeepBytes = 16 * 1024;

absl::Status SocketError(int error) { return absl::UnavailableError(std::strerror(error)); }

Endpoint NameOf(int fd, int (*get)(int, sockaddr*, socklen_t*)) {
  sockaddr_storage storage;
  socklen_t length = sizeof(storage);
  if (get(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return {};
  return Endpoint::FromSockaddr(reinterpret_cast<sockaddr*>(&storage)).value_or(Endpoint{});
}

}  // namespace

TcpConnection::TcpConnection(EventLoop& loop, UniqueFd fd, const TcpConnectionOptions& options)
    : loop_(loop),
      fd_(std::move(fd)),
      options_(options),
      local_(NameOf(fd_.get(), ::getsockname)),
      peer_(NameOf(fd_.get(), ::getpeername)) {
  SLUICE_CHECK(fd_);
  int flags = ::fcntl(fd_.get(), F_GETFL);
  if ((flags & O_NONBLOCK) == 0) ::fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK);
  int one = 1;
  ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

TcpConnection::~TcpConnection() {
  DestructionGuard::OwnerDestroyed(guard_);
  Release();
}

void TcpConnection::Start(TcpHandler* handler) {
  SLUICE_CHECK(handler_ == nullptr);
  handler_ = handler;
  reading_ = true;
  if (!fd_) return;
  watched_ = paused_ ? 0u : static_cast<uint32_t>(EPOLLIN);
  loop_.Watch(fd_.get(), watched_, this);
  if (unsent_bytes_ > 0) QueueFlush();
}

void TcpConnection::Release() {
  loop_.CancelTurnEnd(this);
  if (fd_ && handler_ != nullptr) loop_.Unwatch(fd_.get(), this);
  fd_.Reset();
  pieces_.clear();
  first_piece_ = 0;
  unsent_bytes_ = 0;
  text_.clear();
}

size_t TcpConnection::unsent_bytes() const {
  if (tls_ == nullptr) return unsent_bytes_;
  return unsent_bytes_ + clear_text_.size() + tls_->output().size();
}

void TcpConnection::Close() { Release(); }

void TcpConnection::ReportClosed(const absl::Status& status) {
  if (!fd_) return;
  Release();
  handler_->OnClosed(status);
}

void TcpConnection::Write(std::string_view text) {
  if (!fd_ || write_ended_ || text.empty()) return;
  size_t offset = text_.size();
  text_.append(text);
  if (pieces_.size() > first_piece_ && pieces_.back().body.empty()) {
    pieces_.back().size += text.size();
  } else {
    pieces_.push_back({Body(), offset, text.size()});
  }
  unsent_bytes_ += text.size();
  QueueFlush();
}

void TcpConnection::Write(Body body, size_t offset, size_t size) {
  if (!fd_ || write_ended_ || size == 0) return;
  SLUICE_CHECK(offset <= body.size() && size <= body.size() - offset);
  pieces_.push_back({std::move(body), offset, size});
  unsent_bytes_ += size;
  QueueFlush();
}

void TcpConnection::QueueFlush() {
  if (unsent_bytes() > options_.output_high_bytes) congested_ = true;
  if (!want_write_ && handler_ != nullptr) loop_.AtTurnEnd(this);
}

// The watch ends when the peer sends in spite of it, which most do not: that spares two system
// calls.
void TcpConnection::PauseReading() { paused_ = true; }

void TcpConnection::ResumeReading() {
  paused_ = false;
  UpdateWatch();
}

void TcpConnection::ShutdownWrite() {
  if (!fd_ || write_ended_) return;
  write_ended_ = true;
  shutdown_when_flushed_ = true;
  if (handler_ != nullptr) loop_.AtTurnEnd(this);
}

void TcpConnection::CloseAfterFlush() {
  if (!fd_) return;
  write_ended_ = true;
  close_when_flushed_ = true;
  if (handler_ != nullptr) loop_.AtTurnEnd(this);
}

void TcpConnection::UpdateWatch() {
  if (!fd_ || handler_ == nullptr) return;
  uint32_t wanted = 0;
  const uint32_t input = paused_ ? watched_ & EPOLLIN : static_cast<uint32_t>(EPOLLIN);
  if (reading_ && !peer_finished_) wanted |= input;
  if (want_write_) wanted |= EPOLLOUT;
  if (wanted == watched_) return;
  watched_ = wanted;
  loop_.Rewatch(fd_.get(), watched_, this);
}

void TcpConnection::StopWatchingInput() {
  watched_ &= ~static_cast<uint32_t>(EPOLLIN);
  loop_.Rewatch(fd_.get(), watched_, this);
}

void TcpConnection::OnEvents(uint32_t events) {
  DestructionGuard guard(&guard_);
  constexpr uint32_t kBroken = EPOLLHUP | EPOLLERR;
  if ((events & kBroken) != 0 && peer_finished_) {
    int error = 0;
    socklen_t length = sizeof(error);
    ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    ReportClosed(error == 0 ? absl::OkStatus() : SocketError(error));
    return;
  }
  // A broken connection is read to its end even while reading is paused: only that tells why, and
  // what is left is bounded by the kernel's buffer.
  if (paused_ && (events & kBroken) == 0) {
    if ((events & EPOLLIN) != 0) StopWatchingInput();
  } else if ((events & (EPOLLIN | kBroken)) != 0) {
    Read();
  }
  if (guard.owner_destroyed()) return;
  if (fd_ && (events & EPOLLOUT) != 0) Flush();
}

void TcpConnection::OnTurnEnd() { Flush(); }

void TcpConnection::Read() {
  if (tls_ != nullptr) {
    ReadTls();
    return;
  }
  std::span<char> buffer = loop_.read_buffer();
  ssize_t got;
  do {
    got = ::recv(fd_.get(), buffer.data(), std::min(buffer.size(), read_limit_), 0);
  } while (got < 0 && errno == EINTR);
  if (got > 0) {
    if (!close_when_flushed_) {
      handler_->OnBytes(std::string_view(buffer.data(), static_cast<size_t>(got)));
    }
    return;
  }
  if (got < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return;
    ReportClosed(SocketError(errno));
    return;
  }
  EndOfInput();
}

void TcpConnection::EndOfInput() {
  peer_finished_ = true;
  DestructionGuard guard(&guard_);
  bool keep = close_when_flushed_ || handler_->OnPeerFinished();
  if (guard.owner_destroyed() || !fd_) return;
  if (keep) {
    UpdateWatch();
  } else {
    ReportClosed(absl::OkStatus());
  }
}

void TcpConnection::Flush() {
  if (!fd_) return;
  if (tls_ != nullptr) {
    FlushTls();
    return;
  }
  bool full = false;
  while (unsent_bytes_ > 0 && !full) {
    iovec vectors[kPiecesPerWrite];
    size_t count = 0;
    size_t total = 0;
    for (size_t i = first_piece_; i < pieces_.size() && count < kPiecesPerWrite; ++i, ++count) {
      const Piece& piece = pieces_[i];
      const char* base = piece.body.empty() ? text_.data() : piece.body.view().data();
      vectors[count] = {const_cast<char*>(base) + piece.offset, piece.size};
      total += piece.size;
    }
    msghdr message{};
    message.msg_iov = vectors;
    message.msg_iovlen = count;
    ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) {
        ReportClosed(SocketError(errno));
        return;
      }
      full = true;
    } else {
      full = static_cast<size_t>(sent) < total;
      ConsumeOutput(static_cast<size_t>(sent));
    }
  }
  want_write_ = full;
  if (unsent_bytes_ == 0 && !EndOutput()) return;
  UpdateWatch();
  TellWritable();
}

bool TcpConnection::EndOutput() {
  if (close_when_flushed_) {
    ReportClosed(absl::OkStatus());
    return false;
  }
  if (shutdown_when_flushed_) {
    shutdown_when_flushed_ = false;
    ::shutdown(fd_.get(), SHUT_WR);
  }
  return true;
}

void TcpConnection::TellWritable() {
  if (congested_ && unsent_bytes() <= options_.output_low_bytes) {
    congested_ = false;
    handler_->OnWritable();
  }
}

void TcpConnection::ConsumeOutput(size_t bytes) {
  unsent_bytes_ -= bytes;
  if (unsent_bytes_ == 0) {
    pieces_.clear();
    first_piece_ = 0;
    if (text_.capacity() > kTextKeepBytes) {
      text_ = std::string();
    } else {
      text_.clear();
    }
    return;
  }
  size_t text_sent = 0;  // all copied text before this offset has left
  while (bytes > 0) {
    Piece& piece = pieces_[first_piece_];
    size_t taken = std::min(bytes, piece.size);
    bytes -= taken;
    piece.offset += taken;
    piece.size -= taken;
    if (piece.body.empty()) text_sent = piece.offset;
    if (piece.size > 0) break;
    piece.body = Body();
    ++first_piece_;
  }
  if (first_piece_ > kPiecesPerWrite) {
    pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<ptrdiff_t>(first_piece_));
    first_piece_ = 0;
  }
  if (text_sent > kTextCompactBytes) {
    text_.erase(0, text_sent);
    for (size_t i = first_piece_; i < pieces_.size(); ++i) {
      if (pieces_[i].body.empty()) pieces_[i].offset -= text_sent;
    }
  }
}

}  // namespace sluice
