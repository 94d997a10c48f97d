// Accepts TCP connections on one or more addresses.
#pragma once

#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "services/base/net/destruction_guard.h"
#include "services/base/net/event_loop.h"
#include "services/base/net/ip_address.h"
#include "services/base/net/unique_fd.h"

namespace sluice {

struct ListenerOptions {
  std::vector<Endpoint> addresses;  // port 0: any free one
  int backlog = 1024;
};

// Thread-safety: none; used on its loop. Lifetime: the loop outlives it; destroying it stops
// listening. To spread connections over several loops, accept on one of them and hand the sockets
// out in turn with Post: that balances better than the kernel does.
// Failure: while the process has no free descriptor, accepting rests for 100 ms at a time and the
// connections wait in the kernel's backlog.
class Listener {
 public:
  // Gets a non-blocking socket, and the address at which it was accepted. May destroy the listener.
  using OnAccept =
      absl::AnyInvocable<void(UniqueFd fd, const Endpoint& local, const Endpoint& peer)>;

  // kAlreadyExists where a port is in use, kFailedPrecondition where an address is not this
  // machine's, kPermissionDenied for a privileged port; the text names the address.
  static absl::StatusOr<std::unique_ptr<Listener>> Open(EventLoop& loop,
                                                        const ListenerOptions& options,
                                                        OnAccept on_accept);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // In the order of the options, with the ports that were really taken.
  const std::vector<Endpoint>& addresses() const { return addresses_; }

  // New connections wait in the kernel's backlog until Resume.
  void Pause();
  void Resume();

 private:
  struct Socket;

  Listener(EventLoop& loop, OnAccept on_accept);
  void AcceptFrom(Socket& socket);

  EventLoop& loop_;
  OnAccept on_accept_;
  std::vector<Endpoint> addresses_;
  std::vector<std::unique_ptr<Socket>> sockets_;
  bool paused_ = false;
  DestructionGuard* guard_ = nullptr;
  Deadline rest_;
};

}  // namespace sluice
