#include "services/base/net/egress_connector.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/net/proxy_preamble.h"
#include "services/base/net/socks5_handshake.h"

namespace sluice {
namespace {

constexpr size_t kReadBytes = 512;

std::unique_ptr<EgressHandshake> MakeHandshake(const EgressProxy& proxy, const Endpoint& remote,
                                               int fd) {
  if (proxy.protocol == EgressProxy::Protocol::kSocks5) {
    return std::make_unique<Socks5Handshake>(remote, proxy.credentials);
  }
  Endpoint client = proxy.client;
  if (client.port == 0) {
    sockaddr_storage storage;
    socklen_t length = sizeof(storage);
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length) == 0) {
      const auto local = Endpoint::FromSockaddr(reinterpret_cast<const sockaddr*>(&storage));
      if (local) client.port = local->port;
    }
  }
  return std::make_unique<ProxyPreamble>(proxy.protocol == EgressProxy::Protocol::kProxyV1 ? 1 : 2,
                                         client, remote);
}

}  // namespace

EgressConnector::EgressConnector(EventLoop& loop, const EgressProxy& proxy,
                                 const ConnectOptions& options, OnDone on_done)
    : loop_(loop),
      proxy_(proxy),
      remote_(options.remote),
      on_done_(std::move(on_done)),
      deadline_(loop.wheel(), [this] { OnDeadline(); }) {
  ConnectOptions to_proxy = options;
  to_proxy.remote = proxy.server;
  deadline_.SetAfter(options.timeout);
  connector_.emplace(loop, to_proxy,
                     [this](absl::StatusOr<UniqueFd> fd) { OnConnected(std::move(fd)); });
}

EgressConnector::~EgressConnector() {
  if (watched_) loop_.Unwatch(fd_.get(), this);
}

absl::StatusCode EgressConnector::SilenceMeans() const {
  return handshake_ != nullptr && handshake_->asked() ? absl::StatusCode::kUnavailable
                                                      : absl::StatusCode::kFailedPrecondition;
}

void EgressConnector::OnDeadline() {
  const absl::StatusCode code = SilenceMeans();
  if (code == absl::StatusCode::kFailedPrecondition) {
    Finish(ProxyError(code, handshake_ == nullptr ? "the proxy could not be connected to in time"
                                                  : "the proxy does not answer"));
    return;
  }
  Finish(ProxyError(absl::StatusCode::kDeadlineExceeded,
                    "the proxy has not reached the remote in time"));
}

absl::Status EgressConnector::ProxyError(absl::StatusCode code, const std::string& what) const {
  return absl::Status(code, absl::StrCat("connect to ", remote_.ToString(), " through proxy ",
                                         proxy_.server.ToString(), ": ", what));
}

void EgressConnector::OnConnected(absl::StatusOr<UniqueFd> fd) {
  connector_.reset();
  if (!fd.ok()) {
    Finish(ProxyError(absl::StatusCode::kFailedPrecondition, std::string(fd.status().message())));
    return;
  }
  fd_ = *std::move(fd);
  handshake_ = MakeHandshake(proxy_, remote_, fd_.get());
  out_ = handshake_->Begin();
  if (!Write()) return;
  if (out_.empty() && handshake_->done()) {
    Finish(absl::OkStatus());
    return;
  }
  loop_.Watch(fd_.get(), out_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT, this);
  watched_ = true;
}

void EgressConnector::OnEvents(uint32_t) {
  if (!Write() || !Read() || !Write()) return;
  if (out_.empty() && handshake_->done()) {
    Finish(absl::OkStatus());
    return;
  }
  loop_.Rewatch(fd_.get(), out_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT, this);
}

bool EgressConnector::Write() {
  while (!out_.empty()) {
    const ssize_t sent = ::send(fd_.get(), out_.data(), out_.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      out_.erase(0, static_cast<size_t>(sent));
      continue;
    }
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    Finish(ProxyError(absl::StatusCode::kFailedPrecondition, std::strerror(errno)));
    return false;
  }
  return true;
}

bool EgressConnector::Read() {
  while (const size_t wanted = std::min(handshake_->wanted(), kReadBytes)) {
    char bytes[kReadBytes];
    const ssize_t got = ::recv(fd_.get(), bytes, wanted, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (got <= 0) {
      Finish(ProxyError(SilenceMeans(), got == 0
                                            ? "the proxy closed the connection"
                                            : absl::StrCat("the proxy: ", std::strerror(errno))));
      return false;
    }
    const auto used = handshake_->OnBytes(std::string_view(bytes, static_cast<size_t>(got)), &out_);
    if (!used.ok()) {
      const absl::StatusCode code = used.status().code() == absl::StatusCode::kUnavailable
                                        ? absl::StatusCode::kUnavailable
                                        : absl::StatusCode::kFailedPrecondition;
      Finish(ProxyError(code, std::string(used.status().message())));
      return false;
    }
  }
  return true;
}

void EgressConnector::Finish(absl::Status status) {
  deadline_.Clear();
  connector_.reset();
  if (std::exchange(watched_, false)) loop_.Unwatch(fd_.get(), this);
  OnDone on_done = std::move(on_done_);
  if (status.ok()) {
    on_done(std::move(fd_));
  } else {
    fd_.Reset();
    on_done(std::move(status));
  }
}

}  // namespace sluice
