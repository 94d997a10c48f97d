// Sources that a queue does not use: a reply has disabled them, an operator has, or its binding has
// another one.
#include "services/delivery/core/worker_mode_config.h"

namespace sluice::delivery {
namespace {

using std::chrono::seconds;
using Config = testing::ModeConfig;
using testing::Send;
using testing::World;

constexpr auto kTransient = queue::v1::RECIPIENT_OUTCOME_TRANSIENT;

// disable-source-ip: the address is not used for this queue until its time is over.
TEST(WorkerSources, ASourceIsDisabledForItsQueueAlone) {
  Config config;
  config.vmta->add_source_hosts()->set_ip("127.0.0.6");
  config.Reply("listed").set_disable_source_ip(true);
  config.settings->set_reenable_source_ip_after_us(60'000'000);
  World world(config.snapshot);
  auto& remote = world.Connected();
  const std::string ip = remote.target.source_ip;
  auto said = Send(world, 1, kTransient, 450, "your address is listed");
  ASSERT_EQ(said.modes_size(), 1);
  ASSERT_EQ(said.modes(0).sources_size(), 1);
  EXPECT_EQ(said.modes(0).sources(0).ip(), ip);
  EXPECT_TRUE(said.modes(0).sources(0).disabled());
  EXPECT_TRUE(remote.quit);
  remote.Close(true);
  for (int i = 0; i < 4; ++i) {
    world.shard().Ready(1, 5);
    world.executor.RunPosted();
    for (const auto* open : world.sites.open) EXPECT_NE(open->target.source_ip, ip);
    while (!world.sites.open.empty()) world.sites.open.front()->Close(false);
  }
  world.shard().Ready(2, 50, 0, "other.test");
  world.executor.RunPosted();
  for (int i = 0; i < 3; ++i) world.GreetAll();
  bool used = false;
  for (const auto* open : world.sites.open) used |= open->target.source_ip == ip;
  EXPECT_TRUE(used) << "by another queue";
}

// source-interface: one source of the virtual MTA, of those that are there; a new one takes the
// place of the old one's connections.
TEST(WorkerSources, ABindingUsesItsOwnSourceAlone) {
  Config config;
  config.vmta->add_source_hosts()->set_ip("127.0.0.6");
  config.settings->set_source_interface("127.0.0.6");
  World world(config.snapshot);
  world.Connected(5);
  for (const auto* open : world.sites.open) EXPECT_EQ(open->target.source_ip, "127.0.0.6");
  config.settings->set_source_interface("127.0.0.5");
  config.snapshot.set_version(2);
  world.SetPolicy(config.snapshot);
  world.shard().Ready(1, 5);
  world.executor.RunPosted();
  EXPECT_TRUE(world.sites.open.front()->quit);
  while (!world.sites.open.empty()) world.sites.open.front()->Close(true);
  world.Connected(5);
  for (const auto* open : world.sites.open) EXPECT_EQ(open->target.source_ip, "127.0.0.5");
}

// The one that has it sends; this one says why it does not.
TEST(WorkerSources, ABindingsSourceOfAnotherWorkerIsNamed) {
  Config config;
  config.vmta->add_source_hosts()->set_ip("192.0.2.77");
  config.settings->set_source_interface("192.0.2.77");
  World world(config.snapshot);
  world.shard().Ready(1, 5);
  world.executor.RunPosted();
  EXPECT_TRUE(world.sites.open.empty());
  const auto said = world.Take();
  ASSERT_GT(said.blocked_size(), 0);
  EXPECT_EQ(said.blocked(said.blocked_size() - 1).limit(),
            "source-interface 192.0.2.77 is no address of this worker");
}

TEST(WorkerSources, WithEverySourceDisabledTheQueueWaitsUntilOneIsEnabled) {
  Config config;
  auto& rule = config.Reply("listed");
  rule.set_disable_source_ip(true);
  rule.set_reenable_after_us(60'000'000);
  World world(config.snapshot);
  world.Connected(5);
  auto said = Send(world, 1, kTransient, 450, "listed");
  while (!world.sites.open.empty()) world.sites.open.front()->Close(true);
  world.executor.Advance(seconds(30));
  EXPECT_TRUE(world.sites.open.empty());
  said.MergeFrom(world.Take());
  ASSERT_GT(said.blocked_size(), 0);
  EXPECT_EQ(said.blocked(said.blocked_size() - 1).limit(),
            "every source of the virtual MTA is disabled for this queue");
  EXPECT_GT(said.blocked(said.blocked_size() - 1).until_unix_us(), 0);
  world.executor.Advance(seconds(31));
  EXPECT_FALSE(world.sites.open.empty());
}

TEST(WorkerSources, BackoffUponAllSourcesDisabled) {
  Config config;
  config.Reply("listed").set_disable_source_ip(true);
  config.settings->set_backoff_upon_all_sources_disabled(true);
  World world(config.snapshot);
  auto& remote = world.Connected(5);
  const auto said = Send(world, 1, kTransient, 450, "listed");
  ASSERT_GE(said.modes_size(), 1);
  const auto& last = said.modes(said.modes_size() - 1);
  EXPECT_TRUE(last.mode().backoff());
  ASSERT_EQ(last.sources_size(), 1);
  EXPECT_FALSE(last.sources(0).disabled());
  EXPECT_FALSE(remote.quit);
}

// A warm connection from it is closed in good order, and no more mail goes by it.
TEST(WorkerSources, ASourceThatAnOperatorDisablesIsLeftAtOnce) {
  Config config;
  World world(config.snapshot);
  auto& remote = world.Connected(5);
  world.Take();
  queue::v1::DispatchResponse word;
  auto* change = word.add_modes();
  change->set_queue_ref(1);
  auto* source = change->add_sources();
  source->set_ip("127.0.0.5");
  source->set_disabled(true);
  source->set_since_us(ToUnixMicros(world.executor.clock().WallNow()));
  world.shard().Say(word);
  world.executor.RunPosted();
  EXPECT_TRUE(remote.quit);
}

}  // namespace
}  // namespace sluice::delivery
