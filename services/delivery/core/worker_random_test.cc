// Random days of a worker: queues of several virtual MTAs and sites under every shared limit, with
// remotes that greet, refuse, defer, say 421 and break off. Each lease ends exactly once, no limit
// is passed at any moment, and all mail gets out in the end.
#include <map>
#include <random>
#include <set>

#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::World;

struct Limits {
  size_t total = 0;
  size_t pool = 0;
  size_t vmta = 0;
  size_t source = 0;
  size_t queue = 0;
};

class Day {
 public:
  explicit Day(uint64_t seed) : random_(seed), limits_(ChooseLimits()), world_(Policy()) {
    for (int i = 0; i < 12; ++i) {
      Queue& queue = queues_[static_cast<uint64_t>(i) + 1];
      queue.ref = static_cast<uint64_t>(i) + 1;
      queue.domain = "d" + std::to_string(i) + ".test";
      queue.vmta = "v" + std::to_string(i % 3);
      queue.backlog = Pick(0, 60);
      mail_ += queue.backlog;
      // Four sites.
      MxResult route = world_.resolver.answer;
      const std::string host = "mx" + std::to_string(i % 4);
      route.hosts = {{host, 10, {"192.0.2." + std::to_string(10 + i % 4)}}};
      route.site = host;
      world_.resolver.answers[queue.domain] = route;
    }
  }

  void Run() {
    for (int step = 0; step < 3000; ++step) Step(true);
    // From here on all remotes are well: nothing stands still.
    for (int step = 0; step < 60'000 && delivered_ < mail_; ++step) Step(false);
    EXPECT_EQ(delivered_, mail_);
    EXPECT_TRUE(leased_.empty());
    for (int step = 0; step < 1000; ++step) Step(false);
    EXPECT_EQ(world_.worker->open_connections(), 0u);
  }

  uint64_t reused() const { return world_.worker->stats().reused; }

 private:
  struct Queue {
    uint64_t ref = 0;
    std::string domain;
    std::string vmta;
    int backlog = 0;
    uint32_t credits = 0;
    bool announced = false;
    MonotonicTime retry_at{};
  };

  int Pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  bool Chance(double share) { return std::bernoulli_distribution(share)(random_); }

  Limits ChooseLimits() {
    const auto maybe = [this](int low, int high) {
      return Chance(0.5) ? static_cast<size_t>(Pick(low, high)) : size_t{0};
    };
    return {maybe(2, 12), maybe(2, 10), maybe(1, 5), maybe(1, 5), maybe(1, 4)};
  }

  // Other rates, other settings of queues, another pool; the limits of connections stay.
  void Reload() {
    reloaded_ = true;
    world_.SetPolicy(Policy());
  }

  policy::v1::PolicySnapshot Policy() {
    policy::v1::PolicySnapshot snapshot;
    snapshot.set_version(++version_);
    const int members = version_ == 1 ? 2 : Pick(0, 3);
    auto* global = snapshot.add_sections()->mutable_content()->mutable_global();
    if (limits_.total > 0) {
      global->mutable_settings()->set_total_max_smtp_out(static_cast<uint32_t>(limits_.total));
    }
    auto& queues = *global->mutable_queue_defaults();
    if (limits_.queue > 0) queues.set_max_smtp_out(static_cast<uint32_t>(limits_.queue));
    queues.set_max_msg_per_connection(static_cast<uint32_t>(Pick(0, 20)));
    queues.set_smtp_421_means_mx_unavailable(Chance(0.5));
    queues.set_bounce_upon_5xx_greeting(false);
    if (Chance(0.2)) queues.set_smtp_out_rampup_interval_us(300'000);
    auto* pool = snapshot.add_sections()->mutable_content()->mutable_pool();
    pool->set_name("p");
    if (limits_.pool > 0) pool->set_max_smtp_out(static_cast<uint32_t>(limits_.pool));
    if (Chance(0.3)) {
      pool->mutable_max_smtp_msg_rate()->set_count(20);
      pool->mutable_max_smtp_msg_rate()->set_period_us(1'000'000);
    }
    for (int i = 0; i < 3; ++i) {
      auto* vmta = snapshot.add_sections()->mutable_content()->mutable_virtual_mta();
      vmta->set_name("v" + std::to_string(i));
      if (i < members) pool->add_virtual_mtas(vmta->name());
      if (limits_.vmta > 0) vmta->set_max_smtp_out(static_cast<uint32_t>(limits_.vmta));
      // v0 and v1 have one source in common, under the same name.
      for (const char* ip : {i == 2 ? "127.0.0.7" : "127.0.0.5", i == 0 ? "127.0.0.6" : nullptr}) {
        if (ip == nullptr) continue;
        auto* host = vmta->add_source_hosts();
        host->set_ip(ip);
        host->set_host_name("out.example");
      }
    }
    for (int i = 5; i <= 7 && limits_.source > 0; ++i) {
      auto* source = snapshot.add_sections()->mutable_content()->mutable_source();
      source->set_ip("127.0.0." + std::to_string(i));
      source->mutable_settings()->set_max_smtp_out(static_cast<uint32_t>(limits_.source));
    }
    for (auto& section : *snapshot.mutable_sections()) section.set_name("s");
    return snapshot;
  }

  void Step(bool faults) {
    Read(world_.Take());
    if (faults && Chance(0.003)) Reload();
    if (faults && Chance(0.05)) {  // now and then some more mail
      const int more = Pick(1, 3);
      queues_[static_cast<uint64_t>(Pick(1, 12))].backlog += more;
      mail_ += more;
    }
    Write();
    for (size_t i = 0; i < world_.sites.open.size(); ++i) Act(i, faults);
    world_.executor.Advance(milliseconds(20));
    CheckLimits();
  }

  void Read(const queue::v1::DispatchRequest& said) {
    for (const auto& credit : said.credits()) {
      queues_[credit.queue_ref()].credits += credit.groups();
    }
    for (const auto& revoke : said.revokes()) {
      Queue& queue = queues_[revoke.queue_ref()];
      queue.credits = 0;
      if (revoke.released()) queue.announced = false;
    }
    for (const auto& failure : said.failures()) {
      Queue& queue = queues_[failure.queue_ref()];
      queue.announced = false;
      queue.credits = 0;
      queue.retry_at = world_.executor.clock().Now() + milliseconds(Pick(100, 3000));
    }
    queue::v1::DispatchResponse acknowledged;
    for (const auto& result : said.results()) {
      if (End(result.lease_id(), result.outcome() == queue::v1::RECIPIENT_OUTCOME_DELIVERED)) {
        acknowledged.add_acknowledged_leases(result.lease_id());
      }
    }
    for (const uint64_t id : said.returned_leases()) End(id, false);
    if (acknowledged.acknowledged_leases_size() > 0) world_.shard().Say(acknowledged);
  }

  bool End(uint64_t id, bool delivered) {
    const auto found = leased_.find(id);
    if (found == leased_.end()) {
      ADD_FAILURE() << "lease " << id << " ended twice";
      return false;
    }
    if (delivered) {
      ++delivered_;
    } else {
      ++queues_[found->second].backlog;
    }
    leased_.erase(found);
    return true;
  }

  void Write() {
    for (auto& [ref, queue] : queues_) {
      // A revocation may cross a lease.
      while (queue.credits > 0 && queue.backlog > 0 && Chance(0.7)) {
        --queue.credits;
        --queue.backlog;
        leased_[++last_id_] = ref;
        world_.shard().Lease(last_id_, ref);
      }
      const bool due = queue.backlog > 0 && queue.retry_at <= world_.executor.clock().Now();
      if (due && (!queue.announced || (queue.credits == 0 && Chance(0.1)))) {
        queue.announced = true;
        world_.shard().Ready(ref, static_cast<uint32_t>(queue.backlog), 0, queue.domain,
                             queue.vmta);
      }
    }
  }

  void Act(size_t index, bool faults) {
    auto& remote = *world_.sites.open[index];
    if (!remote.greeted) {
      if (faults && Chance(0.05)) {
        remote.Close(false, Chance(0.5) ? 554 : 0);
      } else if (Chance(0.4)) {
        remote.greeted = true;
        remote.handler->OnReady();
      }
      return;
    }
    if (!remote.under_way.empty() && Chance(0.4)) {
      if (faults && Chance(0.05)) {
        const uint32_t code = Chance(0.5) ? 421 : 450;
        remote.Answer(queue::v1::RECIPIENT_OUTCOME_TRANSIENT, code);
        if (code == 421) Break(remote);
        return;
      }
      remote.Answer(queue::v1::RECIPIENT_OUTCOME_DELIVERED);
      return;
    }
    if (remote.quit && remote.under_way.empty()) {
      remote.Close(true);
    } else if (faults && Chance(0.005)) {
      Break(remote);
    }
  }

  static void Break(testing::FakeSites::Remote& remote) {
    while (!remote.under_way.empty()) {
      remote.Answer(queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
    }
    remote.Close(true, 421);
  }

  void CheckLimits() {
    const auto status = world_.worker->Status(true);
    std::map<std::string, size_t> queues, vmtas, sources;
    size_t pool = 0;
    for (const auto& connection : status.connections()) {
      ++queues[connection.queue()];
      const std::string vmta = connection.queue().substr(connection.queue().find('/') + 1);
      ++vmtas[vmta];
      ++sources[connection.source_ip()];
      if (vmta != "v2") ++pool;
    }
    const auto check = [](size_t count, size_t limit, const std::string& what) {
      if (limit > 0) {
        EXPECT_LE(count, limit) << what;
      }
    };
    check(static_cast<size_t>(status.connections_size()), limits_.total, "total");
    // Whom a reload made a member may have had more.
    if (!reloaded_) check(pool, limits_.pool, "pool");
    for (const auto& [name, count] : vmtas) check(count, limits_.vmta, name);
    for (const auto& [name, count] : sources) check(count, limits_.source, name);
    for (const auto& [name, count] : queues) check(count, limits_.queue, name);
  }

  std::mt19937_64 random_;
  uint64_t version_ = 0;
  bool reloaded_ = false;
  const Limits limits_;
  World world_;
  std::map<uint64_t, Queue> queues_;
  std::map<uint64_t, uint64_t> leased_;  // by lease, its queue
  uint64_t last_id_ = 0;
  int mail_ = 0;
  int delivered_ = 0;
};

TEST(WorkerRandom, EveryLeaseEndsOnceWithinEveryLimit) {
  uint64_t reused = 0;
  for (uint64_t seed = 1; seed <= 40 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Day day(seed);
    day.Run();
    reused += day.reused();
  }
  EXPECT_GT(reused, 100u) << "connections go from queue to queue";
}

}  // namespace
}  // namespace sluice::delivery
