// What the worker needs of one outbound SMTP connection: transactions in, results out. io/
// implements it over sockets, the simulation over a simulated remote site.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "services/base/body.h"
#include "services/base/clock.h"
#include "services/base/net/egress_proxy.h"
#include "services/base/net/tls_facts.h"
#include "sluice/policy/v1/settings.pb.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::delivery {

// Gives the chunks of a large body, in order, one at a time.
class ChunkSource {
 public:
  virtual ~ChunkSource() = default;
  // Calls `done` later, once; never after the source is destroyed. An error ends the transaction
  // without its final dot.
  virtual void Fetch(uint32_t chunk, absl::AnyInvocable<void(absl::StatusOr<Body>)> done) = 0;
};

// Whether the queue's mail ends on this machine: no host is looked up, and its "connections" are
// those of local/local_connections.h.
inline bool IsLocalEnd(const policy::v1::QueueSettings& settings) {
  const std::string& type = settings.type();
  return type == "file" || type == "pipe" || type == "discard" || type == "http-delivery";
}

// One group: a message for some recipients of one queue.
struct Transaction {
  // lease_id, message, deliveries. Shared, not copied.
  std::shared_ptr<const queue::v1::Lease> lease;
  Body body;                            // where there are no chunks
  std::unique_ptr<ChunkSource> chunks;  // lease->chunk_count() of them
  // Refusals that the connection may have had by its end (ClientTransaction::most_errors); 0: any.
  uint32_t most_errors = 0;
};

// How the host was found, for policies on the receiver's TLS.
struct RouteFacts {
  std::string domain;          // that the mail is for, lower case
  bool from_dns = true;        // the host is the domain's MX, and not one of the configuration
  bool authenticated = false;  // a validating resolver vouches for the MX records
  std::string canonical;       // what the domain is an alias of, or itself; MxResult::canonical
};

// What a TLS policy (DANE, MTA-STS) makes of a remote's certificates. Immutable, shared.
class TlsPeerCheck {
 public:
  virtual ~TlsPeerCheck() = default;
  // `chain`: DER, the remote's own certificate first. An error ends the connection before anything
  // was sent.
  virtual absl::Status Check(const TlsFacts& facts,
                             const std::vector<std::string>& chain) const = 0;
  // The handshake failed before there was anything to check. What follows may be in clear.
  virtual void OnHandshakeFailed(std::string_view) const {}
  // A TLS session is resumed only where this is what it was when the session began: what was
  // demanded of the certificates then. Empty: nothing, as without a policy.
  virtual std::string session_scope() const { return "checked"; }
  // For records where Check is content: "dane", "mta-sts".
  virtual std::string_view verdict() const = 0;
};

// What is asked of TLS beyond the settings.
struct TlsDemand {
  bool required = false;
  std::optional<bool> use_starttls;  // the source's own, before the settings'
  // From the first byte, without STARTTLS (RFC 8314); never in clear, then.
  bool implicit = false;
  // The remote's certificate must lead to a trusted root and be for one of these.
  std::vector<std::string> verify_names;
  std::string server_name;  // SNI; empty: the host
  std::shared_ptr<const TlsPeerCheck> check;
};

struct ConnectTarget {
  std::string address;  // IP, as text
  uint16_t port = 25;
  std::string host;       // the MX's or route's name, for records
  std::string source_ip;  // bound locally; empty: the system chooses
  std::string ehlo_name;
  // Timeouts, use of extensions. Stays as it was when the connection began.
  std::shared_ptr<const policy::v1::QueueSettings> settings;
  RouteFacts route;
  // The connection leaves through it; source_ip is then where it is connected to from.
  std::shared_ptr<const EgressProxy> proxy;
  TlsDemand tls;
};

// Why a connection ended, or never began.
struct ConnectionEnd {
  common::v1::Reply reply;      // the remote's last word, or ours (local)
  bool ready = false;           // EHLO had succeeded at some time
  bool source_missing = false;  // this machine lacks source_ip, or its proxy does not work
};

class ConnectionHandler {
 public:
  virtual ~ConnectionHandler() = default;
  // Asked before a TCP connect that does not begin within the call of Connect: a second one, in
  // clear text, or one that had to wait for something. Zero: now, and it is counted; else how long
  // to wait before asking again.
  virtual Duration MayConnect() { return Duration(0); }
  // EHLO has succeeded: the connection takes transactions.
  virtual void OnReady() = 0;
  // Of each transaction, exactly once, in order. Attempt is filled, except for worker and site.
  virtual void OnResult(queue::v1::GroupResult result) = 0;
  // Asked right before the final dot: false where the lease has run out; the connection then closes
  // without it.
  virtual bool MayFinish(uint64_t lease_id) = 0;
  // The last call; what had been sent and not answered was reported by OnResult before. What was
  // given to it when it had ended, within the last of these calls, was not.
  virtual void OnClosed(ConnectionEnd end) = 0;
  // Where the settings say log-commands: a command, or a reply as the remote sent it, for the log.
  // May come within a call of the connection's, and must not lead to another.
  virtual void OnTrace(bool /*reply*/, std::string_view /*text*/) {}
};

// Thread-safety: one executor; the handler is never called from within a call of this, but by
// OnTrace.
// Lifetime: destroying it closes at once, without callbacks; the handler may do so within any of
// its own.
class Connection {
 public:
  virtual ~Connection() = default;
  // After OnReady. A second transaction may be given while one is under way: its commands travel
  // with the first one's final dot where the peer allows pipelining. Not more than two.
  virtual void Send(Transaction transaction) = 0;
  // QUIT once nothing is under way, then OnClosed.
  virtual void Quit() = 0;
  // Closes the socket soon, whatever is under way: its results, then OnClosed, follow, not within
  // this call. Only of a connection that was ready. Where there is no remote site, as Quit.
  virtual void Abort() { Quit(); }
};

class ConnectionFactory {
 public:
  virtual ~ConnectionFactory() = default;
  // `handler` outlives the connection.
  virtual std::unique_ptr<Connection> Connect(const ConnectTarget& target,
                                              ConnectionHandler* handler) = 0;
};

}  // namespace sluice::delivery
