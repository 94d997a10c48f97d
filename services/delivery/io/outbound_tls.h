// TLS of outbound connections: a context for each set of settings, and within it the sessions that
// may be resumed, a host each.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "services/base/net/tls_client_context.h"
#include "services/delivery/core/connection.h"
#include "services/delivery/io/outbound_connection.h"
#include "services/mail/smtp_client_session.h"

namespace sluice::delivery {

// Thread-safety: none. Memory: at most kMaxContexts contexts, each with kMaxSessions sessions.
class OutboundTls {
 public:
  static constexpr size_t kMaxContexts = 64;
  static constexpr size_t kMaxSessions = 10'000;

  // Hosts whose handshake failed are spoken to in clear for so long, where they may be.
  static constexpr Duration kRememberFailure = std::chrono::minutes(10);
  static constexpr size_t kMaxFailures = 10'000;

  // Whether a failed handshake that nobody demanded is followed by clear text.
  static bool MayFallBack(const policy::v1::QueueSettings& settings);
  mail::StartTls Wanted(const ConnectTarget& target, MonotonicTime now) const;

  // For a handshake with the target. Fails where a file or setting cannot be used.
  absl::StatusOr<std::unique_ptr<TlsSession>> NewSession(const ConnectTarget& target);

  // The handshake is done: what it is worth to the target's policy.
  absl::Status OnReady(const ConnectTarget& target, const TlsSession& session);
  void OnFailed(const ConnectTarget& target, const TlsSession* session, std::string_view why);
  // After that the target was asked in clear: the next connections do not try TLS first.
  void RememberFailure(const ConnectTarget& target, MonotonicTime now);
  // There is mail that goes by TLS alone: the next connection tries it.
  void ForgetFailure(const ConnectTarget& target) { failures_.erase(FailureKey(target)); }

  void Fill(const ConnectTarget& target, const TlsFacts& facts, common::v1::TlsInfo* info) const;

  OutboundTlsStats& mutable_stats() { return stats_; }
  const OutboundTlsStats& stats() const { return stats_; }

 private:
  absl::StatusOr<TlsClientContext*> ContextFor(const policy::v1::QueueSettings& settings);

  static std::string FailureKey(const ConnectTarget& target);

  absl::flat_hash_map<std::string, std::unique_ptr<TlsClientContext>> contexts_;
  absl::flat_hash_map<std::string, MonotonicTime> failures_;  // until when they are remembered
  OutboundTlsStats stats_;
};

}  // namespace sluice::delivery
