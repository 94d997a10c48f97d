// Decides which worker has which source, and so which queue: the one place that does. Nothing
// changes hands before the worker that had it has said that it let go, or could not have it any
// more: its lease has run out.
//
// The lease: a worker asks for it every few seconds. It uses what several workers share for
// `lease` after it asked, and has closed all of that `grace` later. We count from the answer,
// and allow for clocks that run 5 % apart. What a worker has alone needs no lease, so that mail
// goes on while the policy service is away; another one gets it only where that worker agrees,
// where its address has moved to another machine, or after a day.
//
// Nor needs it us while more than half of the shards know of no table after its own (OwnersTable):
// they keep each table durably before they say that they have it, and we give nothing of a silent
// worker away before half of them have said so for as long as a lease and its grace.
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
#include "services/policy/core/lease_witnesses.h"
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
  // Shards that keep to the table, and may stand in for us (OwnersTable).
  std::vector<std::string> witnesses;
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
  // A shard's report.
  void OnShardReport(const v1::ServiceReport& report);
  // A shard of that name connected, and went. Before its first report.
  void OnShardHello(const std::string& shard, bool keeps_owners);
  void OnShardGone(const std::string& shard);

  const v1::OwnersTable& table() const { return table_; }

  // For operators: each address of each virtual MTA, who has it, and what it waits for.
  struct Shown {
    std::string vmta;
    std::string ip;
    std::string worker;  // empty: nobody has it
    bool connected = false;
    bool leased = false;
    std::optional<Duration> lease_age;  // since its worker was given one
    bool changing = false;
    std::string next;  // to whom; empty: to nobody
    std::string waits_for;
  };
  std::vector<Shown> List() const;
  uint64_t WitnessEpoch(const std::string& shard) const { return witnesses_.EpochOf(shard); }
  bool WitnessIsOld(const std::string& shard) const { return witnesses_.IsOld(shard); }

 private:
  struct Worker {
    bool connected = false;
    uint64_t incarnation = 0;
    std::set<std::string> ips;
    uint64_t released_epoch = 0;
    MonotonicTime last_lease{};  // when the last one was given, or may have been
    bool given = false;          // by this process
    MonotonicTime seen{};
    MonotonicTime asked_to_release{};  // not zero: it owes us an answer since then
  };
  using Hosts = google::protobuf::RepeatedPtrField<v1::HostOwner>;

  void StepLater();
  void Step();
  bool Alive(const std::string& name) const;
  Duration LeaseAndGrace() const;
  bool LeaseIsOver(const Worker& worker) const;
  // Neither has anybody a lease from shards by a table before `epoch`.
  bool Fenced(uint64_t epoch) const;
  // It can use nothing of this entry any more, though it did not say so.
  bool Expired(const std::string& name, const v1::VmtaOwners& entry) const;
  std::map<std::string, std::string> ChooseSources() const;
  void Desired(const Vmta& vmta, const std::map<std::string, std::string>& sources,
               const Hosts* before, v1::VmtaOwners* desired);
  bool StepEntry(v1::VmtaOwners& entry, const v1::VmtaOwners& desired, uint64_t epoch);
  std::string WaitsFor(const v1::VmtaOwners& entry) const;
  uint32_t IndexOf(const std::string& worker);
  std::set<std::string> WorkersOf(const Hosts& hosts) const;
  bool StepWitnesses(uint64_t epoch);
  void Settle(uint64_t least_epoch);

  Executor& executor_;
  const SourceOwnersOptions options_;
  Publish publish_;
  v1::OwnersTable table_;
  std::vector<Vmta> vmtas_;
  std::map<std::string, Worker> workers_;
  LeaseWitnesses witnesses_;
  MonotonicTime hold_until_{};  // nothing is given before
  uint64_t hold_epoch_ = 0;     // and before shards keep to this table; 0: none
  bool posted_ = false;
  TimerId timer_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::policy
