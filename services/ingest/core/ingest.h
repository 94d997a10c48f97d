// The ingest service on one executor: what its SMTP connections and injections share. A process
// with several loops has one for each; they share nothing but the shards.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/any_invocable.h"
#include "services/base/executor.h"
#include "services/base/net/tls_facts.h"
#include "services/config/policy_view.h"
#include "services/ingest/core/auth_failures.h"
#include "services/ingest/core/client_profile.h"
#include "services/ingest/core/envelope.h"
#include "services/ingest/core/shard_client.h"
#include "services/ingest/core/shard_set.h"
#include "services/ingest/core/slow_work.h"
#include "services/mail/message_id.h"
#include "services/mail/server_reply.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::ingest {

// One configured shard and the ways to it. Lifetime: the clients outlive the ingest.
struct ShardEndpoint {
  std::string name;
  EnqueueClient* enqueue = nullptr;
  UploadClient* upload = nullptr;
};

struct IngestOptions {
  // What policy does not say: host name, greeting, limits of a session.
  mail::SmtpServerOptions smtp;
  // Bodies that are being received or wait for their shard. New messages are refused above it; a
  // message that has begun is given up where it would take the sum above twice as much.
  uint64_t max_body_bytes = 128 * 1024 * 1024;
  // Ingests of this process: each has its share of memory-pool-max, which goes before
  // max_body_bytes.
  uint32_t loops = 1;
  // Message ids and the choice between shards depend on it, so no two ingests may share it. 0:
  // drawn from the system; simulations give their own.
  uint64_t random = 0;
  ShardClientOptions shard;
  Log* log = nullptr;  // the shard clients' too; outlives the ingest; none: silence
  // Shared by the loops of a process. nullptr: on the executor; a table of its own.
  SlowWork* slow_work = nullptr;
  AuthFailures* auth_failures = nullptr;
  // Share of the memory in use, in percent, which somebody keeps up to date: what
  // max-memory-usage-percent is about. nullptr: unknown.
  const std::atomic<uint32_t>* memory_percent = nullptr;
};

// Grow only, but for the one. Written on the executor, read from anywhere.
struct IngestCounters {
  std::atomic<uint64_t> connections{0};
  std::atomic<uint64_t> connections_open{0};     // the only one that falls, too
  std::atomic<uint64_t> connections_refused{0};  // by a limit or by policy, before a greeting
  std::atomic<uint64_t> messages_accepted{0};
  std::atomic<uint64_t> recipients_accepted{0};
  std::atomic<uint64_t> bytes_accepted{0};
  std::atomic<uint64_t> messages_deferred{0};  // 4xx, RESOURCE_EXHAUSTED, UNAVAILABLE
  std::atomic<uint64_t> messages_refused{0};   // 5xx, INVALID_ARGUMENT, PERMISSION_DENIED
  std::atomic<uint64_t> outcomes_unknown{0};   // of the deferred ones
  std::atomic<uint64_t> recipients_refused{0};
  std::atomic<uint64_t> senders_refused{0};
  std::atomic<uint64_t> backpressure{0};  // refused at MAIL or DATA for want of room or of a shard
  std::atomic<uint64_t> smuggling_refused{0};          // bare LF, bare CR, NUL
  std::atomic<uint64_t> mail_loops_refused{0};         // too many Received fields
  std::atomic<uint64_t> too_large_refused{0};          // by SIZE, or text or header as they came
  std::atomic<uint64_t> too_many_recipients{0};        // RCPT beyond the limit of a message
  std::atomic<uint64_t> header_injections_refused{0};  // control characters in merge values
  std::atomic<uint64_t> xclient_refused{0};            // of clients that may not speak for others
  std::atomic<uint64_t> tarpitted{0};                  // refusals that were held back
  std::atomic<uint64_t> auth_succeeded{0};
  std::atomic<uint64_t> auth_failed{0};
  std::atomic<uint64_t> auth_throttled{0};         // not tried: too many failures, too much waiting
  std::atomic<uint64_t> auth_in_clear_refused{0};  // mechanisms that want TLS
  std::atomic<uint64_t> tls_connections{0};        // whose handshake was done
  std::atomic<uint64_t> tls_resumed{0};            // of these
  std::atomic<uint64_t> tls_failures{0};           // handshakes that failed, or took too long
  std::atomic<uint64_t> starttls_injections{0};    // clear text behind STARTTLS, dropped
  // Sessions that were ended for what the client did (mail::ClientFault).
  std::atomic<uint64_t> fault_bare_line_end{0};
  std::atomic<uint64_t> fault_line_too_long{0};
  std::atomic<uint64_t> fault_foreign_protocol{0};
  std::atomic<uint64_t> fault_too_many_errors{0};
  std::atomic<uint64_t> fault_too_slow{0};
  std::atomic<uint64_t> fault_cut_off{0};
  std::atomic<uint64_t> proxy_headers_refused{0};  // missing, malformed, late, or from a stranger
};

// Something that ends by itself after the drain has begun.
class Drainable {
 public:
  virtual void OnDrain() = 0;

 protected:
  ~Drainable() = default;
};

// Thread-safety: none, but ready(), counters() and body_bytes(); everything else on the executor.
// Lifetime: outlives its connections and injections.
class Ingest {
 public:
  Ingest(Executor& executor, const IngestOptions& options, const std::vector<ShardEndpoint>& shards,
         std::shared_ptr<const config::PolicyView> policy);
  ~Ingest();
  Ingest(const Ingest&) = delete;
  Ingest& operator=(const Ingest&) = delete;

  // Connects to the shards.
  void Start();
  // Holds for new connections at once, and for connections that stand from their next MAIL.
  void SetPolicy(std::shared_ptr<const config::PolicyView> policy);
  // Ends: no new message is taken, those on their way are finished. `done` runs when no connection
  // and no injection is left; the owner sets the time limit.
  void Drain(absl::AnyInvocable<void()> done);

  // At least one shard takes messages, and no drain has begun.
  bool ready() const { return ready_.load(std::memory_order_relaxed); }
  // Why not, for people.
  std::string not_ready_reason() const;
  const IngestCounters& counters() const { return counters_; }
  uint64_t body_bytes() const { return body_bytes_.load(std::memory_order_relaxed); }

  // ---- For connections and injections

  Executor& executor() { return executor_; }
  MonotonicTime now() const { return executor_.clock().Now(); }
  WallTime wall_now() const { return executor_.clock().WallNow(); }
  // `listener`: ip:port of this end, or empty. `user_sources`: of a client that has said who it is,
  // "{auth}" and then the named source of the user.
  std::shared_ptr<const ClientProfile> ProfileFor(
      std::string_view client_ip, std::string_view listener = {},
      const std::vector<std::string>& user_sources = {});
  // The same with {auth} and the named source that the user has now; nobody's where `user` is
  // empty.
  std::shared_ptr<const ClientProfile> ProfileForUser(std::string_view client_ip,
                                                      std::string_view listener,
                                                      const std::string& user);
  // Changes with each policy.
  uint64_t policy_generation() const { return policy_generation_; }
  // Whether a message of about that size may begin now, `own` bytes of which are counted already; a
  // refusal is counted.
  std::optional<mail::ServerReply> Admit(uint64_t bytes, uint64_t own = 0);
  // Whether a message that has begun may take so much more; a refusal is counted.
  bool MayGrow(uint64_t bytes);
  void AddBodyBytes(uint64_t bytes) { body_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  void RemoveBodyBytes(uint64_t bytes) { body_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }
  ShardSet& shards() { return shards_; }
  std::string NextMessageId() { return ids_.Next(wall_now()); }
  ReceivedWriter& received() { return received_; }
  // For operators: mail was turned away, at which step of which client, and why.
  // For log-connections.
  void NoteConnection(std::string_view client, std::string_view listener);
  void NoteConnectionEnd(std::string_view client, std::string_view listener, Duration lasted,
                         uint32_t messages);
  // For relay-debug: a recipient that was no relay-domain's, of a client that may not relay.
  void NoteRelayRefused(std::string_view client, std::string_view listener, std::string_view user,
                        std::string_view recipient);
  // For log-commands.
  void NoteTrace(std::string_view client, bool reply, std::string_view text);
  // For log-tls: how a client's handshake ended; `problem` is empty where it was done.
  void NoteTls(std::string_view client, std::string_view listener, const TlsFacts& facts,
               std::string_view user, std::string_view problem);
  void NoteRefusal(std::string_view step, std::string_view client, int code, std::string_view text);
  SlowWork* slow_work() { return options_.slow_work; }
  AuthFailures& auth_failures() {
    return options_.auth_failures != nullptr ? *options_.auth_failures : own_auth_failures_;
  }
  // Printable, unguessable, never the same again.
  std::string NextNonce();
  // For what must look the same to a client each time: of the cluster, or of this ingest where the
  // policy has none.
  const std::string& lasting_secret() const {
    return policy_->auth_secret().empty() ? secret_ : policy_->auth_secret();
  }
  void Count(const SubmitResult& result, size_t recipients, uint64_t bytes);
  IngestCounters& mutable_counters() { return counters_; }
  bool draining() const { return draining_; }
  void Add(Drainable* drainable) { drainables_.insert(drainable); }
  void Remove(Drainable* drainable);

 private:
  void UpdateReady();

  Executor& executor_;
  const IngestOptions options_;
  ShardSet shards_;
  mail::MessageIdGenerator ids_;
  ReceivedWriter received_;
  AuthFailures own_auth_failures_;
  std::string secret_;
  uint64_t nonces_ = 0;
  IngestCounters counters_;
  std::shared_ptr<const config::PolicyView> policy_;
  std::shared_ptr<PolicyTables> tables_;  // of policy_
  uint64_t policy_generation_ = 0;
  absl::flat_hash_map<const policy::v1::ClientSettings*, std::shared_ptr<const ClientProfile>>
      profiles_;
  uint64_t max_body_bytes_ = 0;
  std::atomic<uint64_t> body_bytes_{0};
  std::atomic<bool> ready_{false};
  bool draining_ = false;
  absl::flat_hash_set<Drainable*> drainables_;
  absl::AnyInvocable<void()> on_drained_;
};

}  // namespace sluice::ingest
