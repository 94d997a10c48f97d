// A delivery worker as a running thing: its loop, its resolver, its connections.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "services/config/policy_view.h"
#include "services/config/policy_watcher.h"
#include "services/delivery/core/worker.h"
#include "services/delivery/dns/caching_mx_resolver.h"
#include "services/delivery/dns/cares_client.h"
#include "services/delivery/dns/lookups_ahead.h"
#include "services/delivery/io/outbound_connection.h"
#include "services/delivery/io/receiver_tls.h"
#include "services/delivery/local/local_connections.h"
#include "services/node/loop_thread.h"
#include "services/node/options.h"
#include "services/node/report_mailer.h"
#include "services/node/volumes_file.h"

namespace sluice::node {

// Thread-safety: the thread that made it. Lifetime: the shards' clients outlive it.
class DeliveryPart {
 public:
  // `intake`: where reports on TLS are injected; empty: they are not sent by mail.
  DeliveryPart(const Options& options, std::vector<delivery::ShardAddress> shards,
               std::vector<ingest::ShardEndpoint> intake = {})
      : options_(options), shards_(std::move(shards)), intake_(std::move(intake)) {}
  ~DeliveryPart();

  // `follows_owners`: FollowOwners will be called, and nothing is sent before the table has come.
  absl::Status Start(std::shared_ptr<const config::PolicyView> policy, bool follows_owners = false);
  // On the loop's thread, as the three below.
  void SetPolicy(std::shared_ptr<const config::PolicyView> policy);
  // What the policy service gives to this worker, and
  // what it is told of it, go through `watcher`, until StopFollowing.
  void FollowOwners(config::PolicyWatcher& watcher);
  void Report();
  void StopFollowing();
  // Takes nothing more and finishes what is under way; gives up after `limit`.
  void Drain(Duration limit);
  void Stop();

  // On the loop's thread.
  delivery::v1::GetWorkerStatusResponse Status(const delivery::v1::GetWorkerStatusRequest& request);
  delivery::Worker& worker() { return *worker_; }
  EventLoop& loop() { return thread_.loop(); }
  LoopThread& thread() { return thread_; }
  // On the loop's thread.
  delivery::ReceiverTls& receiver_tls() { return *receiver_tls_; }
  const delivery::OutboundTlsStats& tls_stats() const { return connections_->tls_stats(); }
  const delivery::OutboundFaultStats& fault_stats() const { return connections_->fault_stats(); }
  delivery::MxResolverStats dns_stats() const { return resolver_->stats(); }

 private:
  absl::Status SetUpReceiverTls(const config::PolicyView& policy);
  void WarnOfDane(const config::PolicyView& policy) const;

  const Options& options_;
  const std::vector<delivery::ShardAddress> shards_;
  const std::vector<ingest::ShardEndpoint> intake_;
  LoopThread thread_{"delivery"};
  std::unique_ptr<delivery::CaresClient> dns_;
  std::unique_ptr<delivery::CachingMxResolver> resolver_;
  std::unique_ptr<delivery::LookupsAhead> lookups_ahead_;
  std::unique_ptr<delivery::OutboundConnections> connections_;
  std::unique_ptr<ReportMailer> mailer_;
  std::unique_ptr<delivery::ReceiverTls> receiver_tls_;  // over connections_
  std::unique_ptr<delivery::LocalConnections> local_;    // over receiver_tls_
  std::shared_ptr<const config::PolicyView> policy_;     // the loop's
  MonotonicTime policy_since_{};                         // when it was taken into use
  std::unique_ptr<VolumesFile> volumes_;                 // what limits on bytes have used
  std::unique_ptr<delivery::Worker> worker_;
  uint64_t incarnation_ = 0;
  config::PolicyWatcher* watcher_ = nullptr;
};

}  // namespace sluice::node
