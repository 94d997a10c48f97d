// Connections that go from one queue to another: whose they may be, what goes with them, and what
// stays.
#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Groups;
using testing::World;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;

policy::v1::QueueSettings& Domain(policy::v1::VirtualMtaSection& vmta, const std::string& name) {
  auto* domain = vmta.add_domains();
  domain->set_pattern(name);
  return *domain->mutable_settings();
}

// Delivers one message of a.test, and leaves its connection idle.
testing::FakeSites::Remote& IdleConnection(World& world) {
  world.shard().Ready(1, 1, 0, "a.test");
  world.executor.RunPosted();
  world.GreetAll();
  world.shard().Lease(11, 1);
  world.sites.open[0]->Answer(kDelivered);
  world.Take();
  return *world.sites.open[0];
}

TEST(WorkerSites, IdleConnectionServesTheNextQueueOfTheSite) {
  World world;
  auto& remote = IdleConnection(world);
  world.executor.Advance(milliseconds(500));
  world.Take();
  world.shard().Ready(2, 1, 0, "b.test");
  queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(world.sites.open.size(), 1u) << "no new connection";
  EXPECT_FALSE(remote.quit);
  // The old queue's credit is void, and its shard may give the queue to others.
  ASSERT_EQ(said.revokes_size(), 1);
  EXPECT_EQ(said.revokes(0).queue_ref(), 1u);
  EXPECT_TRUE(said.revokes(0).released());
  ASSERT_GT(said.credits_size(), 0);
  EXPECT_EQ(said.credits(0).queue_ref(), 2u);
  world.shard().Lease(12, 2);
  ASSERT_EQ(remote.under_way.size(), 1u);
  remote.Answer(kDelivered);
  said = world.Take();
  ASSERT_EQ(said.results_size(), 1);
  EXPECT_EQ(said.results(0).lease_id(), 12u);
  EXPECT_EQ(world.worker->stats().reused, 1u);
  EXPECT_EQ(world.worker->stats().connects, 1u);
  // It counts, and is closed, as the second queue's.
  EXPECT_EQ(world.worker->Status(true).connections(0).queue(), "b.test/v");
  world.executor.Advance(seconds(6));
  EXPECT_TRUE(remote.quit);
  remote.Close(true);
  EXPECT_EQ(world.worker->open_connections(), 0u);
}

// Mail of the first queue that was on its way meanwhile goes back untouched, and is not lost.
TEST(WorkerSites, LeaseThatCrossedTheMoveIsReturned) {
  World world;
  IdleConnection(world);
  world.executor.Advance(milliseconds(500));
  world.Take();
  world.shard().Ready(2, 1, 0, "b.test");
  world.executor.RunPosted();
  world.shard().Lease(13, 1);
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.returned_leases_size(), 1);
  EXPECT_EQ(said.returned_leases(0), 13u);
}

// Another MX set, another setting of the connection, another source or name: another connection.
TEST(WorkerSites, OnlyConnectionsThatWereMadeAlike) {
  const struct {
    const char* what;
    std::function<void(World&)> world;
    std::function<void(policy::v1::VirtualMtaSection&)> vmta;
    bool reused;
  } kCases[] = {
      {"same", nullptr, nullptr, true},
      {"other MX set",
       [](World& world) {
         world.resolver.answers["b.test"] = world.resolver.answer;
         world.resolver.answers["b.test"].site = "mx1";
       },
       nullptr, false},
      {"same names that lead elsewhere",
       [](World& world) {
         world.resolver.answers["b.test"] = world.resolver.answer;
         world.resolver.answers["b.test"].hosts = {{"mx1", 10, {"192.0.2.9"}},
                                                   {"mx2", 20, {"192.0.2.8"}}};
       },
       nullptr, false},
      {"TLS", nullptr, [](auto& vmta) { Domain(vmta, "b.test").set_require_starttls(true); },
       false},
      {"DANE for the second alone", nullptr,
       [](auto& vmta) { Domain(vmta, "b.test").set_use_dane(true); }, false},
      {"DANE for the first alone", nullptr,
       [](auto& vmta) { Domain(vmta, "a.test").set_use_dane(true); }, false},
      {"MTA-STS for the second alone", nullptr,
       [](auto& vmta) { Domain(vmta, "b.test").set_use_mta_sts(true); }, false},
      {"MTA-STS for the first alone", nullptr,
       [](auto& vmta) { Domain(vmta, "a.test").set_use_mta_sts(true); }, false},
      // What was verified for the one domain says nothing of the other.
      {"DANE for both", nullptr, [](auto& vmta) { Domain(vmta, "*").set_use_dane(true); }, false},
      {"MTA-STS for both", nullptr, [](auto& vmta) { Domain(vmta, "*").set_use_mta_sts(true); },
       false},
      {"DANE said to be off", nullptr, [](auto& vmta) { Domain(vmta, "*").set_use_dane(false); },
       true},
      {"certificates that are verified", nullptr,
       [](auto& vmta) { Domain(vmta, "b.test").set_smtp_tls_ca_file("/ca.pem"); }, false},
      {"a client certificate", nullptr,
       [](auto& vmta) {
         Domain(vmta, "b.test").mutable_smtp_client_certificate()->set_file("/own.pem");
       },
       false},
      {"AUTH", nullptr, [](auto& vmta) { Domain(vmta, "b.test").set_auth_username("user"); },
       false},
      {"a fall back to clear text", nullptr,
       [](auto& vmta) { Domain(vmta, "b.test").set_tls_fallback(false); }, false},
      {"use of an extension", nullptr,
       [](auto& vmta) { Domain(vmta, "b.test").set_ignore_pipelining(true); }, false},
      {"port", nullptr, [](auto& vmta) { Domain(vmta, "b.test").set_default_smtp_port(26); },
       false},
      {"protocol", nullptr, [](auto& vmta) { Domain(vmta, "b.test").set_type("lmtp"); }, false},
      {"private addresses allowed for the first alone", nullptr,
       [](auto& vmta) { Domain(vmta, "a.test").set_allow_private_destinations(true); }, false},
      {"what concerns the queue alone", nullptr,
       [](auto& vmta) {
         Domain(vmta, "b.test").set_max_smtp_out(3);
         Domain(vmta, "a.test").set_bounce_after_us(1'000'000);
         Domain(vmta, "a.test").set_queue_priority(7);
       },
       true},
  };
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.what);
    World world([&each](auto& vmta) {
      if (each.vmta != nullptr) each.vmta(vmta);
    });
    if (each.world != nullptr) each.world(world);
    IdleConnection(world);
    world.executor.Advance(milliseconds(500));
    world.shard().Ready(2, 1, 0, "b.test");
    world.executor.RunPosted();
    EXPECT_EQ(world.sites.open.size(), each.reused ? 1u : 2u);
    EXPECT_EQ(world.worker->stats().reused, each.reused ? 1u : 0u);
  }
}

policy::v1::PolicySnapshot OneVmta(const std::function<void(policy::v1::QueueSettings&)>& set) {
  policy::v1::PolicySnapshot snapshot;
  static uint64_t version = 0;
  snapshot.set_version(++version);
  policy::v1::Section* section = snapshot.add_sections();
  section->set_name("vmta/v");
  auto* vmta = section->mutable_content()->mutable_virtual_mta();
  vmta->set_name("v");
  auto* host = vmta->add_source_hosts();
  host->set_ip("127.0.0.5");
  host->set_host_name("out5.example");
  set(*vmta->mutable_queue_defaults());
  return snapshot;
}

// After a reload no mail leaves by a connection that was made under other rules: in clear where TLS
// is required now, with another user, without the DANE that is wanted now. What is under way ends
// in good order.
TEST(WorkerSites, AReloadEndsConnectionsThatWereMadeOtherwise) {
  const struct {
    const char* what;
    std::function<void(policy::v1::QueueSettings&)> set;
    bool ends;
  } kCases[] = {
      {"nothing", [](auto&) {}, false},
      {"what concerns the queue alone", [](auto& s) { s.set_max_smtp_out(7); }, false},
      {"require-starttls", [](auto& s) { s.set_require_starttls(true); }, true},
      {"use-dane", [](auto& s) { s.set_use_dane(true); }, true},
      {"use-mta-sts", [](auto& s) { s.set_use_mta_sts(true); }, true},
      {"auth-username", [](auto& s) { s.set_auth_username("other"); }, true},
  };
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.what);
    World world(OneVmta([](auto&) {}));
    auto& remote = world.Connected(1);
    world.shard().Lease(11, 1);
    ASSERT_EQ(remote.under_way.size(), 1u);
    world.SetPolicy(OneVmta(each.set));
    world.executor.RunPosted();
    EXPECT_EQ(remote.quit, each.ends);
    remote.Answer(kDelivered);
    const auto said = world.Take();
    ASSERT_EQ(said.results_size(), 1) << "it was under way";
    EXPECT_EQ(said.results(0).outcome(), kDelivered);
    if (each.ends) remote.Close(true);
    world.shard().Ready(1, 1);
    world.executor.RunPosted();
    ASSERT_EQ(world.sites.open.size(), 1u);
    const ConnectTarget& target = world.sites.open[0]->target;
    policy::v1::QueueSettings wanted;
    each.set(wanted);
    EXPECT_EQ(target.settings->require_starttls(), each.ends && wanted.require_starttls());
    EXPECT_EQ(target.settings->use_dane(), wanted.use_dane());
  }
}

// One that was still being made when the rules changed is not used either.
TEST(WorkerSites, AReloadWhileItConnects) {
  World world(OneVmta([](auto&) {}));
  world.shard().Ready(1, 1);
  world.executor.RunPosted();
  ASSERT_EQ(world.sites.open.size(), 1u);
  world.SetPolicy(OneVmta([](auto& s) { s.set_require_starttls(true); }));
  world.executor.RunPosted();
  auto& remote = *world.sites.open[0];
  remote.greeted = true;
  remote.handler->OnReady();
  EXPECT_TRUE(remote.quit);
  EXPECT_EQ(Groups(world.Take()), 0u);
  remote.Close(true);
  world.executor.RunPosted();
  ASSERT_EQ(world.sites.open.size(), 1u);
  EXPECT_TRUE(world.sites.open[0]->target.settings->require_starttls());
}

policy::v1::PolicySnapshot TwoVmtas(const std::string& second_ip, const std::string& second_name) {
  return testing::VirtualMtas({"v", "w"}, [&](policy::v1::VirtualMtaSection& vmta) {
    const bool first = vmta.name() == "v";
    auto* host = vmta.add_source_hosts();
    host->set_ip(first ? "127.0.0.5" : second_ip);
    host->set_host_name(first ? "out5.example" : second_name);
  });
}

TEST(WorkerSites, VirtualMtasShareWhereSourceAndNameAreOne) {
  const struct {
    const char* ip;
    const char* name;
    bool reused;
  } kCases[] = {{"127.0.0.5", "out5.example", true},
                {"127.0.0.5", "other.example", false},
                {"127.0.0.6", "out5.example", false}};
  for (const auto& each : kCases) {
    SCOPED_TRACE(::testing::Message() << each.ip << " " << each.name);
    World world(TwoVmtas(each.ip, each.name));
    IdleConnection(world);
    world.executor.Advance(milliseconds(500));
    world.shard().Ready(2, 1, 0, "a.test", "w");
    world.executor.RunPosted();
    EXPECT_EQ(world.sites.open.size(), each.reused ? 1u : 2u);
    if (!each.reused) {
      EXPECT_EQ(world.sites.open[1]->target.ehlo_name, each.name);
    }
  }
}

// max-msg-per-connection counts what the connection has sent, for whomever.
TEST(WorkerSites, MessagesOfAConnectionStayWithIt) {
  World world([](auto& vmta) { vmta.mutable_queue_defaults()->set_max_msg_per_connection(2); });
  auto& remote = IdleConnection(world);
  world.executor.Advance(milliseconds(500));
  world.shard().Ready(2, 5, 0, "b.test");
  EXPECT_EQ(Groups(world.Take()), 1u);
  world.shard().Lease(12, 2);
  remote.Answer(kDelivered);
  EXPECT_TRUE(remote.quit);
}

// The rate is each queue's own: what the first sent takes nothing from the second.
TEST(WorkerSites, RatesStayWithTheQueue) {
  World world([](auto& vmta) {
    auto* rate = Domain(vmta, "b.test").mutable_max_msg_rate();
    rate->set_count(1);
    rate->set_period_us(1'000'000);
  });
  auto& remote = IdleConnection(world);
  world.executor.Advance(seconds(2));
  world.shard().Ready(2, 5, 0, "b.test");
  EXPECT_EQ(Groups(world.Take()), 1u);
  world.shard().Lease(12, 2);
  ASSERT_EQ(remote.under_way.size(), 1u);
  remote.Answer(kDelivered);
  EXPECT_EQ(Groups(world.Take()), 0u) << "the next one in a second";
}

// One that was used a moment ago is left to its queue: two queues would take it from each other.
TEST(WorkerSites, BusyQueuesKeepTheirConnections) {
  World world;
  IdleConnection(world);
  world.executor.Advance(milliseconds(20));
  world.shard().Ready(2, 1, 0, "b.test");
  world.executor.RunPosted();
  EXPECT_EQ(world.sites.open.size(), 2u);
  EXPECT_EQ(world.worker->stats().reused, 0u);
}

// With no place for a second connection, it goes over at once.
TEST(WorkerSites, TakenAtOnceWhereALimitIsReached) {
  World world([](auto& vmta) { vmta.set_max_smtp_out(1); });
  auto& remote = IdleConnection(world);
  world.shard().Ready(2, 1, 0, "b.test");
  world.executor.RunPosted();
  EXPECT_EQ(world.sites.open.size(), 1u);
  EXPECT_FALSE(remote.quit);
  EXPECT_EQ(world.worker->stats().reused, 1u);
}

// A connection that is of no use to the queue that waits makes room for one that is.
TEST(WorkerSites, IdleConnectionOfAnotherSiteMakesRoom) {
  World world([](auto& vmta) { vmta.set_max_smtp_out(1); });
  world.resolver.answers["b.test"] = world.resolver.answer;
  world.resolver.answers["b.test"].hosts = {{"mx9", 10, {"192.0.2.9"}}};
  world.resolver.answers["b.test"].site = "mx9";
  auto& remote = IdleConnection(world);
  world.shard().Ready(2, 1, 0, "b.test");
  world.executor.RunPosted();
  EXPECT_TRUE(remote.quit);
  remote.Close(true);
  world.executor.RunPosted();
  ASSERT_EQ(world.sites.open.size(), 1u);
  EXPECT_EQ(world.sites.open[0]->target.host, "mx9");
}

}  // namespace
}  // namespace sluice::delivery
