// Which of IPv4 and IPv6 mail takes: ip-preference of queues, virtual MTAs and sources, and what
// each source can reach.
#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using testing::World;

policy::v1::QueueSettings& Queues(policy::v1::VirtualMtaSection& vmta) {
  return *vmta.mutable_queue_defaults();
}

// Two sources, one of each family, and a host of both.
World DualStack(const std::string& preference) {
  return World([&](auto& vmta) {
    vmta.mutable_source_hosts(0)->set_ip("127.0.0.5");
    vmta.add_source_hosts()->set_ip("::1");
    Queues(vmta).set_ip_preference(preference);
  });
}

TEST(WorkerFamily, IpPreference) {
  const struct {
    const char* preference;
    const char* first;
    const char* second;  // nullptr: none
  } kCases[] = {{"ipv4", "192.0.2.1", "2001:db8::1"},
                {"ipv6", "2001:db8::1", "192.0.2.1"},
                {"ipv4-only", "192.0.2.1", nullptr},
                {"ipv6-only", "2001:db8::1", nullptr}};
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.preference);
    World world = DualStack(each.preference);
    world.resolver.answer.hosts = {{"mx1", 10, {"192.0.2.1", "2001:db8::1"}}};
    world.shard().Ready(1, 1);
    world.Take();
    ASSERT_EQ(world.sites.open.size(), 1u);
    EXPECT_EQ(world.sites.open[0]->target.address, each.first);
    const bool v6 = std::string(each.first).find(':') != std::string::npos;
    EXPECT_EQ(world.sites.open[0]->target.source_ip, v6 ? "::1" : "127.0.0.5");
    world.sites.open[0]->Close(false);
    if (each.second == nullptr) {
      EXPECT_TRUE(world.sites.open.empty());
      continue;
    }
    ASSERT_EQ(world.sites.open.size(), 1u);
    EXPECT_EQ(world.sites.open[0]->target.address, each.second);
    EXPECT_EQ(world.sites.open[0]->target.source_ip, v6 ? "127.0.0.5" : "::1");
  }
}

// A source's own ip-preference goes before its queue's, except for the queue's "-only"; sources
// without one do as the queue says.
TEST(WorkerFamily, ASourceHasItsOwnIpPreference) {
  const struct {
    const char* queue;
    const char* own;  // of 127.0.0.5, the first in turn
    std::vector<const char*> addresses;
  } kCases[] = {{"any", "", {"192.0.2.1", "2001:db8::1"}},
                {"ipv6", "", {"2001:db8::1", "192.0.2.1"}},
                {"any", "ipv4-only", {"192.0.2.1"}},
                {"ipv6", "ipv4", {"192.0.2.1", "2001:db8::1"}},
                {"ipv6", "ipv4-only", {"192.0.2.1"}},
                {"ipv6", "any", {"192.0.2.1", "2001:db8::1"}},
                // It stands back for the other one.
                {"any", "ipv6", {"2001:db8::1", "192.0.2.1"}},
                {"ipv4", "ipv6-only", {"2001:db8::1"}},
                {"ipv4-only", "ipv6", {"192.0.2.1"}}};
  for (const auto& each : kCases) {
    SCOPED_TRACE(::testing::Message() << "queue " << each.queue << ", source " << each.own);
    World world(
        [&](auto& vmta) {
          vmta.add_source_hosts()->set_ip("::1");
          Queues(vmta).set_ip_preference(each.queue);
        },
        [&](auto& source) { source.set_ip_preference(each.own); });
    world.resolver.answer.hosts = {{"mx1", 10, {"192.0.2.1", "2001:db8::1"}}};
    // Turns begin with the second source: a queue before it takes that turn.
    world.shard().Ready(1, 1, 0, "other.test");
    world.Take();
    while (!world.sites.open.empty()) world.sites.open[0]->Close(false);
    world.shard().Ready(2, 1);
    world.Take();
    for (const char* address : each.addresses) {
      ASSERT_EQ(world.sites.open.size(), 1u);
      const ConnectTarget& target = world.sites.open[0]->target;
      EXPECT_EQ(target.address, address);
      const bool v6 = std::string(address).find(':') != std::string::npos;
      EXPECT_EQ(target.source_ip, v6 ? "::1" : "127.0.0.5");
      world.sites.open[0]->Close(false);
    }
    EXPECT_TRUE(world.sites.open.empty());
  }
}

// Nothing that a source may not reach is told without a reason.
TEST(WorkerFamily, AnIpPreferenceThatLeavesNothingSaysSo) {
  World world([](auto&) {}, [](auto& source) { source.set_ip_preference("ipv6-only"); });
  world.shard().Ready(1, 1);
  const auto said = world.Take();
  EXPECT_TRUE(world.sites.open.empty());
  ASSERT_EQ(said.failures_size(), 1);
  EXPECT_EQ(said.failures(0).reply().text(),
            "ip-preference ipv6-only of 127.0.0.5 leaves no address");
}

// Each virtual MTA has its own, with a source or without.
TEST(WorkerFamily, AVirtualMtaHasItsOwnIpPreference) {
  for (const bool has_source : {true, false}) {
    const auto snapshot =
        testing::VirtualMtas({"v", "w"}, [&](policy::v1::VirtualMtaSection& vmta) {
          if (has_source) {
            vmta.add_source_hosts()->set_ip("127.0.0.5");
            vmta.add_source_hosts()->set_ip("::1");
          }
          Queues(vmta).set_ip_preference(vmta.name() == "v" ? "ipv4" : "ipv6");
        });
    World world(snapshot);
    world.resolver.answer.hosts = {{"mx1", 10, {"2001:db8::1", "192.0.2.1"}}};
    world.shard().Ready(1, 1, 0, "a.test", "v");
    world.shard().Ready(2, 1, 0, "a.test", "w");
    world.Take();
    ASSERT_EQ(world.sites.open.size(), 2u);
    EXPECT_EQ(world.sites.open[0]->target.address, "192.0.2.1");
    EXPECT_EQ(world.sites.open[1]->target.address, "2001:db8::1");
  }
}

// A source of the other family is not tried in vain.
TEST(WorkerFamily, SourceThatCanReachTheHost) {
  for (const char* address : {"192.0.2.1", "2001:db8::1"}) {
    SCOPED_TRACE(address);
    for (uint64_t queues = 1; queues <= 2; ++queues) {
      World world = DualStack("any");
      world.resolver.answer.hosts = {{"mx1", 10, {address}}};
      for (uint64_t i = 0; i < queues; ++i) {
        world.shard().Ready(i, 1, 0, "d" + std::to_string(i) + ".test");
      }
      EXPECT_EQ(world.Take().failures_size(), 0);
      EXPECT_EQ(world.sites.open.size(), queues);
    }
  }
}

}  // namespace
}  // namespace sluice::delivery
