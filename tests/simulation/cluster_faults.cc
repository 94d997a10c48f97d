// What befalls the cluster: kills, failed syncs, stalls, cuts, clock steps, and what operators do.
#include <chrono>
#include <utility>

#include "services/base/check.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/simulated_cluster.h"

namespace sluice::simulation {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

void Cluster::PlanFaults(Duration busy) {
  Random& random = world_.random();
  network_.set_faulty(true);
  const size_t count = 1 + random.Below(PolicyIsLongAway() ? 24 : 12);
  for (size_t i = 0; i < count; ++i) {
    world_.At(world_.now() + random.Between(Duration(0), busy), [this] { Fault(); });
  }
}

Duration Cluster::DownTime() {
  Random& random = world_.random();
  return random.Chance(0.7) ? random.Between(milliseconds(10), seconds(3))
                            : random.Between(seconds(1), minutes(2));
}

Duration Cluster::PolicyDownTime() {
  if (!PolicyIsLongAway()) return DownTime();
  return world_.random().Between(seconds(20), minutes(15));
}

void Cluster::Fault() {
  Random& random = world_.random();
  ++faults_;
  uint64_t what = random.Below(21);
  if (PolicyIsLongAway() && random.Chance(0.5)) what = 9 + random.Below(4);
  switch (what) {
    case 0:
    case 1: {
      ShardNode& node = *shards_[random.Below(shards_.size())];
      if (node.shard == nullptr) return;
      Log("kill " + node.name);
      Stop(node);
      world_.At(world_.now() + DownTime(), [this, &node] {
        if (node.shard != nullptr) return;
        Log("start " + node.name);
        Start(node);
      });
      return;
    }
    case 2:
    case 3: {
      WorkerNode& node = *workers_[random.Below(workers_.size())];
      if (node.worker == nullptr) return;
      Log("kill " + node.name);
      Stop(node);
      if (options_.policy != RunOptions::PolicyFaults::kForGood && random.Chance(0.2) &&
          node.ips.size() > 1) {
        // The operator moves an address to the other machine, whose worker sees it when it
        // starts.
        WorkerNode& other = *workers_[&node == workers_[0].get() ? 1 : 0];
        Log("move " + node.ips.back() + " to " + other.name);
        other.ips.push_back(node.ips.back());
        other.looks_again = true;
        node.ips.pop_back();
      }
      world_.At(world_.now() + DownTime(), [this, &node] {
        Log("start " + node.name);
        Start(node);
      });
      return;
    }
    case 8:
    case 9:
      if (policy_node_.owners == nullptr) return;
      Log("kill policy");
      StopPolicy();
      world_.At(world_.now() + PolicyDownTime(), [this] {
        Log("start policy");
        StartPolicy();
      });
      return;
    case 13: {
      ShardNode& node = *shards_[random.Below(shards_.size())];
      if (node.committer == nullptr) return;
      Log("the next sync of " + node.name + " fails");
      node.committer->FailNext();
      return;
    }
    case 14:
      Pause(random.Between(seconds(1), minutes(2)));
      return;
    case 15:
      Reroute();
      return;
    case 19:
      Log("other limits");
      ChangeLimits(world_, ledger_, &config_);
      UsePolicy();
      return;
    case 16:
    case 17:
    case 18:
      Log("lose a connection, of which the server hears late");
      network_.LoseOne();
      return;
    case 10:
    case 11:
    case 12: {
      // The policy service cannot be reached: by one worker, and by some shards.
      const Duration time = random.Between(seconds(10), minutes(4));
      WorkerNode& worker = *workers_[random.Below(workers_.size())];
      Log("no policy for " + worker.name);
      network_.Isolate(policy_node_.executor, worker.executor, time);
      for (auto& shard : shards_) {
        if (random.Chance(0.5)) {
          Log("no policy for " + shard->name);
          network_.Isolate(policy_node_.executor, shard->executor, time);
        }
      }
      return;
    }
    case 4: {
      IngestNode& node = *ingests_[random.Below(ingests_.size())];
      if (node.ingest == nullptr) return;
      Log("kill ingest");
      Stop(node);
      world_.At(world_.now() + DownTime(), [this, &node] { Start(node); });
      return;
    }
    case 5:
      Log("stall");
      network_.StallOne(random.Between(milliseconds(100), minutes(2)));
      return;
    case 6: {
      Log("clock step");
      const Duration by = random.Between(-seconds(40), seconds(40));
      (random.Chance(0.5) ? shards_[random.Below(shards_.size())]->executor
                          : workers_[random.Below(workers_.size())]->executor)
          .StepWallClock(by);
      return;
    }
    default:
      Log("cut");
      network_.CutOne();
      return;
  }
}

// ---- operators

void Cluster::Pause(Duration time) {
  Random& random = world_.random();
  policy::v1::ControlEntry pause;
  auto* entry = &pause;
  entry->set_id("pause" + std::to_string(last_version_));
  entry->set_kind(policy::v1::ControlEntry::KIND_PAUSE);
  entry->set_queue_pattern("d" + std::to_string(random.Below(kDomains)) + ".test/*");
  if (random.Chance(0.3)) entry->set_job_id("job" + std::to_string(random.Below(3)));
  Log("pause " + entry->queue_pattern() + " " + entry->job_id());
  pauses_.push_back(pause);
  UsePolicy();
  world_.At(world_.now() + time, [this, id = pause.id()] {
    Log("resume");
    std::erase_if(pauses_, [&](const auto& each) { return each.id() == id; });
    UsePolicy();
  });
}

void Cluster::UsePolicy() {
  policy::v1::PolicySnapshot snapshot = config_;
  snapshot.set_version(++last_version_);
  for (const auto& pause : pauses_) {
    *snapshot.add_sections()->mutable_content()->mutable_control() = pause;
  }
  const auto view = config::PolicyView::Build(snapshot);
  SLUICE_CHECK(view.ok());
  policy_ = *view;
  for (auto& node : shards_) {
    if (node->shard != nullptr) node->shard->SetPolicy(policy_);
  }
  for (auto& node : workers_) {
    if (node->worker != nullptr) node->worker->SetPolicy(policy_);
  }
}

void Cluster::Reroute() {
  Random& random = world_.random();
  ShardNode& node = *shards_[random.Below(shards_.size())];
  queue::v1::RerouteMessagesRequest request;
  request.mutable_filter()->set_queue_pattern("d" + std::to_string(random.Below(kDomains)) +
                                              ".test/*");
  request.set_target(random.Chance(0.4) ? "both" : random.Chance(0.5) ? "v1" : "v2");
  Log("reroute in " + node.name + ": " + request.ShortDebugString());
  Call([&node, request] {
    if (node.shard != nullptr) node.shard->RerouteMessages(request, [](auto) {});
  });
}

}  // namespace sluice::simulation
