// One of the five daemons put together from its parts: which ones, is its role.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "services/base/metrics/http_status.h"
#include "services/base/rpc/rpc_server.h"
#include "services/node/admin_access.h"
#include "services/node/delivery_part.h"
#include "services/node/ingest_part.h"
#include "services/node/options.h"
#include "services/node/policy_part.h"
#include "services/node/queue_part.h"
#include "services/policy/core/admin.h"

namespace sluice::node {

// Thread-safety: the main thread.
class Daemon {
 public:
  explicit Daemon(Options options);
  ~Daemon();

  // Everything serves, or a status with what went wrong, where, and what to do.
  absl::Status Start();
  // The directive files again: what came of it, for the log.
  std::string Reload();
  // Readiness first, then intake, then transactions under way, at most options.stop_timeout_s.
  void Stop();
  // The store failed: the process should end with an error, so that it is started again.
  bool failed() const { return failed_; }

 private:
  template <class Req, class Resp>
  struct Ways;
  struct ShardLink;

  // log-file and its like; --log-file goes before.
  void UseLogFile(const config::PolicyView& policy);
  bool Has(Role role) const { return options_.role == Role::kNode || options_.role == role; }
  absl::Status StartPolicy();
  // What a service starts with: its own copy of the last snapshot, else what policy says within
  // some seconds, else the defaults.
  std::shared_ptr<const config::PolicyView> FirstView();
  absl::Status StartQueue(const std::string& spool_folder, const config::PolicyView& policy);
  absl::Status StartIngest(const std::shared_ptr<const config::PolicyView>& policy);
  absl::Status StartDelivery(const std::shared_ptr<const config::PolicyView>& policy);
  absl::Status StartAdmin();
  absl::Status StartServer();
  absl::Status StartAdminServer();
  absl::Status StartMetrics();
  void Follow(const std::string& service, LoopThread& thread,
              std::function<void(std::shared_ptr<const config::PolicyView>)> use,
              std::function<void(config::PolicyWatcher&)> prepare = nullptr);
  std::string NotReadyReason();
  std::string Metrics();
  // Services of this process that follow the policy service, and whether each reaches it now.
  std::vector<std::pair<std::string, bool>> PolicyLinks();
  absl::Status WriteReady();

  const Options options_;
  policy::v1::GlobalSettings started_with_;  // of those that a reload does not change
  std::unique_ptr<PolicyPart> policy_;
  std::unique_ptr<QueuePart> queue_;
  std::vector<std::unique_ptr<ShardLink>> shards_;
  std::unique_ptr<IngestPart> ingest_;
  std::unique_ptr<DeliveryPart> delivery_;
  std::unique_ptr<policy::FixedPeers> peers_;
  std::unique_ptr<policy::Admin> admin_;
  std::unique_ptr<AdminAccess> admin_access_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<RpcServer> admin_server_;
  LoopThread status_thread_{"status"};
  std::unique_ptr<HttpStatus> http_;

  // Each service's own way to the policy service, on its own loop.
  struct Follower;
  std::vector<std::unique_ptr<Follower>> followers_;  // once status_thread_ runs: on it alone
  std::shared_ptr<grpc::Channel> policy_channel_;
  std::atomic<bool> failed_{false};
  std::atomic<bool> serving_{false};
};

}  // namespace sluice::node
