// The ingest service as a running thing: its loops, its SMTP listener, its injection service.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "services/config/policy_view.h"
#include "services/ingest/core/auth_failures.h"
#include "services/ingest/core/inject.h"
#include "services/ingest/io/listener_tls.h"
#include "services/ingest/io/smtp_listener.h"
#include "services/ingest/io/work_thread.h"
#include "services/ingest/pickup/pickup.h"
#include "services/node/loop_thread.h"
#include "services/node/options.h"

namespace sluice::node {

// Thread-safety: the thread that made it. Lifetime: the shards' clients outlive it.
class IngestPart {
 public:
  IngestPart(const Options& options, std::vector<ingest::ShardEndpoint> shards)
      : options_(options), shards_(std::move(shards)) {}
  ~IngestPart();

  // The listeners are those of the flags, else those of the policy, else 127.0.0.1:2525.
  absl::Status Start(std::shared_ptr<const config::PolicyView> policy);
  void SetPolicy(std::shared_ptr<const config::PolicyView> policy);
  void StopAccepting();
  // Finishes what clients are sending; gives up after `limit`.
  void Drain(Duration limit);
  void Stop();

  ingest::InjectService& inject() { return *inject_; }
  EventLoop& loop() { return threads_[0]->loop(); }
  LoopThread& first_thread() { return *threads_[0]; }
  std::vector<std::string> addresses() const;
  bool ready() const;
  std::vector<const ingest::Ingest*> ingests() const;
  ingest::PickupCounters pickup_counters() const { return pickup_->counters(); }

 private:
  const Options& options_;
  const std::vector<ingest::ShardEndpoint> shards_;
  ingest::AuthFailures auth_failures_;
  std::atomic<uint32_t> memory_percent_{0};
  std::vector<std::unique_ptr<LoopThread>> threads_;
  std::unique_ptr<ingest::WorkThread> work_;
  std::vector<std::unique_ptr<ingest::Ingest>> ingests_;
  std::unique_ptr<ingest::InjectService> inject_;
  std::unique_ptr<ingest::SmtpListener> listener_;
  std::unique_ptr<ingest::Pickup> pickup_;  // injects on the first loop
  // On the first loop, as the listener; so is the watch over the certificates' files.
  void WatchCertificates();
  void WatchMemory();
  ingest::ListenerTls tls_{Clock::Real()};
  std::vector<Endpoint> listen_;
};

}  // namespace sluice::node
