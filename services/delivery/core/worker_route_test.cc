// Where a queue's mail goes: directives about hosts, addresses, their order and their failures.
#include "services/config/queue_mark.h"
#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Groups;
using testing::World;

constexpr auto kTransient = queue::v1::RECIPIENT_OUTCOME_TRANSIENT;
constexpr auto kPermanent = queue::v1::RECIPIENT_OUTCOME_PERMANENT;
constexpr auto kNotAttempted = queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED;

policy::v1::QueueSettings& Queues(policy::v1::VirtualMtaSection& vmta) {
  return *vmta.mutable_queue_defaults();
}

// Only a route, or the directive, is consent to meet what is not public.
TEST(WorkerRoute, PrivateAddressesNeedConsent) {
  for (const char* address : {"10.0.0.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "::1",
                              "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "0.0.0.0", "fe80::1"}) {
    for (const bool from_dns : {true, false}) {  // false: [10.0.0.1] as the domain of a recipient
      SCOPED_TRACE(::testing::Message() << address << " from_dns " << from_dns);
      const bool v6 = std::string(address).find(':') != std::string::npos;
      const auto source = [v6](policy::v1::VirtualMtaSection& vmta) {
        if (v6) vmta.mutable_source_hosts(0)->set_ip("::1");
      };
      World refused(source);
      refused.resolver.answer.from_dns = from_dns;
      refused.resolver.answer.hosts = {{"mx1", 10, {address}}};
      refused.shard().Ready(1, 1);
      const queue::v1::DispatchRequest said = refused.Take();
      EXPECT_TRUE(refused.sites.open.empty());
      ASSERT_EQ(said.failures_size(), 1);
      EXPECT_EQ(said.failures(0).reply().enhanced(), "4.4.4");
      EXPECT_EQ(refused.worker->Status(false).private_destinations_refused_total(), 1u);

      World allowed([&](auto& vmta) {
        source(vmta);
        Queues(vmta).set_allow_private_destinations(true);
      });
      allowed.resolver.answer = refused.resolver.answer;
      allowed.shard().Ready(1, 1);
      allowed.Take();
      EXPECT_EQ(allowed.sites.open.size(), 1u);

      World routed([&](auto& vmta) {
        source(vmta);
        Queues(vmta).mutable_smtp_hosts()->add_values("inside.example");
      });
      routed.resolver.answer = refused.resolver.answer;
      routed.shard().Ready(1, 1);
      routed.Take();
      EXPECT_EQ(routed.sites.open.size(), 1u);
    }
  }
}

TEST(WorkerRoute, Ports) {
  const struct {
    const char* type;
    uint32_t said;  // 0: nothing
    uint16_t port;
  } kCases[] = {{"smtp", 0, 25}, {"smtp", 2525, 2525}, {"lmtp", 0, 24}, {"lmtp", 2424, 2424}};
  for (const auto& each : kCases) {
    SCOPED_TRACE(::testing::Message() << each.type << " " << each.said);
    World world([&](auto& vmta) {
      Queues(vmta).set_type(each.type);
      if (each.said != 0) Queues(vmta).set_default_smtp_port(each.said);
    });
    world.shard().Ready(1, 1);
    world.Take();
    ASSERT_EQ(world.sites.open.size(), 1u);
    EXPECT_EQ(world.sites.open[0]->target.port, each.port);
  }
}

// RFC 8314: 465 is TLS from the first byte, wherever the port was said.
TEST(WorkerRoute, Port465IsImplicitTls) {
  const struct {
    const char* route;  // null: by MX
    uint32_t default_port;
    uint16_t port;
  } kCases[] = {{nullptr, 465, 465},
                {nullptr, 587, 587},
                {"smart.example:465", 25, 465},
                {"smart.example:587", 465, 587},
                {"smart.example", 465, 465}};
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.route == nullptr ? "mx" : each.route);
    World world([&](auto& vmta) {
      Queues(vmta).set_default_smtp_port(each.default_port);
      if (each.route != nullptr) Queues(vmta).mutable_smtp_hosts()->add_values(each.route);
    });
    world.shard().Ready(1, 1);
    world.Take();
    ASSERT_EQ(world.sites.open.size(), 1u);
    EXPECT_EQ(world.sites.open[0]->target.port, each.port);
    EXPECT_EQ(world.sites.open[0]->target.tls.implicit, each.port == 465);
  }
}

TEST(WorkerRoute, ASourceHasItsOwnUseStarttls) {
  for (const std::optional<bool> said :
       {std::optional<bool>(), std::optional(true), std::optional(false)}) {
    World world([](auto&) {},
                [&](auto& source) {
                  if (said) source.set_use_starttls(*said);
                });
    world.shard().Ready(1, 1);
    world.Take();
    ASSERT_EQ(world.sites.open.size(), 1u);
    EXPECT_EQ(world.sites.open[0]->target.tls.use_starttls, said);
  }
}

// RFC 8460 section 3: a report goes out although TLS fails that it may be about.
TEST(WorkerRoute, ReportsOnTlsAreHeldToNoPolicyOfTls) {
  World world([](auto& vmta) {
    Queues(vmta).set_use_dane(true);
    Queues(vmta).set_use_mta_sts(true);
    Queues(vmta).set_require_starttls(true);
    Queues(vmta).set_use_starttls(true);
  });
  world.resolver.answers["strict.test"] = world.resolver.answer;
  world.resolver.answers["strict.test"].hosts = {{"mx.strict", 10, {"192.0.2.9"}}};
  world.shard().Ready(1, 1, 0, "strict.test");
  world.shard().Ready(2, 1, 0, std::string(config::kTlsReportMark) + "strict.test");
  world.Take();
  ASSERT_EQ(world.sites.open.size(), 2u);
  for (const bool report : {false, true}) {
    const ConnectTarget& target = world.sites.open[report ? 1 : 0]->target;
    EXPECT_EQ(target.host, "mx.strict");
    EXPECT_EQ(target.route.domain, "strict.test");
    EXPECT_EQ(target.settings->use_dane(), !report);
    EXPECT_EQ(target.settings->use_mta_sts(), !report);
    EXPECT_EQ(target.settings->require_starttls(), !report);
    EXPECT_TRUE(target.settings->use_starttls());
  }
}

TEST(WorkerRoute, BounceUponNoMx) {
  const struct {
    int64_t setting_us;
    bool permanent;
    int64_t after_us;
  } kCases[] = {{0, false, 0}, {1, true, 0}, {3'600'000'000, true, 3'600'000'000}};
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.setting_us);
    World world([&](auto& vmta) { Queues(vmta).set_bounce_upon_no_mx_after_us(each.setting_us); });
    world.resolver.answer.outcome = MxOutcome::kNoAddress;
    world.shard().Ready(1, 1);
    const queue::v1::DispatchRequest said = world.Take();
    ASSERT_EQ(said.failures_size(), 1);
    EXPECT_TRUE(said.failures(0).dns());
    EXPECT_EQ(said.failures(0).permanent(), each.permanent);
    EXPECT_EQ(said.failures(0).permanent_after_us(), each.after_us);
  }
}

TEST(WorkerRoute, MxConnectionAttemptsEndTheSearch) {
  World world([](auto& vmta) { Queues(vmta).set_mx_connection_attempts(2); });
  world.resolver.answer.hosts = {
      {"mx1", 10, {"192.0.2.1"}}, {"mx2", 20, {"192.0.2.2"}}, {"mx3", 30, {"192.0.2.3"}}};
  world.shard().Ready(1, 1);
  world.Take();
  world.sites.open[0]->Close(false);
  ASSERT_EQ(world.sites.open.size(), 1u);
  EXPECT_EQ(world.sites.open[0]->target.host, "mx2");
  world.sites.open[0]->Close(false);
  EXPECT_TRUE(world.sites.open.empty());
  EXPECT_EQ(world.Take().failures_size(), 1);
}

TEST(WorkerRoute, DnsTimeoutPutsTheQueueInRetry) {
  World world([](auto& vmta) { Queues(vmta).set_dns_timeout_us(3'000'000); });
  world.resolver.hold = true;
  world.shard().Ready(1, 1);
  world.executor.Advance(milliseconds(2900));
  EXPECT_EQ(world.Take().failures_size(), 0);
  world.executor.Advance(milliseconds(200));
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.failures_size(), 1);
  EXPECT_TRUE(said.failures(0).dns());
  EXPECT_FALSE(said.failures(0).permanent());
  EXPECT_EQ(said.failures(0).reply().enhanced(), "4.4.3");
  // The answer that comes after all is nobody's; the next one is its own lookup's.
  world.shard().Ready(2, 1);
  world.executor.RunPosted();
  world.resolver.AnswerOldest();
  world.executor.RunPosted();
  EXPECT_TRUE(world.sites.open.empty());
  world.resolver.AnswerOldest();
  world.executor.RunPosted();
  EXPECT_EQ(world.sites.open.size(), 1u);
}

// Which of two equal hosts each of six queues begins with.
std::vector<std::string> FirstHosts(bool rotate) {
  World world([rotate](auto& vmta) { Queues(vmta).set_dns_rotate(rotate); });
  world.resolver.answer.hosts = {{"mx1", 10, {"192.0.2.1"}}, {"mx2", 10, {"192.0.2.2"}}};
  for (uint64_t i = 0; i < 6; ++i) world.shard().Ready(i, 1, 0, "d" + std::to_string(i) + ".test");
  world.executor.RunPosted();
  std::vector<std::string> hosts;
  for (const auto* remote : world.sites.open) hosts.push_back(remote->target.host);
  return hosts;
}

TEST(WorkerRoute, DnsRotateTakesEqualHostsInTurn) {
  const std::vector<std::string> rotated = FirstHosts(true);
  EXPECT_EQ(std::count(rotated.begin(), rotated.end(), "mx1"), 3);
  EXPECT_EQ(std::count(rotated.begin(), rotated.end(), "mx2"), 3);
  EXPECT_EQ(FirstHosts(false), std::vector<std::string>(6, "mx1"));
}

// What a 421 leaves unsaid is looked for in what the remote refused before it.
TEST(WorkerRoute, ReplaceSmtp421ServiceResponse) {
  for (const bool replace : {false, true}) {
    SCOPED_TRACE(replace);
    World world([&](auto& vmta) {
      Queues(vmta).set_replace_smtp_421_service_response(replace);
      Queues(vmta).set_max_smtp_out(1);
    });
    testing::FakeSites::Remote& remote = world.Connected(5);
    uint64_t lease = 0;
    const auto result = [&](uint32_t code) {
      world.shard().Lease(++lease, 1);
      world.Take();
      remote.Answer(code < 500 ? kTransient : kPermanent, code);
      const queue::v1::DispatchRequest said = world.Take();
      EXPECT_EQ(said.results_size(), 1);
      return said.results(0);
    };
    // Nothing was refused yet.
    EXPECT_EQ(result(421).reply().code(), 421u);
    EXPECT_EQ(result(550).reply().code(), 550u);
    const queue::v1::GroupResult deferred = result(421);
    EXPECT_EQ(deferred.reply().code(), replace ? 550u : 421u);
    EXPECT_EQ(deferred.outcome(), kTransient);
    EXPECT_EQ(result(450).reply().code(), 450u);
    EXPECT_EQ(result(421).reply().code(), replace ? 450u : 421u);
  }
}

// A host that said 421 is left for the next one, at once, and comes back after a minute.
TEST(WorkerRoute, Smtp421MeansMxUnavailable) {
  World world([](auto& vmta) { Queues(vmta).set_smtp_421_means_mx_unavailable(true); });
  auto& remote = world.Connected();
  world.shard().Lease(11, 1);
  remote.Answer(kTransient, 421);
  queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.results_size(), 1);
  EXPECT_EQ(said.results(0).outcome(), kNotAttempted);
  remote.Close(true, 421);
  EXPECT_EQ(world.Take().failures_size(), 0) << "mx2 may still take it";
  world.shard().Ready(2, 1);
  world.executor.RunPosted();
  ASSERT_EQ(world.sites.open.size(), 1u);
  EXPECT_EQ(world.sites.open[0]->target.host, "mx2");
  // Where that one, too, says so, the queue waits.
  world.GreetAll();
  world.shard().Lease(12, 2);
  world.sites.open[0]->Answer(kTransient, 421);
  world.sites.open[0]->Close(true, 421);
  world.shard().Ready(3, 2);
  said = world.Take();
  EXPECT_EQ(said.failures_size(), 1) << said.DebugString();
  EXPECT_TRUE(world.sites.open.empty());
  world.executor.Advance(seconds(61));
  world.shard().Ready(4, 2);
  world.executor.RunPosted();
  ASSERT_EQ(world.sites.open.size(), 1u);
  EXPECT_EQ(world.sites.open[0]->target.host, "mx1");
}

// RFC 5321 section 4.5.3.1.10: who found no room in a transaction goes in the next one, at once,
// and that is no longer than what the host took.
TEST(WorkerRoute, RecipientsThatATransactionHadNoRoomFor) {
  const struct {
    uint32_t code;
    const char* enhanced;
    const char* text;
    bool room_later;
  } kCases[] = {{452, "4.5.3", "slow down", true},
                {452, "", "Too many recipients", true},
                {552, "5.5.3", "too many recipients", true},
                {552, "", "Too Many Recipients received", true},
                {452, "4.2.2", "too many recipients have full mailboxes", false},
                {452, "", "insufficient storage", false},
                {552, "", "mailbox full", false},
                {550, "5.1.1", "no such user", false}};
  for (const auto& each : kCases) {
    for (const bool delivered : {true, false}) {
      SCOPED_TRACE(::testing::Message() << each.code << " " << each.text << " " << delivered);
      World world;
      auto& remote = world.Connected(9);
      world.Take();
      world.shard().Lease(11, 1, 6);
      const auto refused = each.code >= 500 ? kPermanent : kTransient;
      queue::v1::GroupResult result;
      result.set_lease_id(remote.under_way.front().lease->lease_id());
      remote.under_way.clear();
      result.set_outcome(delivered ? queue::v1::RECIPIENT_OUTCOME_DELIVERED : kTransient);
      result.mutable_reply()->set_code(delivered ? 250 : 451);
      result.mutable_reply()->set_stage(common::v1::STAGE_FINAL_DOT);
      for (uint32_t position : {3U, 4U}) {
        auto* own = result.add_recipients();
        own->set_position(position);
        own->set_outcome(refused);
        own->mutable_reply()->set_code(each.code);
        own->mutable_reply()->set_enhanced(each.enhanced);
        own->mutable_reply()->set_text(each.text);
        own->mutable_reply()->set_stage(common::v1::STAGE_RCPT);
      }
      // The last one was not named any more.
      auto* unsaid = result.add_recipients();
      unsaid->set_position(5);
      unsaid->set_outcome(kNotAttempted);
      unsaid->mutable_reply()->set_local(true);
      unsaid->mutable_reply()->set_stage(common::v1::STAGE_RCPT);
      remote.handler->OnResult(std::move(result));
      const queue::v1::DispatchRequest said = world.Take();
      ASSERT_EQ(said.results_size(), 1);
      const bool back = each.room_later && delivered;
      for (const auto& own : said.results(0).recipients()) {
        EXPECT_EQ(own.outcome(), back || own.position() == 5 ? kNotAttempted : refused);
      }
      EXPECT_NE(said.results(0).outcome(), kNotAttempted);
      ASSERT_GT(said.credits_size(), 0);
      EXPECT_EQ(said.credits(0).max_recipients(), each.room_later ? 3u : 0u);
    }
  }
}

// RFC 5321 section 5.1: the next host, where one takes no envelope to its end; not where it has
// said something, nor once it may have the text.
TEST(WorkerRoute, AHostThatBreaksOffIsLeftForTheNextOne) {
  World world;
  const auto broken = [](common::v1::Stage stage, const char* enhanced = "4.4.2") {
    common::v1::Reply reply;
    reply.set_local(true);
    reply.set_enhanced(enhanced);
    reply.set_stage(stage);
    reply.set_text("the remote closed the connection");
    return reply;
  };
  auto& first = world.Connected();
  world.shard().Lease(11, 1);
  first.Answer(kTransient, broken(common::v1::STAGE_MAIL));
  queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.results_size(), 1);
  EXPECT_EQ(said.results(0).outcome(), kNotAttempted);
  first.Close(true);
  EXPECT_EQ(world.Take().failures_size(), 0);
  world.shard().Ready(2, 1);
  world.executor.RunPosted();
  ASSERT_EQ(world.sites.open.size(), 1u);
  auto& second = *world.sites.open[0];
  EXPECT_EQ(second.target.host, "mx2");
  world.GreetAll();
  // The message breaks this one, too, and is put off by itself.
  world.shard().Lease(12, 2);
  second.Answer(kTransient, broken(common::v1::STAGE_RCPT, "4.5.0"));
  said = world.Take();
  ASSERT_EQ(said.results_size(), 1);
  EXPECT_EQ(said.results(0).outcome(), kTransient);
  second.Close(true);

  for (const auto stage : {common::v1::STAGE_BODY, common::v1::STAGE_FINAL_DOT}) {
    World other;
    auto& remote = other.Connected();
    other.shard().Lease(11, 1);
    remote.Answer(kTransient, broken(stage));
    EXPECT_EQ(other.Take().results(0).outcome(), kTransient) << stage;
  }
  World other;
  auto& remote = other.Connected();
  other.shard().Lease(11, 1);
  remote.Answer(queue::v1::RECIPIENT_OUTCOME_DELIVERED, 250);
  other.shard().Lease(12, 1);
  remote.Answer(kTransient, broken(common::v1::STAGE_MAIL));
  EXPECT_EQ(other.Take().results(1).outcome(), kTransient) << "it takes mail";
}

TEST(WorkerRoute, Without421MeansNothingSpecial) {
  World world;
  auto& remote = world.Connected();
  world.shard().Lease(11, 1);
  remote.Answer(kTransient, 421);
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.results_size(), 1);
  EXPECT_EQ(said.results(0).outcome(), kTransient);
}

// All hosts greet with a 5xx: the mail bounces, unless told otherwise, or one host only was away.
TEST(WorkerRoute, BounceUpon5xxGreeting) {
  const struct {
    bool bounce;
    uint32_t first;
    bool permanent;
  } kCases[] = {{true, 554, true}, {false, 554, false}, {true, 0, false}, {true, 421, false}};
  for (const auto& each : kCases) {
    SCOPED_TRACE(::testing::Message() << each.bounce << " " << each.first);
    World world([&](auto& vmta) { Queues(vmta).set_bounce_upon_5xx_greeting(each.bounce); });
    world.shard().Ready(1, 1);
    world.Take();
    world.sites.open[0]->Close(false, each.first);
    world.sites.open[0]->Close(false, 554, "go away");
    const queue::v1::DispatchRequest said = world.Take();
    ASSERT_EQ(said.failures_size(), 1);
    EXPECT_EQ(said.failures(0).permanent(), each.permanent);
    EXPECT_EQ(said.failures(0).reply().code(), 554u);
  }
}

TEST(WorkerRoute, MaxErrorsPerConnection) {
  World world([](auto& vmta) { Queues(vmta).set_max_errors_per_connection(2); });
  auto& remote = world.Connected();
  world.shard().Lease(11, 1);
  world.Take();
  EXPECT_EQ(remote.under_way.front().most_errors, 2u);  // the session holds it within a group
  remote.Answer(kPermanent);
  EXPECT_FALSE(remote.quit);
  EXPECT_EQ(Groups(world.Take()), 1u);
  world.shard().Lease(12, 1);
  remote.Answer(kTransient, 450);
  EXPECT_TRUE(remote.quit);
  EXPECT_EQ(Groups(world.Take()), 0u);
}

// A group that was cut because one more refusal was the last that there was room for: the others go
// by a new connection. By LMTP, and where there is room for one alone, groups are made to fit.
TEST(WorkerRoute, AGroupThatFoundNoRoomForErrorsEndsItsConnection) {
  for (const bool refused : {true, false}) {
    World world([](auto& vmta) { Queues(vmta).set_max_errors_per_connection(2); });
    auto& remote = world.Connected(3);
    world.shard().Lease(11, 1, 3);
    world.Take();
    queue::v1::GroupResult result;
    result.set_lease_id(remote.under_way.front().lease->lease_id());
    result.set_outcome(queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
    result.mutable_reply()->set_stage(common::v1::STAGE_RCPT);
    result.mutable_reply()->set_local(true);
    if (refused) {
      auto* own = result.add_recipients();
      own->set_outcome(kPermanent);
      own->mutable_reply()->set_code(550);
      own->mutable_reply()->set_stage(common::v1::STAGE_RCPT);
    }
    remote.under_way.clear();
    remote.handler->OnResult(std::move(result));
    EXPECT_EQ(remote.quit, refused);
  }
  for (const bool lmtp : {true, false}) {
    for (const uint32_t most : {0u, 1u, 7u}) {
      World world([&](auto& vmta) {
        Queues(vmta).set_max_errors_per_connection(most);
        if (lmtp) Queues(vmta).set_type("lmtp");
      });
      world.shard().Ready(1, 3);
      world.Take();
      world.sites.open[0]->handler->OnReady();
      const queue::v1::DispatchRequest said = world.Take();
      ASSERT_EQ(said.credits_size(), 1);
      EXPECT_EQ(said.credits(0).max_recipients(), lmtp || most == 1 ? most : 0u);
    }
  }
}

// Each recipient's own refusal is an error, however alike they are; one of MAIL or of the text is
// one; what was refused here is none.
TEST(WorkerRoute, ErrorsOfAConnectionAreReplies) {
  const struct {
    common::v1::Stage stage;
    bool local;
    queue::v1::RecipientOutcome outcome;
    uint32_t most_that_ends_it;
  } kCases[] = {{common::v1::STAGE_RCPT, false, kPermanent, 3},
                {common::v1::STAGE_MAIL, false, kTransient, 1},
                {common::v1::STAGE_FINAL_DOT, false, kPermanent, 1},
                {common::v1::STAGE_MAIL, true, kPermanent, 0}};
  for (const auto& each : kCases) {
    for (const uint32_t most : {1U, 3U, 4U}) {
      SCOPED_TRACE(::testing::Message() << each.stage << " " << most);
      World world([&](auto& vmta) { Queues(vmta).set_max_errors_per_connection(most); });
      auto& remote = world.Connected(3);
      world.shard().Lease(11, 1, 3);
      world.Take();
      queue::v1::GroupResult result;
      result.set_lease_id(remote.under_way.front().lease->lease_id());
      result.set_outcome(each.outcome);
      result.mutable_reply()->set_stage(each.stage);
      result.mutable_reply()->set_local(each.local);
      remote.under_way.clear();
      remote.handler->OnResult(std::move(result));
      EXPECT_EQ(remote.quit, most <= each.most_that_ends_it);
    }
  }
}

TEST(WorkerRoute, RampUpOpensOneConnectionAnInterval) {
  World world([](auto& vmta) {
    Queues(vmta).set_smtp_out_rampup_interval_us(10'000'000);
    Queues(vmta).set_connection_idle_timeout_us(3'600'000'000);
  });
  world.Connected(1000);
  EXPECT_EQ(world.sites.open.size(), 1u);
  for (size_t connections = 2; connections <= 4; ++connections) {
    world.executor.Advance(milliseconds(9800));
    world.GreetAll();
    EXPECT_EQ(world.sites.open.size(), connections - 1);
    world.executor.Advance(milliseconds(200));
    EXPECT_EQ(world.sites.open.size(), connections);
    world.GreetAll();
  }
}

// random-ip: any source, where they otherwise take turns.
TEST(WorkerRoute, SourcesInTurnOrAtRandom) {
  for (const bool random : {false, true}) {
    SCOPED_TRACE(random);
    World world([&](auto& vmta) {
      vmta.set_random_ip(random);
      for (int i = 6; i < 9; ++i) vmta.add_source_hosts()->set_ip("127.0.0." + std::to_string(i));
    });
    world.Connected(1000);
    for (int round = 0; round < 20 && world.sites.open.size() < 16; ++round) {
      world.GreetAll();
      world.executor.RunPosted();
    }
    std::map<std::string, int> used;
    std::string order;
    for (const auto& remote : world.sites.open) {
      ++used[remote->target.source_ip];
      order += remote->target.source_ip.back();
    }
    const size_t connections = world.sites.open.size();
    ASSERT_GE(connections, 16u);
    EXPECT_EQ(used.size(), 4u);
    bool in_turn = true;
    for (size_t i = 4; i < order.size(); ++i) in_turn &= order[i] == order[i - 4];
    EXPECT_EQ(in_turn, !random) << order;
  }
}

// A source that this machine lacks, or whose proxy does not work, is left alone for a minute; mail
// goes by the others meanwhile, and waits where there is none.
TEST(WorkerRoute, ASourceThatDoesNotWorkIsSuspended) {
  for (const bool another : {true, false}) {
    World world([another](auto& vmta) {
      if (another) vmta.add_source_hosts()->set_ip("127.0.0.6");
    });
    world.shard().Ready(1, 1, 0, "first.test");  // takes the second source's turn
    world.Take();
    while (!world.sites.open.empty()) world.sites.open[0]->Close(false);
    world.shard().Ready(2, 1);
    world.Take();
    ASSERT_EQ(world.sites.open.size(), 1u);
    ASSERT_EQ(world.sites.open[0]->target.source_ip, "127.0.0.5");
    ConnectionEnd end;
    end.source_missing = true;
    end.reply.set_stage(common::v1::STAGE_CONNECT);
    end.reply.set_text("no such address");
    world.sites.open[0]->handler->OnClosed(std::move(end));
    world.executor.RunPosted();
    ASSERT_EQ(world.sites.open.size(), another ? 1u : 0u) << "no other host is tried from it";
    if (another) {
      EXPECT_EQ(world.sites.open[0]->target.source_ip, "127.0.0.6");
    }
    EXPECT_EQ(world.worker->Status(false).sources(0).suspended_reason(),
              "this machine lacks 127.0.0.5");
    EXPECT_EQ(world.Take().failures_size(), 0) << "its hosts have done nothing";
    // Each source has its turn.
    world.shard().Ready(3, 1, 0, "b.test");
    world.shard().Ready(4, 1, 0, "c.test");
    world.executor.Advance(seconds(50));
    ASSERT_EQ(world.sites.open.size(), another ? 3u : 0u);
    if (another) {
      for (const auto* each : world.sites.open) EXPECT_EQ(each->target.source_ip, "127.0.0.6");
      continue;
    }
    const queue::v1::DispatchRequest said = world.Take();
    ASSERT_EQ(said.blocked_size(), 2) << "once each";
    EXPECT_EQ(said.blocked(0).limit(),
              "every source of the virtual MTA is suspended: 127.0.0.5: this machine lacks "
              "127.0.0.5");
    EXPECT_TRUE(said.blocked(0).in_line());
    EXPECT_GT(said.blocked(0).until_unix_us(), 0);
    world.executor.Advance(seconds(11));
    ASSERT_EQ(world.sites.open.size(), 3u);
    EXPECT_EQ(world.sites.open[0]->target.source_ip, "127.0.0.5");
  }
}

// public-ip
TEST(WorkerRoute, WhatTheWorldSeesOfASourceIsRecorded) {
  World world([](auto&) {}, [](auto& source) { source.set_public_ip("198.51.100.9"); });
  auto& remote = world.Connected(5);
  world.Take();
  world.shard().Lease(1, 1);
  world.executor.RunPosted();
  remote.Answer(queue::v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  const auto said = world.Take();
  ASSERT_EQ(said.results_size(), 1);
  EXPECT_EQ(said.results(0).attempt().source_public_ip(), "198.51.100.9");
}

}  // namespace
}  // namespace sluice::delivery
