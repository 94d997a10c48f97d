#include "tests/simulation/cluster.h"

#include <cstdio>
#include <memory>
#include <utility>

#include "services/mail/message_id.h"
#include "tests/simulation/scenario.h"
#include "tests/simulation/simulated_cluster.h"

namespace sluice::simulation {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

Cluster::Cluster(const RunOptions& options)
    : options_(options),
      world_(Random(options.seed).Next()),
      network_(world_, NetworkFaults{}),
      policy_node_(world_),
      watch_(network_, policy_node_.executor, [this] { return policy_node_.watchers.get(); }) {
  if (options.verbose) ledger_.log = [this](const std::string& what) { Log(what); };
  Random& random = world_.random();
  faulty_ = !random.Chance(0.1);
  BuildInternet(world_, ledger_, internet_);
  ScenarioPolicy policy = BuildPolicy(random, ledger_);
  policy_ = std::move(policy.view);
  policy_node_.snapshot = std::move(policy.snapshot);
  config_ = policy_node_.snapshot;
  const size_t shards = 1 + random.Below(2) + (PolicyIsLongAway() ? 1 : 0);
  for (size_t i = 0; i < shards; ++i) {
    shards_.push_back(std::make_unique<ShardNode>(world_, "shard-" + std::to_string(i)));
    ShardNode* node = shards_.back().get();
    dispatch_.push_back(std::make_unique<DispatchClient>(
        network_, node->executor,
        [node] { return node->shard ? &node->shard->dispatch() : nullptr; },
        [this, node](const auto& frame) { ledger_.OnShardSays(node->name, frame); }));
    fetch_.push_back(std::make_unique<FetchClient>(network_, node->executor, [node] {
      return node->shard ? &node->shard->fetch_body() : nullptr;
    }));
    enqueue_.push_back(std::make_unique<EnqueueClient>(network_, node->executor, [node] {
      return node->shard ? &node->shard->enqueue() : nullptr;
    }));
    upload_.push_back(std::make_unique<UploadClient>(network_, node->executor, [node] {
      return node->shard ? &node->shard->upload() : nullptr;
    }));
  }
  workers_.push_back(std::make_unique<WorkerNode>(
      world_, internet_, "worker-0", std::vector<std::string>{"198.51.100.1", "198.51.100.3"}));
  workers_.push_back(std::make_unique<WorkerNode>(
      world_, internet_, "worker-1", std::vector<std::string>{"198.51.100.2", "198.51.100.4"}));
  for (uint64_t i = 0; i < 2; ++i) {
    ingests_.push_back(std::make_unique<IngestNode>(world_, options.seed * 1'000'000 + i * 1000));
  }
}

Cluster::~Cluster() {
  for (auto& node : ingests_) Stop(*node);
  for (auto& node : workers_) Stop(*node);
  for (auto& node : shards_) Stop(*node);
  StopPolicy();
  world_.Clear();
}

RunReport Cluster::Go() {
  StartPolicy();
  for (auto& node : shards_) Start(*node);
  for (auto& node : workers_) Start(*node);
  for (auto& node : ingests_) Start(*node);
  Random& random = world_.random();
  if (options_.policy == RunOptions::PolicyFaults::kForGood) {
    const MonotonicTime set_up = world_.now() + minutes(2);
    while (world_.Step(set_up)) {
    }
    StopPolicy();
    const MonotonicTime leases_are_over = world_.now() + minutes(2);
    while (world_.Step(leases_are_over)) {
    }
  }
  const MonotonicTime began = world_.now();
  const Duration busy = PolicyIsLongAway() ? random.Between(minutes(3), minutes(10))
                                           : random.Between(seconds(5), minutes(3));
  PlanInjections(busy);
  if (faulty_) PlanFaults(busy);
  while (world_.Step(began + busy)) {
  }
  // The faults are over: all must end now, by itself.
  calm_ = true;
  network_.set_faulty(false);
  for (auto& node : workers_) {
    if (!node->looks_again || node->worker == nullptr) continue;
    Stop(*node);
    Start(*node);
  }
  const MonotonicTime latest = began + std::chrono::hours(30);
  while (world_.now() < latest && !Ended()) {
    const MonotonicTime next = world_.now() + seconds(20);
    while (world_.Step(next)) {
    }
    Release();
  }
  if (!Ended()) FailUnended();
  ledger_.CheckEnd(faulty_);
  CheckLeftovers();
  RunReport report;
  report.seed = options_.seed;
  report.failures = ledger_.failures();
  report.accepted = ledger_.accepted_recipients();
  report.taken = ledger_.taken();
  report.duplicates = ledger_.duplicates();
  report.reported = ledger_.failed_with_report();
  report.faults = faults_;
  report.steps = world_.steps();
  report.virtual_seconds = static_cast<double>((world_.now() - began).count()) / 1e6;
  return report;
}

void Cluster::Log(const std::string& what) {
  if (!options_.verbose) return;
  std::printf("%14.6f %s\n", static_cast<double>(world_.now().time_since_epoch().count()) / 1e6,
              what.c_str());
}

// ---- processes

void Cluster::StartPolicy() {
  PolicyNode& node = policy_node_;
  node.watchers = std::make_unique<policy::Watchers>(node.executor, node.snapshot);
  policy::SourceOwnersOptions options;
  for (const auto& shard : shards_) options.witnesses.push_back(shard->name);
  node.owners = std::make_unique<policy::SourceOwners>(
      node.executor, std::move(options), [this, &node](const policy::v1::OwnersTable& table) {
        Log("owners " + table.ShortDebugString());
        *node.snapshot.mutable_owners() = table;
        node.watchers->OwnersChanged();
        return absl::OkStatus();
      });
  node.watchers->set_on_report(
      [&node](const std::string& worker, const policy::v1::ServiceReport& report) {
        return node.owners->OnReport(worker, report);
      });
  node.watchers->set_on_shard_report(
      [&node](const policy::v1::ServiceReport& report) { node.owners->OnShardReport(report); });
  node.watchers->set_on_worker_gone(
      [&node](const std::string& worker) { node.owners->OnGone(worker); });
  if (node.snapshot.owners().epoch() != 0) node.owners->Load(node.snapshot.owners());
  std::vector<policy::SourceOwners::Vmta> vmtas;
  for (const auto* vmta : policy_->virtual_mtas()) {
    auto& each = vmtas.emplace_back();
    each.name = vmta->name();
    for (const auto& host : vmta->source_hosts()) each.ips.push_back(host.ip());
    each.whole = policy::SourceOwners::OneWorkers(*vmta);
  }
  node.owners->SetConfig(std::move(vmtas));
}

void Cluster::StopPolicy() {
  network_.Kill(policy_node_.executor);
  policy_node_.owners.reset();
  policy_node_.watchers.reset();
  policy_node_.executor.Clear();
}

std::unique_ptr<config::PolicyWatcher> Cluster::Watch(Executor& executor,
                                                      const std::string& service,
                                                      const std::string& name) {
  config::PolicyWatcherOptions options;
  options.hello.set_service(service);
  options.hello.set_instance(name);
  options.report_every = seconds(5);
  return std::make_unique<config::PolicyWatcher>(executor, watch_, std::move(options), [](auto) {});
}

void Cluster::Start(ShardNode& node) {
  node.committer = std::make_unique<SimCommitter>(world_, node.executor, node.store);
  queue::ShardOptions options;
  options.name = node.name;
  options.reserve_bytes = 0;
  // Few, so that queues wait in its own line, too.
  if (&node == shards_.front().get()) {
    options.max_in_line = 2;
    options.max_unanswered = 3;
  }
  node.shard = std::make_unique<queue::Shard>(options, node.executor, node.store, *node.committer);
  // Its owner ends the process, and starts it again.
  node.shard->set_on_failed([this, &node](const absl::Status&) {
    Log(node.name + " failed");
    world_.At(world_.now(), [this, &node] {
      if (node.shard == nullptr) return;
      Stop(node);
      world_.At(world_.now() + DownTime(), [this, &node] {
        if (node.shard == nullptr) Start(node);
      });
    });
  });
  const absl::Status status = node.shard->Start();
  if (!status.ok()) {
    ledger_.Fail(node.name + " does not start: " + std::string(status.message()));
    node.shard.reset();
    return;
  }
  node.shard->SetPolicy(policy_);
  if (node.owners != nullptr) node.shard->SetOwners(node.owners);
  node.watcher = Watch(node.executor, "queue", node.name);
  const auto report = [&node] {
    policy::v1::ServiceReport report;
    report.set_shard(node.name);
    report.set_released_epoch(node.owners == nullptr ? 0 : node.owners->epoch());
    node.watcher->SetReport(std::move(report));
  };
  node.watcher->set_on_owners([&node, report](std::shared_ptr<const config::Owners> owners) {
    // A watcher without a file hears of the table that is on the disk as of a new one.
    if (node.owners != nullptr && owners->epoch() <= node.owners->epoch()) return;
    node.owners = owners;
    node.shard->SetOwners(std::move(owners));
    report();
  });
  report();
  node.watcher->Start();
}

void Cluster::Stop(ShardNode& node) {
  network_.Kill(node.executor);
  node.watcher.reset();
  node.shard.reset();
  node.committer.reset();
  node.executor.Clear();
}

void Cluster::Start(WorkerNode& node) {
  node.resolver = std::make_unique<SimResolver>(internet_, node.executor);
  delivery::WorkerOptions options;
  options.name = node.name;
  options.incarnation = ++node.incarnation;
  node.looks_again = false;
  options.addresses = node.ips;
  options.only_listed = true;
  options.follows_owners = true;
  options.ledger_from = std::chrono::seconds(1);
  std::vector<delivery::ShardAddress> shards;
  for (size_t i = 0; i < shards_.size(); ++i) {
    shards.push_back({shards_[i]->name, dispatch_[i].get(), fetch_[i].get()});
  }
  node.worker = std::make_unique<delivery::Worker>(options, node.executor, *node.resolver,
                                                   node.connections, std::move(shards));
  if (node.ledger.kept.running()) node.worker->TakeOverVolumes(node.ledger.kept);
  node.worker->set_volume_ledger(&node.ledger);
  node.worker->SetPolicy(policy_);
  if (node.owners != nullptr) node.worker->SetOwners(node.owners);
  node.worker->Start();
  node.watcher = Watch(node.executor, "delivery", node.name);
  const auto report = [&node] {
    policy::v1::ServiceReport report;
    report.set_incarnation(node.incarnation);
    report.set_released_epoch(node.worker->released_epoch());
    for (const std::string& ip : node.worker->owned_sources()) report.add_owned_source_ips(ip);
    node.watcher->SetReport(std::move(report));
  };
  node.watcher->set_on_owners([&node, report](std::shared_ptr<const config::Owners> owners) {
    node.owners = owners;
    node.worker->SetOwners(std::move(owners));
    report();
  });
  node.watcher->set_on_lease([&node](MonotonicTime until, const policy::v1::SourceLease& lease) {
    node.worker->SetLease(until, Duration(lease.grace_us()));
  });
  node.worker->set_on_released([report](uint64_t) { report(); });
  report();
  node.watcher->Start();
}

void Cluster::Stop(WorkerNode& node) {
  network_.Kill(node.executor);
  node.watcher.reset();
  node.worker.reset();
  node.resolver.reset();
  node.executor.Clear();
}

void Cluster::Start(IngestNode& node) {
  ingest::IngestOptions options;
  options.random = node.random + ++node.starts;
  std::vector<ingest::ShardEndpoint> shards;
  for (size_t i = 0; i < shards_.size(); ++i) {
    shards.push_back({shards_[i]->name, enqueue_[i].get(), upload_[i].get()});
  }
  node.ingest = std::make_unique<ingest::Ingest>(node.executor, options, shards, policy_);
  node.inject = std::make_unique<ingest::InjectService>(*node.ingest);
  node.ingest->Start();
}

void Cluster::Stop(IngestNode& node) {
  network_.Kill(node.executor);
  node.inject.reset();
  node.ingest.reset();
  node.executor.Clear();
}

// ---- the end

bool Cluster::Ended() {
  if (open_injections_ > 0) return false;
  for (auto& node : shards_) {
    if (node->shard == nullptr) return false;
    bool ended = false;
    node->shard->GetShardStatus({}, [&ended](auto status) {
      ended = status.ok() && status->recipients() == 0 && !status->counting();
    });
    if (!ended) return false;
  }
  return true;
}
void Cluster::Release() {
  for (auto& node : shards_) {
    if (node->shard == nullptr) continue;
    queue::v1::ReleaseMessagesRequest request;
    request.mutable_filter()->set_held_only(true);
    request.mutable_filter()->set_all(true);
    node->shard->ReleaseMessages(std::move(request), [](auto) {});
  }
}

// What is no more takes no place: no text, envelope, recipient, lease or index row of it.
void Cluster::CheckLeftovers() {
  if (!ledger_.failures().empty()) return;
  // Bodies that no message ever named wait for theirs this long.
  const MonotonicTime later = world_.now() + minutes(15);
  while (world_.Step(later)) {
  }
  using queue::Family;
  for (auto& node : shards_) {
    const std::pair<Family, const char*> families[] = {{Family::kMessages, "messages"},
                                                       {Family::kBodies, "bodies"},
                                                       {Family::kDeliveries, "deliveries"},
                                                       {Family::kIndex, "index"}};
    for (const auto& [family, name] : families) {
      size_t rows = 0;
      for (auto at = node->store.Scan(family, "", ""); at->Valid(); at->Next()) ++rows;
      if (rows == 0) continue;
      ledger_.Fail(node->name + " still has " + std::to_string(rows) + " rows of " + name);
    }
  }
}

void Cluster::FailUnended() {
  if (open_injections_ > 0) ledger_.Fail("injections without an end");
  for (auto& node : workers_) {
    if (node->worker == nullptr) continue;
    Log(node->name + ": " + node->worker->Status(true).ShortDebugString());
  }
  for (auto& node : shards_) {
    if (node->shard == nullptr) {
      ledger_.Fail(node->name + " is down");
      continue;
    }
    queue::v1::ListMessagesRequest request;
    request.set_limit(5);
    node->shard->ListMessages(std::move(request), [this, &node](auto response) {
      if (!response.ok()) return;
      for (const auto& each : response->recipients()) {
        ledger_.Fail("stands still in " + node->name + ": " + each.ShortDebugString());
      }
    });
    queue::v1::ListQueuesRequest queues;
    node->shard->ListQueues(std::move(queues), [this, &node](auto response) {
      if (!response.ok()) return;
      for (const auto& each : response->queues()) {
        ledger_.Fail("queue in " + node->name + ": " + each.ShortDebugString());
      }
    });
  }
}

RunReport Run(const RunOptions& options) {
  Cluster cluster(options);
  return cluster.Go();
}

}  // namespace sluice::simulation
