#include "services/base/net/connector.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

// <netinet/in.h> of glibc has it since 2.23; the kernel since 4.2.
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

namespace sluice {
namespace {

absl::Status ConnectError(const Endpoint& remote, int error) {
  std::string text = "connect to " + remote.ToString() + ": " + std::strerror(error);
  if (error == EADDRNOTAVAIL || error == EMFILE || error == ENFILE || error == ENOBUFS ||
      error == ENOMEM || error == EAGAIN) {
    return absl::ResourceExhaustedError(text);
  }
  if (error == ETIMEDOUT) return absl::DeadlineExceededError(text);
  return absl::UnavailableError(text);
}

}  // namespace

Connector::Connector(EventLoop& loop, const ConnectOptions& options, OnDone on_done)
    : loop_(loop),
      remote_(options.remote),
      on_done_(std::move(on_done)),
      deadline_(loop.wheel(), [this] {
        Finish(immediate_error_.ok() ? ConnectError(remote_, ETIMEDOUT) : immediate_error_);
      }) {
  immediate_error_ = Begin(options);
  if (immediate_error_.ok()) {
    loop_.Watch(fd_.get(), EPOLLOUT, this);
    watched_ = true;
    deadline_.SetAfter(options.timeout);
  } else {
    deadline_.SetAfter(Duration(0));
  }
}

Connector::~Connector() {
  if (watched_) loop_.Unwatch(fd_.get(), this);
}

absl::Status Connector::Begin(const ConnectOptions& options) {
  int family = options.remote.ip.is_v4() ? AF_INET : AF_INET6;
  fd_ = UniqueFd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd_) return ConnectError(remote_, errno);
  sockaddr_storage storage;
  if (options.source) {
    if (options.source->is_v4() != options.remote.ip.is_v4()) {
      return absl::InvalidArgumentError("source " + options.source->ToString() + " and remote " +
                                        options.remote.ip.ToString() + " differ in IP version");
    }
    int one = 1;
    ::setsockopt(fd_.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    socklen_t length = Endpoint{*options.source, 0}.ToSockaddr(&storage);
    if (::bind(fd_.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0) {
      return absl::FailedPreconditionError("source address " + options.source->ToString() + ": " +
                                           std::strerror(errno));
    }
  }
  socklen_t length = options.remote.ToSockaddr(&storage);
  if (::connect(fd_.get(), reinterpret_cast<sockaddr*>(&storage), length) != 0 &&
      errno != EINPROGRESS) {
    return ConnectError(remote_, errno);
  }
  return absl::OkStatus();
}

void Connector::OnEvents(uint32_t) {
  int error = 0;
  socklen_t length = sizeof(error);
  ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error == 0) {
    Finish(absl::OkStatus());
    return;
  }
  Finish(ConnectError(remote_, error));
}

void Connector::Finish(absl::Status status) {
  deadline_.Clear();
  if (watched_) {
    loop_.Unwatch(fd_.get(), this);
    watched_ = false;
  }
  OnDone on_done = std::move(on_done_);
  if (status.ok()) {
    on_done(std::move(fd_));
  } else {
    fd_.Reset();
    on_done(std::move(status));
  }
}

}  // namespace sluice
