// SMTP by TCP: listens, spreads clients over the ingest loops, and moves bytes between sockets and
// sessions.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "services/base/net/event_loop.h"
#include "services/base/net/ip_address.h"
#include "services/base/net/listener.h"
#include "services/base/net/tls_server_context.h"
#include "services/ingest/core/connection_limits.h"
#include "services/ingest/core/ingest.h"

namespace sluice::ingest {

// One loop and the ingest that lives on it.
struct IngestLoop {
  EventLoop* loop = nullptr;
  Ingest* ingest = nullptr;
};

// Users by the SHA-256 fingerprint of their certificate.
using CertificateUsers = absl::flat_hash_map<std::string, std::string>;

// What a listener can do with TLS.
struct SmtpListenerTls {
  std::shared_ptr<TlsServerContext> context;      // null: nothing
  bool immediate = false;                         // the handshake comes first; else STARTTLS
  std::shared_ptr<const CertificateUsers> users;  // null: none is known by a certificate
};

struct SmtpListenerOptions {
  std::vector<Endpoint> addresses;  // port 0: any free one
  // Those of `addresses`, by index, whose clients come through a proxy and begin with its header
  // (PROXY protocol). Only networks with allow-proxy-protocol may connect to them.
  std::vector<size_t> proxied;
  std::vector<SmtpListenerTls> tls;  // for each address; those beyond its end have none
  int backlog = 1024;
  uint64_t max_connections = 20'000;
};

// Thread-safety: Open, StopAccepting and the destructor belong to the accepting loop's thread, or
// to whoever owns all loops while none of them runs; connections() from any thread. Lifetime: loops
// and ingests outlive it. It may be destroyed only while no loop runs, or after every connection
// has ended (drained).
class SmtpListener {
 public:
  // Listens on `accept_loop`, which may be one of `loops`. Connections go to the loops in turn.
  // Errors as Listener::Open.
  static absl::StatusOr<std::unique_ptr<SmtpListener>> Open(EventLoop& accept_loop,
                                                            const SmtpListenerOptions& options,
                                                            std::vector<IngestLoop> loops);
  ~SmtpListener();
  SmtpListener(const SmtpListener&) = delete;
  SmtpListener& operator=(const SmtpListener&) = delete;

  // With the ports that were really taken.
  const std::vector<Endpoint>& addresses() const { return addresses_; }

  // For connections to come; as SmtpListenerOptions::tls. On the accepting loop.
  void SetTls(std::vector<SmtpListenerTls> tls) { tls_ = std::move(tls); }

  // New clients are refused by the kernel from now on; the first step of a drain.
  void StopAccepting();

  uint64_t connections() const { return limits_.connections(); }

 private:
  struct Accepted {
    SmtpListenerTls tls;
    bool proxied = false;
  };
  class Connection;
  class Clients;

  SmtpListener(const SmtpListenerOptions& options, std::vector<IngestLoop> loops);
  void OnAccept(UniqueFd fd, size_t listener);

  ConnectionLimits limits_;
  std::vector<std::shared_ptr<Clients>> clients_;  // one for each loop
  size_t next_loop_ = 0;
  std::vector<SmtpListenerTls> tls_;
  const std::vector<size_t> proxied_;
  std::vector<std::unique_ptr<Listener>> listeners_;  // one an address; none once accepting stopped
  std::vector<Endpoint> addresses_;
};

}  // namespace sluice::ingest
