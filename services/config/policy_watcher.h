// Follows the policy service: every service has one and gets its PolicyView from it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "services/base/executor.h"
#include "services/base/log/log.h"
#include "services/base/log/outage_notice.h"
#include "services/base/rpc/stream.h"
#include "services/config/owners.h"
#include "services/config/policy_view.h"
#include "sluice/policy/v1/policy_service.pb.h"

namespace sluice::config {

using WatchPolicyClient =
    StreamClient<policy::v1::WatchPolicyRequest, policy::v1::WatchPolicyResponse>;

struct PolicyWatcherOptions {
  // service, instance and address; the rest is the watcher's.
  policy::v1::WatcherHello hello;
  // The last snapshot, so that the service can start without the policy service. Empty: none.
  std::string snapshot_file;
  // Between attempts to connect, doubling.
  Duration min_backoff = std::chrono::milliseconds(100);
  Duration max_backoff = std::chrono::seconds(5);
  Log* log = nullptr;  // outlives the watcher; none: silence
  // The report is sent again this often, so that one that the network brings late holds for as
  // long; it asks for a lease where on_lease is set. Zero: only when it changes.
  Duration report_every{};
};

// A snapshot that cannot be used is refused by an ack that says why, and the last good one stays.
// Thread-safety: everything on the executor, callbacks too. Lifetime: executor and client outlive
// it; it may be destroyed at any time outside its own callback.
class PolicyWatcher final
    : private Stream<policy::v1::WatchPolicyRequest, policy::v1::WatchPolicyResponse>::Handler {
 public:
  using Callback = absl::AnyInvocable<void(std::shared_ptr<const PolicyView>)>;

  // `on_policy` is called with each snapshot that has another version or content than the
  // one before.
  PolicyWatcher(Executor& executor, WatchPolicyClient& client, PolicyWatcherOptions options,
                Callback on_policy);
  ~PolicyWatcher() override;

  // Reads the file, calls back at once if it has a good snapshot, and connects. A file that cannot
  // be used is as if absent. Once.
  void Start();

  // Called with each newer table of owners, which is on the disk then: a service may promise that
  // it will keep to none before it. Both before Start.
  void set_on_owners(absl::AnyInvocable<void(std::shared_ptr<const Owners>)> on_owners) {
    on_owners_ = std::move(on_owners);
  }
  // Called with each lease: until when it holds, and what it says.
  void set_on_lease(
      absl::AnyInvocable<void(MonotonicTime until, const policy::v1::SourceLease&)> on_lease) {
    on_lease_ = std::move(on_lease);
  }

  // What the policy service shall know of this service; sent again after each connect.
  void SetReport(policy::v1::ServiceReport report);

  bool connected() const { return connected_; }
  // 0 while there is none.
  uint64_t version() const { return snapshot_.version(); }
  // When this version came, or was read from the file.
  MonotonicTime since() const { return since_; }
  // The last thing that went wrong with a snapshot, the file, or its writing; for logs and status.
  const std::string& last_error() const { return last_error_; }

 private:
  using Response = policy::v1::WatchPolicyResponse;

  void OnFrame(Frame<Response> frame) override;
  void OnClosed(absl::Status status) override;
  void Connect();
  void ReadFile();
  void OnDelta(policy::v1::SnapshotDelta delta);
  absl::Status Use(policy::v1::PolicySnapshot snapshot);
  void SendReport();
  void Failed(std::string error);
  void ReportAgain();
  void OnOwners(policy::v1::OwnersTable table);
  void OnLease(const policy::v1::SourceLease& lease);
  absl::Status Keep(bool sync);
  bool Forget();

  Executor& executor_;
  WatchPolicyClient& client_;
  const PolicyWatcherOptions options_;
  Callback on_policy_;
  policy::v1::PolicySnapshot snapshot_;
  MonotonicTime since_;
  policy::v1::ServiceReport report_;
  bool has_report_ = false;
  std::shared_ptr<Stream<policy::v1::WatchPolicyRequest, Response>> stream_;
  bool connected_ = false;  // something came on this stream
  OutageNotice outage_;
  bool ask_for_all_ = false;
  policy::v1::SnapshotDelta parts_;  // chunks of one delta so far
  size_t parts_bytes_ = 0;
  Duration backoff_;
  TimerId retry_ = 0;
  TimerId report_timer_ = 0;
  // When each request left that has had no answer on this stream; answers come in order.
  std::deque<std::pair<uint64_t, MonotonicTime>> lease_requests_;
  uint64_t last_lease_request_ = 0;
  absl::AnyInvocable<void(std::shared_ptr<const Owners>)> on_owners_;
  absl::AnyInvocable<void(MonotonicTime, const policy::v1::SourceLease&)> on_lease_;
  std::string last_error_;
};

}  // namespace sluice::config
