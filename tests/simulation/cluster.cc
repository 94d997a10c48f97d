#include "tests/simulation/cluster.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "services/config/policy_view.h"
#include "services/config/policy_watcher.h"
#include "services/config/snapshot_hash.h"
#include "services/delivery/core/worker.h"
#include "services/ingest/core/ingest.h"
#include "services/ingest/core/inject.h"
#include "services/mail/message_id.h"
#include "services/policy/core/source_owners.h"
#include "services/policy/core/watchers.h"
#include "services/queue/core/memory_store.h"
#include "services/queue/core/shard.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/network.h"
#include "tests/simulation/remote_site.h"
#include "tests/simulation/world.h"

namespace sluice::simulation {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

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
    const Duration time = world_.random().Chance(0.02)
                              ? world_.random().Between(milliseconds(10), seconds(2))
                              : world_.random().Between(Duration(100), milliseconds(3));
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

struct WorkerNode {
  WorkerNode(World& world, Internet& internet, std::string name, std::vector<std::string> ips)
      : name(std::move(name)),
        ips(std::move(ips)),
        executor(world),
        connections(internet, executor) {}
  std::string name;
  std::vector<std::string> ips;
  bool looks_again = false;  // has an address that its process does not know of
  uint64_t incarnation = 0;
  SimExecutor executor;
  SimConnections connections;
  std::unique_ptr<SimResolver> resolver;
  std::unique_ptr<delivery::Worker> worker;
  std::unique_ptr<config::PolicyWatcher> watcher;
  std::shared_ptr<const config::Owners> owners;  // the last table, on its disk
};

struct IngestNode {
  explicit IngestNode(World& world) : executor(world) {}
  SimExecutor executor;
  uint64_t starts = 0;
  std::unique_ptr<ingest::Ingest> ingest;
  std::unique_ptr<ingest::InjectService> inject;
};

using DispatchClient = SimStreamClient<queue::v1::DispatchRequest, queue::v1::DispatchResponse>;
using FetchClient = SimStreamClient<queue::v1::FetchBodyRequest, queue::v1::FetchBodyResponse>;
using EnqueueClient = SimStreamClient<queue::v1::EnqueueRequest, queue::v1::EnqueueResponse>;
using UploadClient = SimStreamClient<queue::v1::UploadRequest, queue::v1::UploadResponse>;

// One client's message, injected again with its key until somebody says yes or no.
struct Injection {
  ingest::v1::InjectRequest request;
  std::vector<std::string> rcpts;
  bool answered = false;
  int tries = 0;
};

class Cluster {
 public:
  explicit Cluster(const RunOptions& options)
      : options_(options),
        world_(Random(options.seed).Next()),
        network_(world_, NetworkFaults{}),
        policy_node_(world_),
        watch_(network_, policy_node_.executor, [this] { return policy_node_.watchers.get(); }),
        ingest_(world_) {
    if (options.verbose) ledger_.log = [this](const std::string& what) { Log(what); };
    Random& random = world_.random();
    faulty_ = !random.Chance(0.1);
    BuildInternet();
    BuildPolicy();
    const size_t shards = 1 + random.Below(2);
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
  }

  ~Cluster() {
    StopIngest();
    for (auto& node : workers_) Stop(*node);
    for (auto& node : shards_) Stop(*node);
    StopPolicy();
    world_.Clear();
  }

  RunReport Go() {
    StartPolicy();
    for (auto& node : shards_) Start(*node);
    for (auto& node : workers_) Start(*node);
    StartIngest();
    Random& random = world_.random();
    const MonotonicTime began = world_.now();
    const Duration busy = random.Between(seconds(5), minutes(3));
    PlanInjections(busy);
    if (faulty_) PlanFaults(busy);
    while (world_.Step(began + busy)) {
    }
    // The faults are over: all must end now, by itself.
    calm_ = true;
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

 private:
  void Log(const std::string& what) {
    if (!options_.verbose) return;
    std::printf("%14.6f %s\n", static_cast<double>(world_.now().time_since_epoch().count()) / 1e6,
                what.c_str());
  }

  // ---- what the cluster is made of
  void BuildInternet() {
    Random& random = world_.random();
    internet_.world = &world_;
    internet_.ledger = &ledger_;
    const auto often = [&random](double most) {
      return random.Chance(0.5) ? 0.0 : most * static_cast<double>(random.Below(1000)) / 1000;
    };
    for (int i = 0; i < kDomains; ++i) {
      const std::string domain = "d" + std::to_string(i) + ".test";
      SiteRules& rules = internet_.sites[domain];
      rules.refuse_connection = often(0.4);
      rules.dns_failure = often(0.3);
      rules.defer_rcpt = often(0.3);
      rules.refuse_rcpt = often(0.1);
      rules.defer_final = often(0.3);
      rules.refuse_final = often(0.1);
      rules.break_before_data = often(0.2);
      rules.break_after_dot = often(0.2);
      rules.round_trip = random.Between(milliseconds(1), milliseconds(300));
      rules.thinks = random.Chance(0.2) ? Duration(seconds(20)) : Duration(milliseconds(50));
      internet_.domains["203.0.113." + std::to_string(i)] = domain;
    }
    // Reports come home.
    internet_.sites["from.test"] = SiteRules{};
    internet_.domains["203.0.113.200"] = "from.test";
    internet_.vmtas = {{"198.51.100.1", "v1"},
                       {"198.51.100.2", "v2"},
                       {"198.51.100.3", "both"},
                       {"198.51.100.4", "both"}};
  }

  void BuildPolicy() {
    Random& random = world_.random();
    policy::v1::PolicySnapshot snapshot;
    snapshot.set_version(1);
    auto* all = snapshot.add_sections()->mutable_content()->mutable_domain();
    all->set_pattern("*");
    all->mutable_settings()->mutable_retry_after()->add_us(30'000'000);
    all->mutable_settings()->set_retry_recipients_after_us(20'000'000);
    all->mutable_settings()->set_retry_after_dns_error_us(10'000'000);
    for (int i = 0; i < kDomains; ++i) {
      const std::string domain = "d" + std::to_string(i) + ".test";
      auto* section = snapshot.add_sections()->mutable_content()->mutable_domain();
      section->set_pattern(domain);
      QueueLimit limit;
      if (random.Chance(0.5)) {
        limit.connections = static_cast<uint32_t>(1 + random.Below(4));
        section->mutable_settings()->set_max_smtp_out(limit.connections);
      }
      if (random.Chance(0.4)) {
        limit.recipients = 1 + random.Below(10);
        limit.period = random.Between(seconds(1), seconds(20));
        auto* rate = section->mutable_settings()->mutable_max_msg_rate();
        rate->set_count(limit.recipients);
        rate->set_period_us(static_cast<uint64_t>(limit.period.count()));
        section->mutable_settings()->set_rate_burst(static_cast<uint32_t>(1 + random.Below(3)));
      }
      if (random.Chance(0.3)) {
        section->mutable_settings()->set_max_msg_per_connection(
            static_cast<uint32_t>(1 + random.Below(3)));
      }
      if (random.Chance(0.2)) section->mutable_settings()->set_bounce_after_us(60'000'000);
      ledger_.limits[domain + "/v1"] = limit;
      ledger_.limits[domain + "/v2"] = limit;
      ledger_.limits[domain + "/both"] = limit;
    }
    const auto add = [&snapshot](const char* name, std::vector<std::string> ips) {
      auto* vmta = snapshot.add_sections()->mutable_content()->mutable_virtual_mta();
      vmta->set_name(name);
      for (const std::string& ip : ips) {
        auto* source = vmta->add_source_hosts();
        source->set_ip(ip);
        source->set_host_name("mail.test");
      }
    };
    add("v1", {"198.51.100.1"});
    add("v2", {"198.51.100.2"});
    add("both", {"198.51.100.3", "198.51.100.4"});
    // Limits over the whole virtual MTA: divided over its sources, or too small for that.
    auto* both = snapshot.mutable_sections()->rbegin()->mutable_content()->mutable_virtual_mta();
    QueueLimit whole;
    if (random.Chance(0.4)) {
      whole.connections = static_cast<uint32_t>(1 + random.Below(5));
      both->set_max_smtp_out(whole.connections);
    }
    if (random.Chance(0.3)) {
      whole.recipients = 1 + random.Below(20);
      whole.period = random.Between(seconds(1), seconds(10));
      both->mutable_max_smtp_msg_rate()->set_count(whole.recipients);
      both->mutable_max_smtp_msg_rate()->set_period_us(static_cast<uint64_t>(whole.period.count()));
    }
    ledger_.limits["*/both"] = whole;
    // Reports go the way of the message; "default" is for those that have none.
    add("default", {"198.51.100.1"});
    const auto view = config::PolicyView::Build(snapshot);
    SLUICE_CHECK(view.ok());
    policy_ = *view;
    // The same, in the order and with the hashes that services compare.
    int number = 0;
    for (policy::v1::Section& section : *snapshot.mutable_sections()) {
      section = config::MakeSection("section/" + std::to_string(number++), section.content());
    }
    config::SortSections(&snapshot);
    policy_node_.snapshot = std::move(snapshot);
  }

  void StartPolicy() {
    PolicyNode& node = policy_node_;
    node.watchers = std::make_unique<policy::Watchers>(node.executor, node.snapshot);
    node.owners =
        std::make_unique<policy::SourceOwners>(node.executor, policy::SourceOwnersOptions(),
                                               [this, &node](const policy::v1::OwnersTable& table) {
                                                 Log("owners " + table.ShortDebugString());
                                                 *node.snapshot.mutable_owners() = table;
                                                 node.watchers->OwnersChanged();
                                                 return absl::OkStatus();
                                               });
    node.watchers->set_on_report(
        [&node](const std::string& worker, const policy::v1::ServiceReport& report) {
          return node.owners->OnReport(worker, report);
        });
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
  void StopPolicy() {
    network_.Kill(policy_node_.executor);
    policy_node_.owners.reset();
    policy_node_.watchers.reset();
    policy_node_.executor.Clear();
  }
  std::unique_ptr<config::PolicyWatcher> Watch(Executor& executor, const std::string& service,
                                               const std::string& name) {
    config::PolicyWatcherOptions options;
    options.hello.set_service(service);
    options.hello.set_instance(name);
    if (service == "delivery") options.report_every = seconds(5);
    return std::make_unique<config::PolicyWatcher>(executor, watch_, std::move(options),
                                                   [](auto) {});
  }

  void Start(ShardNode& node) {
    node.committer = std::make_unique<SimCommitter>(world_, node.executor, node.store);
    queue::ShardOptions options;
    options.name = node.name;
    options.reserve_bytes = 0;
    node.shard =
        std::make_unique<queue::Shard>(options, node.executor, node.store, *node.committer);
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
    node.watcher->set_on_owners([&node](std::shared_ptr<const config::Owners> owners) {
      node.owners = owners;
      node.shard->SetOwners(std::move(owners));
    });
    node.watcher->Start();
  }
  void Stop(ShardNode& node) {
    network_.Kill(node.executor);
    node.watcher.reset();
    node.shard.reset();
    node.committer.reset();
    node.executor.Clear();
  }
  void Start(WorkerNode& node) {
    node.resolver = std::make_unique<SimResolver>(internet_, node.executor);
    delivery::WorkerOptions options;
    options.name = node.name;
    options.incarnation = ++node.incarnation;
    node.looks_again = false;
    options.addresses = node.ips;
    options.only_listed = true;
    options.follows_owners = true;
    std::vector<delivery::ShardAddress> shards;
    for (size_t i = 0; i < shards_.size(); ++i) {
      shards.push_back({shards_[i]->name, dispatch_[i].get(), fetch_[i].get()});
    }
    node.worker = std::make_unique<delivery::Worker>(options, node.executor, *node.resolver,
                                                     node.connections, std::move(shards));
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
  void Stop(WorkerNode& node) {
    network_.Kill(node.executor);
    node.watcher.reset();
    node.worker.reset();
    node.resolver.reset();
    node.executor.Clear();
  }
  void StartIngest() {
    ingest::IngestOptions options;
    options.random = options_.seed * 1000 + ++ingest_.starts;
    std::vector<ingest::ShardEndpoint> shards;
    for (size_t i = 0; i < shards_.size(); ++i) {
      shards.push_back({shards_[i]->name, enqueue_[i].get(), upload_[i].get()});
    }
    ingest_.ingest = std::make_unique<ingest::Ingest>(ingest_.executor, options, shards, policy_);
    ingest_.inject = std::make_unique<ingest::InjectService>(*ingest_.ingest);
    ingest_.ingest->Start();
  }
  void StopIngest() {
    network_.Kill(ingest_.executor);
    ingest_.inject.reset();
    ingest_.ingest.reset();
    ingest_.executor.Clear();
  }

  // ---- clients
  void PlanInjections(Duration busy) {
    Random& random = world_.random();
    const size_t count = 5 + random.Below(60);
    const bool burst = random.Chance(0.3);
    for (size_t i = 0; i < count; ++i) {
      auto injection = std::make_shared<Injection>();
      auto& request = injection->request;
      request.set_mail_from("sender@from.test");
      const size_t rcpts = random.Chance(0.8) ? 1 : 1 + random.Below(6);
      const uint64_t domain = random.Below(kDomains);
      for (size_t r = 0; r < rcpts; ++r) {
        const uint64_t of = random.Chance(0.7) ? domain : random.Below(kDomains);
        injection->rcpts.push_back("u" + std::to_string(i) + "." + std::to_string(r) + "@d" +
                                   std::to_string(of) + ".test");
        request.add_recipients()->set_address(injection->rcpts.back());
      }
      std::string text = "Subject: " + std::to_string(i) + "\r\n\r\n";
      text.append(random.Chance(0.03) ? 300'000 + random.Below(400'000) : random.Below(2000), 'x');
      request.set_content(text + "\r\n");
      request.set_virtual_mta(random.Chance(0.4) ? "both" : random.Chance(0.5) ? "v1" : "v2");
      if (random.Chance(0.2)) request.set_job_id("job" + std::to_string(random.Below(3)));
      request.set_idempotency_key("key" + std::to_string(i));
      const Duration when =
          burst ? random.Between(Duration(0), seconds(1)) : random.Between(Duration(0), busy);
      world_.At(world_.now() + when, [this, injection] { Inject(injection); });
    }
  }

  void Inject(const std::shared_ptr<Injection>& injection) {
    ++open_injections_;
    ++injection->tries;
    // No answer in two minutes: the client asks again, with the same key.
    auto open = std::make_shared<bool>(true);
    const auto again = [this, injection, open] {
      if (!std::exchange(*open, false)) return;
      --open_injections_;
      if (injection->answered || injection->tries > 40) return;
      ++open_injections_;
      world_.At(world_.now() + world_.random().Between(seconds(1), seconds(30)), [this, injection] {
        --open_injections_;
        Inject(injection);
      });
    };
    world_.At(world_.now() + minutes(2), again);
    if (ingest_.inject == nullptr) {
      again();
      return;
    }
    ingest_.executor.Post([this, injection, open, again] {
      ingest_.inject->Inject(
          injection->request,
          [this, injection, open, again](absl::StatusOr<ingest::v1::InjectResponse> response) {
            if (!response.ok()) {
              Log("refused: " + response.status().ToString());
              if (absl::IsUnavailable(response.status()) ||
                  absl::IsResourceExhausted(response.status()) ||
                  absl::IsAborted(response.status())) {
                again();
              } else {
                ledger_.Fail("not injected: " + response.status().ToString());
                if (std::exchange(*open, false)) --open_injections_;
              }
              return;
            }
            if (std::exchange(*open, false)) --open_injections_;
            injection->answered = true;
            const auto id = mail::ParseMessageId(response->message_id());
            if (!id) {
              ledger_.Fail("no message id: " + response->message_id());
              return;
            }
            Log("accepted " + response->message_id());
            ledger_.Accepted(*id, injection->rcpts);
          });
    });
  }

  // ---- faults
  void PlanFaults(Duration busy) {
    Random& random = world_.random();
    const size_t count = 1 + random.Below(12);
    for (size_t i = 0; i < count; ++i) {
      world_.At(world_.now() + random.Between(Duration(0), busy), [this] { Fault(); });
    }
  }
  Duration DownTime() {
    Random& random = world_.random();
    return random.Chance(0.7) ? random.Between(milliseconds(10), seconds(3))
                              : random.Between(seconds(1), minutes(2));
  }
  void Fault() {
    Random& random = world_.random();
    ++faults_;
    switch (random.Below(16)) {
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
        if (random.Chance(0.2) && node.ips.size() > 1) {
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
        world_.At(world_.now() + DownTime(), [this] {
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
      case 4:
        if (ingest_.ingest == nullptr) return;
        Log("kill ingest");
        StopIngest();
        world_.At(world_.now() + DownTime(), [this] { StartIngest(); });
        return;
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
  // Some queues, on all shards, and not for good; by the configuration, as policy keeps pauses.
  void Pause(Duration time) {
    Random& random = world_.random();
    policy::v1::PolicySnapshot snapshot = policy_node_.snapshot;
    snapshot.set_version(++last_version_);
    auto* entry = snapshot.add_sections()->mutable_content()->mutable_control();
    entry->set_id("pause");
    entry->set_kind(policy::v1::ControlEntry::KIND_PAUSE);
    entry->set_queue_pattern("d" + std::to_string(random.Below(kDomains)) + ".test/*");
    if (random.Chance(0.3)) entry->set_job_id("job" + std::to_string(random.Below(3)));
    Log("pause " + entry->queue_pattern() + " " + entry->job_id());
    UsePolicy(snapshot);
    world_.At(world_.now() + time, [this] {
      Log("resume");
      policy::v1::PolicySnapshot without = policy_node_.snapshot;
      without.set_version(++last_version_);
      UsePolicy(without);
    });
  }
  void UsePolicy(const policy::v1::PolicySnapshot& snapshot) {
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
  void Reroute() {
    Random& random = world_.random();
    ShardNode& node = *shards_[random.Below(shards_.size())];
    if (node.shard == nullptr) return;
    queue::v1::RerouteMessagesRequest request;
    request.mutable_filter()->set_queue_pattern("d" + std::to_string(random.Below(kDomains)) +
                                                ".test/*");
    request.set_target(random.Chance(0.4) ? "both" : random.Chance(0.5) ? "v1" : "v2");
    Log("reroute in " + node.name + ": " + request.ShortDebugString());
    node.shard->RerouteMessages(std::move(request), [](auto) {});
  }

  // ---- the end
  bool Ended() {
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
  // The operator lifts what lost leases held.
  void Release() {
    for (auto& node : shards_) {
      if (node->shard == nullptr) continue;
      queue::v1::ReleaseMessagesRequest request;
      request.mutable_filter()->set_held_only(true);
      request.mutable_filter()->set_all(true);
      node->shard->ReleaseMessages(std::move(request), [](auto) {});
    }
  }
  void FailUnended() {
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

  static constexpr int kDomains = 6;

  const RunOptions options_;
  World world_;
  Network network_;
  Ledger ledger_;
  Internet internet_;
  std::shared_ptr<const config::PolicyView> policy_;
  PolicyNode policy_node_;
  WatchClient watch_;
  std::vector<std::unique_ptr<ShardNode>> shards_;
  std::vector<std::unique_ptr<DispatchClient>> dispatch_;
  std::vector<std::unique_ptr<FetchClient>> fetch_;
  std::vector<std::unique_ptr<EnqueueClient>> enqueue_;
  std::vector<std::unique_ptr<UploadClient>> upload_;
  std::vector<std::unique_ptr<WorkerNode>> workers_;
  IngestNode ingest_;
  bool faulty_ = true;
  bool calm_ = false;
  uint64_t last_version_ = 1;
  size_t faults_ = 0;
  int open_injections_ = 0;
};

}  // namespace

RunReport Run(const RunOptions& options) {
  Cluster cluster(options);
  return cluster.Go();
}

}  // namespace sluice::simulation
