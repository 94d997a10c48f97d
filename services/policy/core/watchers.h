// The services that follow the snapshot: what each has, and what it is sent.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "services/base/executor.h"
#include "services/base/rpc/stream.h"
#include "sluice/policy/v1/policy_service.pb.h"

namespace sluice::policy {

struct WatcherState {
  std::string service;
  std::string instance;
  std::string address;
  uint64_t acked_version = 0;
  std::string error;  // why it could not use the last version it was sent
  bool connected = false;
  v1::WatcherHello hello;  // the last one
  v1::ServiceReport report;
};

// Thread-safety: everything on the executor. Lifetime: executor and snapshot outlive it; streams
// that are open when it is destroyed close.
class Watchers final : public StreamService<v1::WatchPolicyRequest, v1::WatchPolicyResponse> {
 public:
  // `current` is what services are to have; it changes only before a call of Changed().
  Watchers(Executor& executor, const v1::PolicySnapshot& current);
  ~Watchers() override;

  Executor& executor() override { return executor_; }
  void OnStream(std::shared_ptr<ServerStream> stream) override;

  // `current` is a new version that `before` led to: everybody is sent the difference.
  void Changed(const v1::PolicySnapshot& before);
  // Called when a service turns up with a version above ours: the policy service lost its data.
  void set_on_newer(absl::AnyInvocable<void(uint64_t)> on_newer) {
    on_newer_ = std::move(on_newer);
  }

  // Asked with each report of a delivery worker; the lease it gets, if any.
  using OnReport = absl::AnyInvocable<std::optional<v1::SourceLease>(const std::string& instance,
                                                                     const v1::ServiceReport&)>;
  void set_on_report(OnReport on_report) { on_report_ = std::move(on_report); }
  // Called with each report of a queue shard.
  void set_on_shard_report(absl::AnyInvocable<void(const v1::ServiceReport&)> on_report) {
    on_shard_report_ = std::move(on_report);
  }
  // Called when a delivery worker's last stream has ended.
  // A queue service says hello: whether it keeps to OwnersTable; and none of that instance is left.
  using OnShardHello = absl::AnyInvocable<void(const std::string& instance, bool keeps_owners)>;
  void set_on_shard_hello(OnShardHello on_hello) { on_shard_hello_ = std::move(on_hello); }
  void set_on_shard_gone(absl::AnyInvocable<void(const std::string& instance)> on_gone) {
    on_shard_gone_ = std::move(on_gone);
  }
  void set_on_worker_gone(absl::AnyInvocable<void(const std::string& instance)> on_gone) {
    on_worker_gone_ = std::move(on_gone);
  }
  // The owners in the snapshot have changed, and nothing else: everybody is sent the table.
  void OwnersChanged();

  // Everybody who ever said hello to this process, in order of service and instance; of those that
  // are gone, at most 1,000.
  std::vector<WatcherState> states() const;

  // Calls back when every connected service has acknowledged `version`, by success or error, or
  // after `timeout`; at once where all have.
  void WhenAcknowledged(uint64_t version, Duration timeout, absl::AnyInvocable<void()> done);

 private:
  class Session;
  struct Waiter {
    uint64_t version;
    absl::AnyInvocable<void()> done;
    TimerId timer;
  };
  using Key = std::pair<std::string, std::string>;

  void Forget(Session* session);
  void Acknowledged(Session* session, const v1::SnapshotAck& ack);
  bool AllHave(uint64_t version) const;
  void CallWaiters();

  Executor& executor_;
  const v1::PolicySnapshot& current_;
  absl::AnyInvocable<void(uint64_t)> on_newer_;
  OnReport on_report_;
  OnShardHello on_shard_hello_;
  absl::AnyInvocable<void(const std::string&)> on_shard_gone_;
  absl::AnyInvocable<void(const v1::ServiceReport&)> on_shard_report_;
  absl::AnyInvocable<void(const std::string&)> on_worker_gone_;
  // What was in force before, newest first: a service that was away for a while gets a difference.
  std::deque<v1::PolicySnapshot> history_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::map<Key, WatcherState> states_;
  std::map<uint64_t, Waiter> waiters_;
  uint64_t last_waiter_ = 0;
};

}  // namespace sluice::policy
