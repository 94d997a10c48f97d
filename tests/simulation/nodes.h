// The simulated processes: the real core of each, its executor, and what is on its disk, which
// outlives the core. Thread-safety: none; a run is one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/config/owners.h"
#include "services/config/policy_watcher.h"
#include "services/delivery/core/worker.h"
#include "services/ingest/core/ingest.h"
#include "services/ingest/core/inject.h"
#include "services/policy/core/source_owners.h"
#include "services/policy/core/watchers.h"
#include "services/queue/core/memory_store.h"
#include "services/queue/core/shard.h"
#include "tests/simulation/network.h"
#include "tests/simulation/remote_site.h"
#include "tests/simulation/world.h"

namespace sluice::simulation {

// A sync takes a while; a crash during it may find the batch on disk, or not.
class SimCommitter final : public queue::Committer {
 public:
  SimCommitter(World& world, Executor& executor, queue::MemoryStore& store)
      : world_(world), executor_(executor), store_(store) {}
  // The process died: what was being synced either was, or is lost.
  ~SimCommitter() override {
    if (under_way_ != nullptr && world_.random().Chance(0.5)) {
      store_.Commit(*under_way_, true).IgnoreError();
    }
    store_.CutPower();
  }

  void Commit(std::unique_ptr<queue::Batch> batch, Done done) override {
    under_way_ = std::move(batch);
    const Duration time =
        world_.random().Chance(0.02)
            ? world_.random().Between(std::chrono::milliseconds(10), std::chrono::seconds(2))
            : world_.random().Between(Duration(100), std::chrono::milliseconds(3));
    executor_.After(time,
                    [this, alive = std::weak_ptr<bool>(alive_), done = std::move(done)]() mutable {
                      if (alive.expired()) return;
                      ++stats_.syncs;
                      if (std::exchange(fail_next_, false)) {
                        // What of it is on the disk shows when the shard is opened again.
                        done(absl::DataLossError("the simulated disk"), std::move(under_way_));
                        return;
                      }
                      absl::Status status = store_.Commit(*under_way_, true);
                      done(std::move(status), std::move(under_way_));
                    });
  }
  queue::CommitterStats stats() const override { return stats_; }
  void FailNext() { fail_next_ = true; }

 private:
  bool fail_next_ = false;
  World& world_;
  Executor& executor_;
  queue::MemoryStore& store_;
  queue::CommitterStats stats_;
  std::unique_ptr<queue::Batch> under_way_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

using WatchClient =
    SimStreamClient<policy::v1::WatchPolicyRequest, policy::v1::WatchPolicyResponse>;

struct PolicyNode {
  explicit PolicyNode(World& world) : executor(world) {}
  SimExecutor executor;
  policy::v1::PolicySnapshot snapshot;  // on its disk
  std::unique_ptr<policy::Watchers> watchers;
  std::unique_ptr<policy::SourceOwners> owners;
};

struct ShardNode {
  ShardNode(World& world, std::string name) : name(std::move(name)), executor(world) {}
  std::string name;
  SimExecutor executor;
  queue::MemoryStore store;  // the disk: outlives the process
  std::unique_ptr<SimCommitter> committer;
  std::unique_ptr<queue::Shard> shard;
  std::unique_ptr<config::PolicyWatcher> watcher;
  std::shared_ptr<const config::Owners> owners;  // the last table, on its disk
};

// What a worker's limits on bytes have used, on its disk.
class SimLedger final : public delivery::VolumeLedger {
 public:
  explicit SimLedger(SimExecutor& executor) : executor_(executor) {}
  void Keep(delivery::v1::VolumeRecords records, absl::AnyInvocable<void(Kept)> done) override {
    executor_.After(std::chrono::milliseconds(3),
                    [this, records = std::move(records), done = std::move(done)]() mutable {
                      kept = std::move(records);
                      done(Kept::kYes);
                    });
  }
  delivery::v1::VolumeRecords kept;

 private:
  SimExecutor& executor_;
};

struct WorkerNode {
  WorkerNode(World& world, Internet& internet, std::string name, std::vector<std::string> ips)
      : name(std::move(name)),
        ips(std::move(ips)),
        executor(world),
        connections(internet, executor),
        ledger(executor) {}
  std::string name;
  std::vector<std::string> ips;
  bool looks_again = false;  // has an address that its process does not know of
  uint64_t incarnation = 0;
  SimExecutor executor;
  SimConnections connections;
  SimLedger ledger;
  std::unique_ptr<SimResolver> resolver;
  std::unique_ptr<delivery::Worker> worker;
  std::unique_ptr<config::PolicyWatcher> watcher;
  std::shared_ptr<const config::Owners> owners;  // the last table, on its disk
};

struct IngestNode {
  IngestNode(World& world, uint64_t random) : executor(world), random(random) {}
  SimExecutor executor;
  const uint64_t random;  // of its first life; each has its own
  uint64_t starts = 0;
  std::unique_ptr<ingest::Ingest> ingest;
  std::unique_ptr<ingest::InjectService> inject;
};

using DispatchClient = SimStreamClient<queue::v1::DispatchRequest, queue::v1::DispatchResponse>;
using FetchClient = SimStreamClient<queue::v1::FetchBodyRequest, queue::v1::FetchBodyResponse>;
using EnqueueClient = SimStreamClient<queue::v1::EnqueueRequest, queue::v1::EnqueueResponse>;
using UploadClient = SimStreamClient<queue::v1::UploadRequest, queue::v1::UploadResponse>;

}  // namespace sluice::simulation
