// Decides which worker has which source, and so which queue: the one place that does. Nothing
// changes hands before the worker that had it has said that it let go, or could not have it any
// more: its lease has run out.
//
// The lease: a worker asks for it every few seconds. It uses what several workers share for
// `lease` after it asked, and has closed all of that `grace` later. We count from the answer,
// and allow for clocks that run 5 % apart. What a worker has alone needs no lease, so that mail
// goes on while the policy service is away; another one gets it only where that worker agrees,
// where its address has moved to another machine, or after a day.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "services/base/executor.h"
#include "sluice/policy/v1/policy_service.pb.h"

namespace sluice::policy {

struct SourceOwnersOptions {
  Duration lease = std::chrono::seconds(20);
  Duration grace = std::chrono::seconds(40);
  // A worker that shares nothing and is away for longer is no more.
  Duration gone = std::chrono::hours(24);
  // A worker that is asked to let go and does not gets no new lease after this.
  Duration patience = std::chrono::seconds(60);
  // The worker in this process, if there is one: a former one of another name has died with it.
  std::string embedded_worker;
};

// Thread-safety: the executor. Lifetime: the executor outlives it. Failure: a table that cannot be
// made durable changes nothing, and is tried again.
class SourceOwners {
 public:
  // What the configuration says of a virtual MTA.
  struct Vmta {
    std::string name;
    std::vector<std::string> ips;  // in file order; empty: the system chooses
    bool whole = false;            // it has limits that cannot be divided over its sources
  };
  // A limit is divided over the sources; one that is smaller than their number is one worker's.
  static bool OneWorkers(const v1::VirtualMtaSection& vmta);
  // Makes the table durable and sends it to all services.
  using Publish = absl::AnyInvocable<absl::Status(const v1::OwnersTable&)>;

  SourceOwners(Executor& executor, SourceOwnersOptions options, Publish publish);
  ~SourceOwners();

  // The table as it was made durable last. Once, first.
  void Load(v1::OwnersTable table);
  void SetConfig(std::vector<Vmta> vmtas);
  // A worker's report; the lease that it gets, where it asks for one.
  std::optional<v1::SourceLease> OnReport(const std::string& worker,
                                          const v1::ServiceReport& report);
  void OnGone(const std::string& worker);

  const v1::OwnersTable& table() const { return table_; }

 private:
  struct Worker {
    bool connected = false;
    uint64_t incarnation = 0;
    std::set<std::string> ips;
    uint64_t released_epoch = 0;
    MonotonicTime last_lease{};  // when the last one was given, or may have been
    MonotonicTime seen{};
    MonotonicTime asked_to_release{};  // not zero: it owes us an answer since then
  };
  using Hosts = google::protobuf::RepeatedPtrField<v1::HostOwner>;

  void StepLater();
  void Step();
  bool Alive(const std::string& name) const;
  bool LeaseIsOver(const Worker& worker) const;
  // It can use nothing of this entry any more, though it did not say so.
  bool Expired(const std::string& name, const v1::VmtaOwners& entry) const;
  std::map<std::string, std::string> ChooseSources() const;
  void Desired(const Vmta& vmta, const std::map<std::string, std::string>& sources,
               const Hosts* before, v1::VmtaOwners* desired);
  bool StepEntry(v1::VmtaOwners& entry, const v1::VmtaOwners& desired, uint64_t epoch);
  uint32_t IndexOf(const std::string& worker);
  std::set<std::string> WorkersOf(const Hosts& hosts) const;
  void Settle(uint64_t least_epoch);

  Executor& executor_;
  const SourceOwnersOptions options_;
  Publish publish_;
  v1::OwnersTable table_;
  std::vector<Vmta> vmtas_;
  std::map<std::string, Worker> workers_;
  MonotonicTime hold_until_{};  // nothing is given before
  bool posted_ = false;
  TimerId timer_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::policy
