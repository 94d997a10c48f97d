// The cluster of one run. `cluster.cc` has its life and its processes, `cluster_clients.cc` who
// asks something of it, `cluster_faults.cc` what befalls it. Thread-safety: none.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "services/config/policy_view.h"
#include "tests/simulation/cluster.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/network.h"
#include "tests/simulation/nodes.h"
#include "tests/simulation/remote_site.h"
#include "tests/simulation/world.h"

namespace sluice::simulation {

// One client's message, injected again with its key until somebody says yes or no.
struct Injection {
  ingest::v1::InjectRequest request;
  std::vector<std::string> rcpts;
  std::string id;  // of the message, as it was answered first
  bool answered = false;
  int tries = 0;
};

class Cluster {
 public:
  explicit Cluster(const RunOptions& options);
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;
  ~Cluster();

  // Once.
  RunReport Go();

 private:
  void Log(const std::string& what);

  // ---- processes
  void StartPolicy();
  void StopPolicy();
  std::unique_ptr<config::PolicyWatcher> Watch(Executor& executor, const std::string& service,
                                               const std::string& name);
  void Start(ShardNode& node);
  void Stop(ShardNode& node);
  void Start(WorkerNode& node);
  void Stop(WorkerNode& node);
  void Start(IngestNode& node);
  void Stop(IngestNode& node);

  // ---- clients
  void PlanInjections(Duration busy);
  void Call(const std::function<void()>& execute);
  void Inject(const std::shared_ptr<Injection>& injection);
  void Accepted(Injection& injection, const ingest::v1::InjectResponse& response);

  // ---- faults
  void PlanFaults(Duration busy);
  Duration DownTime();
  Duration PolicyDownTime();
  bool PolicyIsLongAway() const { return options_.policy == RunOptions::PolicyFaults::kLong; }
  void Fault();

  // ---- operators
  // Some queues, on all shards, and not for good; by the configuration, as policy keeps pauses.
  void Pause(Duration time);
  void UsePolicy();
  void Reroute();

  // ---- the end
  bool Ended();
  // The operator lifts what lost leases held.
  void Release();
  void FailUnended();
  void CheckLeftovers();

  const RunOptions options_;
  World world_;
  Network network_;
  Ledger ledger_;
  Internet internet_;
  std::shared_ptr<const config::PolicyView> policy_;
  policy::v1::PolicySnapshot config_;  // as it is now, and what operators paused
  std::vector<policy::v1::ControlEntry> pauses_;
  PolicyNode policy_node_;
  WatchClient watch_;
  std::vector<std::unique_ptr<ShardNode>> shards_;
  std::vector<std::unique_ptr<DispatchClient>> dispatch_;
  std::vector<std::unique_ptr<FetchClient>> fetch_;
  std::vector<std::unique_ptr<EnqueueClient>> enqueue_;
  std::vector<std::unique_ptr<UploadClient>> upload_;
  std::vector<std::unique_ptr<WorkerNode>> workers_;
  std::vector<std::unique_ptr<IngestNode>> ingests_;
  bool faulty_ = true;
  bool calm_ = false;
  uint64_t last_version_ = 1;
  size_t faults_ = 0;
  int open_injections_ = 0;
};

}  // namespace sluice::simulation
