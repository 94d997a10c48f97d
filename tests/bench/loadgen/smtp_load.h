// Injects a load by SMTP over many sessions of one loop.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "services/base/net/event_loop.h"
#include "services/base/net/ip_address.h"
#include "services/base/net/tls_client_context.h"
#include "tests/bench/loadgen/load.h"

namespace sluice::bench {

struct SmtpLoadOptions {
  std::vector<Endpoint> targets;   // taken in turn
  std::vector<IpAddress> sources;  // taken in turn; none: the kernel's choice
  uint32_t sessions = 40;
  uint64_t messages_per_connection = 0;  // 0: no end
  // The envelope in one write, and the next one in the write that ends the text (RFC 2920). Else a
  // write a command.
  bool pipelining = false;
  std::string ehlo = "load.test";
  enum class Tls : uint8_t { kNone, kStartTls, kImmediate };
  Tls tls = Tls::kNone;
  bool tls_resumption = true;  // of the sessions of earlier connections to the target
  uint32_t idle_sessions = 0;  // besides: connected, greeted, encrypted where asked, then silent
  Duration timeout = std::chrono::minutes(5);
  uint64_t connect_errors_max = 1000;
};

// Thread-safety: none; lives on its loop. Lifetime: the loop outlives it.
class SmtpLoad {
 public:
  // `on_finished` is called once: when each message has an outcome, or when more connections failed
  // than the options allow.
  SmtpLoad(EventLoop& loop, const LoadOptions& load, const SmtpLoadOptions& options,
           absl::AnyInvocable<void()> on_finished);
  ~SmtpLoad();

  void Start();
  // Idle sessions that are connected and have nothing left to say.
  uint32_t idle_ready() const { return idle_ready_; }
  const LoadResult& result() const { return result_; }

 private:
  class Session;
  friend class Session;

  // Takes the next message for a session; false where none is left, or none is due yet (then the
  // session is woken when one is).
  bool TakeMessage(Session* session, uint64_t* number);
  void OnIdle();
  void StartMessages();
  void OnOutcome(uint64_t LoadResult::*kind);
  void WakeWaiting();
  void Finish();

  EventLoop& loop_;
  const LoadOptions load_;
  const SmtpLoadOptions options_;
  absl::AnyInvocable<void()> on_finished_;
  MessageMaker maker_;
  DomainPicker domains_;
  Pace pace_;
  MonotonicTime start_;
  uint64_t taken_ = 0;
  uint32_t idle_ready_ = 0;
  LoadResult result_;
  std::unique_ptr<TlsClientContext> tls_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<Session*> waiting_;
  Deadline wake_;
  bool finished_ = false;
};

}  // namespace sluice::bench
