// Limits that queues share: total-max-smtp-out, those of virtual MTAs, pools and sources, and the
// lines of queues before them.
#include <set>

#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::World;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;

// Virtual MTAs of one source each, all in the pool "p".
struct Config {
  policy::v1::PolicySnapshot snapshot;
  policy::v1::GlobalSettings* global = nullptr;
  policy::v1::PoolSection* pool = nullptr;
  std::vector<policy::v1::VirtualMtaSection*> vmtas;

  explicit Config(int count) {
    snapshot.set_version(1);
    policy::v1::Section* section = snapshot.add_sections();
    section->set_name("global");
    global = section->mutable_content()->mutable_global()->mutable_settings();
    section = snapshot.add_sections();
    section->set_name("pool/p");
    pool = section->mutable_content()->mutable_pool();
    pool->set_name("p");
    for (int i = 0; i < count; ++i) {
      const std::string name = "v" + std::to_string(i);
      section = snapshot.add_sections();
      section->set_name("vmta/" + name);
      vmtas.push_back(section->mutable_content()->mutable_virtual_mta());
      vmtas.back()->set_name(name);
      auto* host = vmtas.back()->add_source_hosts();
      host->set_ip("127.0.0." + std::to_string(5 + i));
      host->set_host_name(name + ".example");
      pool->add_virtual_mtas(name);
    }
  }
};

void SetRate(policy::v1::Rate* rate, uint64_t count, Duration period) {
  rate->set_count(count);
  rate->set_period_us(static_cast<uint64_t>(period.count()));
}

// Announces `queues` queues, in turn of the virtual MTAs v0, v1, ..., each of a site of its own.
void Announce(World& world, int queues, int vmtas, uint32_t due) {
  for (int i = 0; i < queues; ++i) {
    const std::string domain = "d" + std::to_string(i) + ".test";
    world.resolver.answers[domain] = world.resolver.answer;
    world.resolver.answers[domain].site = domain;
    world.shard().Ready(static_cast<uint64_t>(i) + 1, due, 0, domain,
                        "v" + std::to_string(i % vmtas));
  }
  world.executor.RunPosted();
}

TEST(WorkerLimits, TotalMaxSmtpOut) {
  Config config(2);
  config.global->set_total_max_smtp_out(3);
  World world(config.snapshot);
  Announce(world, 8, 2, 100);
  for (int i = 0; i < 20; ++i) {
    world.GreetAll();
    EXPECT_LE(world.sites.open.size(), 3u);
  }
  EXPECT_EQ(world.sites.open.size(), 3u);
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_GT(said.blocked_size(), 0);
  EXPECT_EQ(said.blocked(0).limit(), "total-max-smtp-out 3 (this worker)");
}

TEST(WorkerLimits, ConnectionsOfAPool) {
  Config config(3);
  config.pool->set_max_smtp_out(4);
  World world(config.snapshot);
  Announce(world, 9, 3, 100);
  for (int i = 0; i < 20; ++i) {
    world.GreetAll();
    EXPECT_LE(world.sites.open.size(), 4u);
  }
  EXPECT_EQ(world.sites.open.size(), 4u);
  EXPECT_EQ(world.Take().blocked(0).limit(), "max-smtp-out 4 (pool p)");
}

// Leases one recipient for each credit, delivers it, and counts what goes out in every second.
size_t RunPaced(World& world, Duration time, size_t most) {
  std::map<uint64_t, int> credits;
  uint64_t id = 100;
  const MonotonicTime end = world.executor.clock().Now() + time;
  while (world.executor.clock().Now() < end) {
    const queue::v1::DispatchRequest said = world.Take();
    for (const auto& credit : said.credits()) {
      EXPECT_EQ(credit.max_recipients(), 1u);
      for (uint32_t i = 0; i < credit.groups(); ++i) world.shard().Lease(++id, credit.queue_ref());
    }
    world.GreetAll();
    for (size_t i = 0; i < world.sites.open.size(); ++i) {
      while (!world.sites.open[i]->under_way.empty()) world.sites.open[i]->Answer(kDelivered);
    }
    world.executor.Advance(milliseconds(5));
  }
  const auto& sends = world.sites.sends;
  for (size_t i = 0; i + most < sends.size(); ++i) {
    EXPECT_GE(sends[i + most].when - sends[i].when, seconds(1)) << "from attempt " << i;
  }
  return sends.size();
}

TEST(WorkerLimits, RateOfAVirtualMtaHoldsOverItsQueues) {
  Config config(1);
  SetRate(config.vmtas[0]->mutable_max_smtp_msg_rate(), 10, seconds(1));
  World world(config.snapshot);
  Announce(world, 5, 1, 1000);
  EXPECT_GE(RunPaced(world, seconds(5), 10), 40u) << "the limit is used";
}

TEST(WorkerLimits, RateOfAPoolHoldsOverItsVirtualMtas) {
  Config config(3);
  SetRate(config.pool->mutable_max_smtp_msg_rate(), 10, seconds(1));
  World world(config.snapshot);
  Announce(world, 6, 3, 1000);
  EXPECT_GE(RunPaced(world, seconds(5), 10), 40u) << "the limit is used";
  // And all of them get their share.
  std::map<std::string, uint64_t> delivered;
  const auto status = world.worker->Status(false);
  for (const auto& source : status.sources()) {
    EXPECT_GE(source.delivered_total(), 5u) << source.ip();
  }
}

// One address under two host names has one reputation: its limits hold over both.
TEST(WorkerLimits, TwoHostNamesOfOneAddressShareItsLimits) {
  Config config(2);
  for (auto* vmta : config.vmtas) vmta->mutable_source_hosts(0)->set_ip("127.0.0.5");
  policy::v1::Section* section = config.snapshot.add_sections();
  section->set_name("source/127.0.0.5");
  auto* source = section->mutable_content()->mutable_source();
  source->set_ip("127.0.0.5");
  SetRate(source->mutable_settings()->mutable_max_msg_rate(), 10, seconds(1));
  source->mutable_settings()->set_max_smtp_out(3);
  World world(config.snapshot);
  Announce(world, 6, 2, 1000);
  EXPECT_GE(RunPaced(world, seconds(5), 10), 40u) << "the limit is used";
  EXPECT_LE(world.sites.open.size(), 3u);
  std::set<std::string> names;
  for (const auto& remote : world.sites.open) names.insert(remote->target.ehlo_name);
  EXPECT_EQ(names, (std::set<std::string>{"v0.example", "v1.example"}));
}

// A rate of few recipients a day needs no connection that waits for hours.
TEST(WorkerLimits, SlowRateConnectsShortlyBeforeItsToken) {
  Config config(1);
  SetRate(config.vmtas[0]->mutable_max_smtp_msg_rate(), 1, std::chrono::hours(1));
  World world(config.snapshot);
  Announce(world, 3, 1, 10);
  EXPECT_TRUE(world.sites.open.empty()) << "what was sent in the last hour is not known";
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_GT(said.blocked_size(), 0);
  EXPECT_EQ(said.blocked(0).limit(), "rate of virtual MTA");
  EXPECT_GT(said.blocked(0).until_unix_us(), 0);
  world.executor.Advance(std::chrono::minutes(59));
  EXPECT_TRUE(world.sites.open.empty());
  world.executor.Advance(seconds(56));
  EXPECT_EQ(world.sites.open.size(), 1u);
}

// A limit over sources that several workers have is divided by who has which.
TEST(WorkerLimits, WorkersDivideALimit) {
  Config config(4);  // 127.0.0.5 to .8; this worker has .5 alone
  config.pool->set_max_smtp_out(6);
  World world(config.snapshot, true);
  Announce(world, 1, 1, 100);
  for (int i = 0; i < 20; ++i) world.GreetAll();
  EXPECT_EQ(world.sites.open.size(), 2u) << "6 over 4 sources: 2, 2, 1, 1";
  EXPECT_EQ(world.Take().blocked(0).limit(), "max-smtp-out 2 (pool p, this worker's part)");
}

TEST(WorkerLimits, WithoutAPartOfTheLimitTheVirtualMtaIsNotOurs) {
  Config config(2);
  config.vmtas[0]->add_source_hosts()->set_ip("127.0.0.9");
  std::swap(*config.vmtas[0]->mutable_source_hosts(0), *config.vmtas[0]->mutable_source_hosts(1));
  config.vmtas[0]->set_max_smtp_out(1);  // the part of whoever has 127.0.0.9
  config.vmtas[1]->mutable_source_hosts(0)->set_ip("127.0.0.5");
  World world(config.snapshot, true);
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.hello().vmtas_size(), 1);
  EXPECT_EQ(said.hello().vmtas(0), "v1");
}

// A queue with endless mail does not keep the only place from another: turns of ten seconds.
TEST(WorkerLimits, ScarceConnectionsRotate) {
  Config config(1);
  config.vmtas[0]->set_max_smtp_out(1);
  World world(config.snapshot);
  Announce(world, 3, 1, 1'000'000);
  std::map<std::string, Duration> served;
  uint64_t id = 100;
  for (int step = 0; step < 6000; ++step) {
    const queue::v1::DispatchRequest said = world.Take();
    for (const auto& credit : said.credits()) {
      for (uint32_t i = 0; i < credit.groups(); ++i) world.shard().Lease(++id, credit.queue_ref());
    }
    world.GreetAll();
    ASSERT_LE(world.sites.open.size(), 1u);
    if (!world.sites.open.empty()) {
      auto& remote = *world.sites.open[0];
      if (!remote.under_way.empty()) remote.Answer(kDelivered);
      const auto status = world.worker->Status(true);
      if (status.connections_size() > 0) served[status.connections(0).queue()] += milliseconds(20);
      if (remote.quit && remote.under_way.empty()) remote.Close(true);
    }
    world.executor.Advance(milliseconds(20));
  }
  ASSERT_EQ(served.size(), 3u);
  for (const auto& [queue, time] : served) EXPECT_GE(time, seconds(30)) << queue;
}

// Raised, a limit lets those in line go on at once.
TEST(WorkerLimits, RaisedLimitEndsTheWait) {
  Config config(1);
  config.vmtas[0]->set_max_smtp_out(1);
  World world(config.snapshot);
  Announce(world, 4, 1, 1);
  EXPECT_EQ(world.sites.open.size(), 1u);
  config.vmtas[0]->set_max_smtp_out(4);
  config.snapshot.set_version(2);
  world.SetPolicy(config.snapshot);
  world.executor.RunPosted();
  EXPECT_EQ(world.sites.open.size(), 4u);
}

// Leases a message of `bytes` for each credit and delivers it at once; no window of the period has
// more than `most` bytes. Returns how many messages left.
size_t RunVolume(World& world, Duration time, uint64_t bytes, uint64_t most, Duration period) {
  world.shard().edit = [bytes](queue::v1::Lease& lease) {
    lease.mutable_message()->set_body_size(bytes);
  };
  uint64_t id = 1000;
  const MonotonicTime end = world.executor.clock().Now() + time;
  while (world.executor.clock().Now() < end) {
    const queue::v1::DispatchRequest said = world.Take();
    for (const auto& credit : said.credits()) {
      for (uint32_t i = 0; i < credit.groups(); ++i) world.shard().Lease(++id, credit.queue_ref());
    }
    world.GreetAll();
    for (size_t i = 0; i < world.sites.open.size(); ++i) {
      while (!world.sites.open[i]->under_way.empty()) world.sites.open[i]->Answer(kDelivered);
      if (world.sites.open[i]->quit) world.sites.open[i]->Close(true);
    }
    for (const auto& revoke : said.revokes()) {
      if (revoke.released()) {
        world.shard().Ready(revoke.queue_ref(), 1000, 0,
                            "d" + std::to_string(revoke.queue_ref() - 1) + ".test", "v0");
      }
    }
    world.executor.Advance(milliseconds(10));
  }
  const auto& sends = world.sites.sends;
  for (size_t i = 0; i + most / bytes < sends.size(); ++i) {
    EXPECT_GE(sends[i + most / bytes].when - sends[i].when, period) << "from message " << i;
  }
  return sends.size();
}

TEST(WorkerLimits, VolumeOfAVirtualMtaHoldsOverItsQueues) {
  Config config(1);
  SetRate(config.vmtas[0]->mutable_max_smtp_data_volume_rate(), 100'000, seconds(10));
  World world(config.snapshot);
  Announce(world, 5, 1, 1000);
  // What was sent before the start is not known.
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_GT(said.blocked_size(), 0);
  EXPECT_EQ(said.blocked(0).limit(),
            "max-smtp-data-volume-rate 100000/10s (virtual MTA), counted as used up: what was sent "
            "before this worker began is not known");
  EXPECT_TRUE(said.blocked(0).in_line()) << "none of its queues passes";
  const size_t sent = RunVolume(world, seconds(110), 1000, 100'000, seconds(10));
  EXPECT_GE(sent, 900u) << "of 1,000 after the first period";
}

TEST(WorkerLimits, VolumeOfAPoolHoldsOverItsVirtualMtas) {
  Config config(1);
  SetRate(config.pool->mutable_max_smtp_data_volume_rate(), 50'000, seconds(10));
  World world(config.snapshot);
  Announce(world, 4, 1, 1000);
  EXPECT_GE(RunVolume(world, seconds(110), 7000, 50'000, seconds(10)), 55u) << "of 71";
}

// The most connections at a time to each address, over all queues.
std::map<std::string, size_t> MostByAddress(World& world, int turns) {
  std::map<std::string, size_t> most;
  for (int i = 0; i < turns; ++i) {
    world.GreetAll();
    std::map<std::string, size_t> now;
    for (const auto* remote : world.sites.open) ++now[remote->target.address];
    for (const auto& [address, count] : now) most[address] = std::max(most[address], count);
    world.executor.Advance(milliseconds(10));
  }
  return most;
}

void SetLimit(policy::v1::KeyedCounts* limits, const std::string& key, uint64_t count) {
  auto* entry = limits->add_entries();
  entry->set_key(key);
  entry->set_count(count);
}

TEST(WorkerLimits, MxConnectionLimitHoldsOverAllQueues) {
  Config config(2);
  SetLimit(config.global->mutable_mx_connection_limit(), "mx1", 3);
  World world(config.snapshot);
  Announce(world, 8, 2, 100);
  const auto most = MostByAddress(world, 50);
  EXPECT_EQ(most.at("192.0.2.1"), 3u);
  EXPECT_EQ(most.size(), 1u) << "a full host is no reason to go to one of less preference";
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_GT(said.blocked_size(), 0);
  EXPECT_EQ(said.blocked(0).limit(), "mx-connection-limit 3 (mx1)");
  EXPECT_FALSE(said.blocked(0).in_line()) << "others may go elsewhere";
  // Each place that comes free goes to a queue that waits.
  for (int i = 0; i < 2; ++i) {
    world.sites.open.front()->Close(true);
    world.executor.RunPosted();
    world.GreetAll();
    EXPECT_EQ(world.sites.open.size(), 3u);
  }
}

TEST(WorkerLimits, AFullHostIsPassedForOneOfItsPreference) {
  Config config(1);
  SetLimit(config.global->mutable_mx_connection_limit(), "*", 50);
  SetLimit(config.global->mutable_mx_connection_limit(), "mx1", 2);
  World world(config.snapshot);
  world.resolver.answer.hosts = {{"mx1", 10, {"192.0.2.1"}}, {"MX2", 10, {"192.0.2.2"}}};
  Announce(world, 2, 1, 100);
  const auto most = MostByAddress(world, 50);
  EXPECT_EQ(most.at("192.0.2.1"), 2u);
  EXPECT_GT(most.at("192.0.2.2"), 10u);
}

TEST(WorkerLimits, IpConnectionLimitIsOfAllAddressesOfTheNetwork) {
  Config config(1);
  SetLimit(config.global->mutable_ip_connection_limit(), "192.0.2.0/24", 5);
  SetLimit(config.global->mutable_ip_connection_limit(), "192.0.2.2/32", 1);
  World world(config.snapshot);
  world.resolver.answer.hosts = {{"mx1", 10, {"192.0.2.1"}}, {"mx2", 10, {"192.0.2.2"}}};
  Announce(world, 4, 1, 100);
  const auto most = MostByAddress(world, 50);
  EXPECT_EQ(most.at("192.0.2.2"), 1u);
  EXPECT_EQ(most.at("192.0.2.1"), 4u);
  EXPECT_EQ(world.sites.open.size(), 5u);
}

TEST(WorkerLimits, AReloadCountsTheConnectionsThatAreThere) {
  Config config(1);
  World world(config.snapshot);
  Announce(world, 2, 1, 100);
  MostByAddress(world, 50);
  EXPECT_EQ(world.sites.open.size(), 40u);
  SetLimit(config.global->mutable_mx_connection_limit(), "mx1", 30);
  config.snapshot.set_version(2);
  world.SetPolicy(config.snapshot);
  world.Take();
  world.shard().Ready(9, 100, 0, "d9.test", "v0");
  MostByAddress(world, 50);
  EXPECT_EQ(world.sites.open.size(), 40u);
  const auto status = world.worker->Status(false);
  bool said = false;
  for (const auto& blocked : status.blocked()) {
    said |= blocked.queue() == "d9.test/v0" && blocked.limit() == "mx-connection-limit 30 (mx1)";
  }
  EXPECT_TRUE(said);
}

// The machine has one of two sources: half of the limit is its part.
TEST(WorkerLimits, AHostsLimitIsDividedByTheSources) {
  Config config(2);
  SetLimit(config.global->mutable_mx_connection_limit(), "mx1", 6);
  World world(config.snapshot, true);
  Announce(world, 4, 1, 100);
  EXPECT_EQ(MostByAddress(world, 50).at("192.0.2.1"), 3u);
  EXPECT_EQ(world.Take().blocked(0).limit(), "mx-connection-limit 3 (mx1, this worker's part)");
}

}  // namespace
}  // namespace sluice::delivery
