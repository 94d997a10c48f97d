#include "services/base/net/listener.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace sluice {
namespace {

// Connections taken from one socket in a turn, so that a flood of them does not starve sessions.
constexpr int kAcceptsPerTurn = 64;
constexpr Duration kRestWithoutDescriptors = std::chrono::milliseconds(100);

absl::Status ListenError(const Endpoint& address, int error) {
  std::string where = "cannot listen on " + address.ToString() + ": ";
  switch (error) {
    case EADDRINUSE:
      return absl::AlreadyExistsError(where + "the port is in use by another process");
    case EADDRNOTAVAIL:
      return absl::FailedPreconditionError(where + "this machine has no such address");
    case EACCES:
      return absl::PermissionDeniedError(where + "ports below 1024 need CAP_NET_BIND_SERVICE");
    default:
      return absl::UnavailableError(where + std::strerror(error));
  }
}

}  // namespace

struct Listener::Socket final : FdWatcher {
  Socket(Listener* listener, UniqueFd fd, const Endpoint& address)
      : listener(listener), fd(std::move(fd)), address(address) {}
  void OnEvents(uint32_t) override { listener->AcceptFrom(*this); }

  Listener* listener;
  UniqueFd fd;
  Endpoint address;
};

Listener::Listener(EventLoop& loop, OnAccept on_accept)
    : loop_(loop), on_accept_(std::move(on_accept)), rest_(loop.wheel(), [this] {
        if (!paused_) Resume();
      }) {}

Listener::~Listener() {
  DestructionGuard::OwnerDestroyed(guard_);
  for (auto& socket : sockets_) loop_.Unwatch(socket->fd.get(), socket.get());
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Open(EventLoop& loop,
                                                         const ListenerOptions& options,
                                                         OnAccept on_accept) {
  std::unique_ptr<Listener> listener(new Listener(loop, std::move(on_accept)));
  for (const Endpoint& address : options.addresses) {
    int family = address.ip.is_v4() ? AF_INET : AF_INET6;
    UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return ListenError(address, errno);
    int one = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    // "[::]:25" beside "0.0.0.0:25" would clash otherwise.
    if (family == AF_INET6) ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    sockaddr_storage storage;
    socklen_t length = address.ToSockaddr(&storage);
    auto* name = reinterpret_cast<sockaddr*>(&storage);
    if (::bind(fd.get(), name, length) != 0 || ::listen(fd.get(), options.backlog) != 0) {
      return ListenError(address, errno);
    }
    length = sizeof(storage);
    if (::getsockname(fd.get(), name, &length) != 0) return ListenError(address, errno);
    Endpoint bound = Endpoint::FromSockaddr(name).value_or(address);
    listener->addresses_.push_back(bound);
    listener->sockets_.push_back(std::make_unique<Socket>(listener.get(), std::move(fd), bound));
    loop.Watch(listener->sockets_.back()->fd.get(), EPOLLIN, listener->sockets_.back().get());
  }
  return listener;
}

void Listener::Pause() {
  paused_ = true;
  for (auto& socket : sockets_) loop_.Rewatch(socket->fd.get(), 0, socket.get());
}

void Listener::Resume() {
  paused_ = false;
  for (auto& socket : sockets_) loop_.Rewatch(socket->fd.get(), EPOLLIN, socket.get());
}

void Listener::AcceptFrom(Socket& socket) {
  DestructionGuard guard(&guard_);
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    sockaddr_storage storage;
    socklen_t length = sizeof(storage);
    auto* name = reinterpret_cast<sockaddr*>(&storage);
    UniqueFd fd(::accept4(socket.fd.get(), name, &length, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        for (auto& each : sockets_) loop_.Rewatch(each->fd.get(), 0, each.get());
        rest_.SetAfter(kRestWithoutDescriptors);
      }
      // All else is EAGAIN, or a connection that broke while it waited.
      break;
    }
    auto peer = Endpoint::FromSockaddr(name);
    if (!peer) continue;
    Endpoint local = socket.address;
    if (local.ip.IsUnspecified()) {
      length = sizeof(storage);
      if (::getsockname(fd.get(), name, &length) == 0) {
        local = Endpoint::FromSockaddr(name).value_or(local);
      }
    }
    on_accept_(std::move(fd), local, *peer);
    if (guard.owner_destroyed()) return;
    if (paused_) break;
  }
}

}  // namespace sluice
