// <mx-rollup-list>: domains whose best MX matches a line share limits, settings and mode, and each
// domain's mail goes to its own hosts.
#include <map>

#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeSites;
using testing::World;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;
constexpr auto kTransient = queue::v1::RECIPIENT_OUTCOME_TRANSIENT;

using Settings = policy::v1::QueueSettings;
using Adjust = std::function<void(Settings&)>;

// Domains with an MX in big.example are rolled up as big.rollup; `own`: one with settings of its
// own, of which it is said by `alone` that it is not.
policy::v1::PolicySnapshot Snapshot(
    const Adjust& rollup, const std::string& own = "",
    const Adjust& alone = [](auto& settings) { settings.set_disable_mx_rollup(true); }) {
  policy::v1::PolicySnapshot snapshot;
  snapshot.set_version(1);
  const auto section = [&](const std::string& name) -> policy::v1::SectionContent& {
    auto* made = snapshot.add_sections();
    made->set_name(name);
    return *made->mutable_content();
  };
  auto* vmta = section("vmta/v").mutable_virtual_mta();
  vmta->set_name("v");
  auto* host = vmta->add_source_hosts();
  host->set_ip("127.0.0.5");
  host->set_host_name("out.example");
  auto* domain = section("domain/big.rollup").mutable_domain();
  domain->set_pattern("big.rollup");
  rollup(*domain->mutable_settings());
  if (!own.empty()) {
    auto* named = section("domain/" + own).mutable_domain();
    named->set_pattern(own);
    alone(*named->mutable_settings());
  }
  auto* entry = section("mx-rollup").mutable_mx_rollup()->add_entries();
  entry->set_mx("*.big.example");
  entry->set_queue("big.rollup");
  return snapshot;
}

class RollupTest : public ::testing::Test {
 protected:
  void Begin(const Adjust& rollup) { Begin(Snapshot(rollup)); }
  void Begin(const policy::v1::PolicySnapshot& snapshot, size_t shard_count = 1) {
    world_ = std::make_unique<World>(snapshot, false, shard_count);
    Route("a.test", "a-test.mx.big.example", "198.51.100.1");
    Route("b.test", "b-test.mx.big.example", "198.51.100.2");
    Route("c.test", "mx.small.example", "198.51.100.3");
  }
  void Route(const std::string& domain, const std::string& host, const std::string& address) {
    MxResult result = world_->resolver.answer;
    result.hosts = {{host, 10, {address}}, {"backup.other.example", 20, {"198.51.100.99"}}};
    result.site = host;
    result.from_dns = true;
    world_->resolver.answers[domain] = result;
  }
  void Ready(uint64_t ref, const std::string& domain, uint32_t due = 100,
             const std::string& rollup = {}) {
    world_->shard().Ready(ref, due, 0, domain, "v", rollup);
    Read();
  }
  // What the worker said, kept.
  void Read() {
    world_->executor.RunPosted();
    const auto said = world_->Take();
    for (const auto& rollup : said.rollups()) rollups_[rollup.queue_ref()] = rollup.rollup();
    for (const auto& blocked : said.blocked()) blocked_[blocked.queue_ref()] = blocked.limit();
    for (const auto& credit : said.credits()) credits_[credit.queue_ref()] += credit.groups();
    for (const auto& mode : said.modes()) modes_[mode.queue_ref()] = mode.mode().backoff();
  }
  // Leases for each credit, and delivers, for so long; how many connections there were at most.
  size_t Deliver(Duration time) {
    size_t most = 0;
    const MonotonicTime end = world_->executor.clock().Now() + time;
    while (world_->executor.clock().Now() < end) {
      world_->GreetAll();
      Read();
      for (auto& [ref, groups] : credits_) {
        for (; groups > 0; --groups) world_->shard().Lease(++lease_, ref);
      }
      most = std::max(most, world_->sites.open.size());
      for (size_t i = 0; i < world_->sites.open.size(); ++i) {
        auto* remote = world_->sites.open[i];
        if (!remote->under_way.empty()) {
          ++delivered_[remote->target.address];
          remote->Answer(kDelivered);
        } else if (remote->quit) {
          remote->Close(true);
        }
      }
      world_->executor.Advance(milliseconds(50));
    }
    return most;
  }

  std::unique_ptr<World> world_;
  std::map<uint64_t, std::string> rollups_;
  std::map<uint64_t, std::string> blocked_;
  std::map<uint64_t, uint32_t> credits_;
  std::map<uint64_t, bool> modes_;
  std::map<std::string, int> delivered_;  // by address
  uint64_t lease_ = 100;
};

TEST_F(RollupTest, ConnectionsAreSharedAndEachDomainsMailGoesToItsOwnHosts) {
  Begin([](Settings& settings) { settings.set_max_smtp_out(1); });
  Ready(1, "a.test");
  Ready(2, "b.test");
  EXPECT_EQ(rollups_[1], "big.rollup");
  EXPECT_EQ(rollups_[2], "big.rollup");
  EXPECT_EQ(Deliver(seconds(60)), 1U);
  EXPECT_GT(delivered_["198.51.100.1"], 0);
  EXPECT_GT(delivered_["198.51.100.2"], 0) << "its turn comes";
  EXPECT_EQ(delivered_["198.51.100.99"], 0);
}

TEST_F(RollupTest, WhoAnnouncesItLaterIsToldToo) {
  Begin([](Settings& settings) { settings.set_max_smtp_out(1); });
  Ready(1, "a.test");
  EXPECT_EQ(rollups_[1], "big.rollup");
  Ready(7, "a.test");  // as another shard does
  EXPECT_EQ(rollups_[7], "big.rollup");
}

TEST_F(RollupTest, AnotherMxAndADomainThatIsLeftOutHaveLimitsOfTheirOwn) {
  Begin(Snapshot([](Settings& settings) { settings.set_max_smtp_out(1); }, "b.test"));
  Ready(1, "a.test");
  Ready(2, "b.test", 1);
  Ready(3, "c.test", 1);
  EXPECT_EQ(rollups_.size(), 1U);
  EXPECT_EQ(Deliver(seconds(1)), 3U);
}

TEST_F(RollupTest, TheRateIsOfAllOfThemTogether) {
  Begin([](Settings& settings) {
    settings.mutable_max_msg_rate()->set_count(5);
    settings.mutable_max_msg_rate()->set_period_us(1'000'000);
  });
  Ready(1, "a.test", 10'000);
  Ready(2, "b.test", 10'000);
  Deliver(seconds(30));
  std::vector<MonotonicTime> sent;
  for (const auto& each : world_->sites.sends) sent.push_back(each.when);
  EXPECT_GE(sent.size(), 100U);
  for (size_t i = 5; i < sent.size(); ++i) EXPECT_GE(sent[i] - sent[i - 5], seconds(1));
  EXPECT_GT(delivered_["198.51.100.1"], 20);
  EXPECT_GT(delivered_["198.51.100.2"], 20);
}

void Limit(policy::v1::ClusterRate* said, uint64_t count, Duration period) {
  said->mutable_rate()->set_count(count);
  said->mutable_rate()->set_period_us(static_cast<uint64_t>(period.count()));
}

// <limits> of the rollup's name is about all of its domains together, and a domain's own holds
// beside it.
TEST_F(RollupTest, LimitsOfTheRollupAndOfADomainHoldBesideEachOther) {
  Begin(Snapshot(
      [](Settings& settings) { Limit(settings.mutable_domain_throttle(), 4, seconds(2)); },
      "a.test",
      [](Settings& settings) { Limit(settings.mutable_domain_throttle(), 3, seconds(6)); }));
  Ready(1, "a.test", 10'000);
  Ready(2, "b.test", 10'000);
  Ready(3, "c.test", 10'000);
  Deliver(seconds(60));
  EXPECT_EQ(rollups_[1], "big.rollup");
  const int a = delivered_["198.51.100.1"];
  const int b = delivered_["198.51.100.2"];
  // 30 s of each limit: what the domain may, and together what the rollup may.
  EXPECT_LE(a, 30 + 1);
  EXPECT_GE(a, 20) << "its own limit lets it";
  EXPECT_LE(a + b, 120 + 1);
  EXPECT_GE(a + b, 100) << "what the one may not is the other's";
  EXPECT_GT(delivered_["198.51.100.3"], 200) << "no domain of the rollup";
}

// error-throttle of the rollup: a reply to one domain's mail slows all of them down, and a reply
// without such a code nobody.
TEST_F(RollupTest, ARepliesThrottleOfTheRollupIsOfAllOfThem) {
  Begin([](Settings& settings) {
    Limit(settings.mutable_domain_error_throttle(), 1, seconds(10));
    settings.mutable_domain_error_throttle()->add_codes("5xx");
    settings.set_max_smtp_out(1);
  });
  const auto refuse = [this](uint32_t code) {
    Ready(1, "a.test", 1);
    world_->GreetAll();
    Read();
    world_->shard().Lease(++lease_, 1);
    if (credits_[1] > 0) --credits_[1];
    world_->executor.RunPosted();
    for (auto* remote : world_->sites.open) {
      if (remote->under_way.empty()) continue;
      remote->Answer(kTransient, code, "no");
      break;
    }
    Read();
  };
  refuse(450);
  Ready(2, "b.test", 10'000);
  Deliver(seconds(2));
  const int before = delivered_["198.51.100.2"];
  EXPECT_GT(before, 20) << "450 is none of its codes";
  refuse(550);
  Deliver(seconds(9));
  EXPECT_LE(delivered_["198.51.100.2"] - before, 3) << "with what was under way";
  Deliver(seconds(3));
  EXPECT_GT(delivered_["198.51.100.2"] - before, 20) << "its time has passed";
}

TEST_F(RollupTest, BackoffModeIsOfAllOfThem) {
  Begin([](Settings& settings) {
    settings.mutable_backoff_trigger_patterns()->add_values("/slow down/");
    settings.set_max_smtp_out(10);
    settings.set_backoff_max_smtp_out(1);
  });
  Ready(1, "a.test", 3);
  Ready(2, "b.test", 3);
  EXPECT_GT(Deliver(seconds(1)), 1U);
  Ready(1, "a.test", 3);
  world_->GreetAll();
  Read();
  ASSERT_GT(credits_[1], 0U);
  --credits_[1];
  world_->shard().Lease(++lease_, 1);
  world_->executor.RunPosted();
  for (auto* remote : world_->sites.open) {
    if (!remote->under_way.empty()) {
      remote->Answer(kTransient, 421, "4.7.0 slow down");
      break;
    }
  }
  Read();
  EXPECT_TRUE(modes_[1]);
  EXPECT_TRUE(modes_[2]) << "its shard hears of it";
  Deliver(seconds(5));
  EXPECT_LE(world_->sites.open.size(), 1U);
  // One that comes later is in it, too.
  Route("d.test", "d-test.mx.big.example", "198.51.100.4");
  Ready(4, "d.test", 1);
  EXPECT_TRUE(modes_[4]);
}

TEST_F(RollupTest, EveryLimitIsOfAllOfThem) {
  Begin([](Settings& settings) {
    auto* connects = settings.mutable_max_connect_rate();
    connects->set_count(1);
    connects->set_period_us(1'000'000);
    settings.set_max_msg_per_connection(1);
    auto* volume = settings.mutable_max_data_volume_rate();
    volume->set_count(10'000);
    volume->set_period_us(60'000'000);
  });
  world_->shard().edit = [](queue::v1::Lease& lease) {
    lease.mutable_message()->set_body_size(1000);
  };
  Ready(1, "a.test");
  Ready(2, "b.test");
  Deliver(seconds(250));
  std::vector<MonotonicTime> connects = world_->sites.connects;
  ASSERT_GT(connects.size(), 10U);
  for (size_t i = 1; i < connects.size(); ++i) {
    EXPECT_GE(connects[i] - connects[i - 1], seconds(1));
  }
  std::vector<MonotonicTime> sent;
  for (const auto& each : world_->sites.sends) sent.push_back(each.when);
  ASSERT_GT(sent.size(), 10U);
  for (size_t i = 10; i < sent.size(); ++i) EXPECT_GE(sent[i] - sent[i - 10], seconds(60));
}

TEST_F(RollupTest, LimitsBySourceAreOfAllOfThem) {
  Begin([](Settings& settings) {
    settings.set_max_smtp_out(10);
    settings.set_max_smtp_out_per_source_ip(1);
  });
  Ready(1, "a.test");
  Ready(2, "b.test");
  EXPECT_EQ(Deliver(seconds(60)), 1U);
  EXPECT_GT(delivered_["198.51.100.1"], 0);
}

TEST_F(RollupTest, TheReasonNamesTheRollup) {
  Begin([](Settings& settings) { settings.set_max_smtp_out(1); });
  Ready(1, "a.test");
  world_->GreetAll();
  Ready(2, "b.test");
  EXPECT_EQ(blocked_[2], "max-smtp-out 1 (all of big.rollup)");
}

TEST_F(RollupTest, ADomainsOwnRouteIsNotRolledUpAndItsTlsStaysAsStrict) {
  Begin(Snapshot([](Settings& settings) { settings.set_use_starttls(false); }, "a.test",
                 [](Settings& settings) {
                   settings.set_require_starttls(true);
                   settings.set_source_interface("127.0.0.5");
                 }));
  Ready(1, "a.test");
  Ready(2, "b.test");
  EXPECT_EQ(rollups_[1], "big.rollup");
  ASSERT_EQ(world_->sites.open.size(), 2U);
  for (auto* remote : world_->sites.open) {
    const bool required = remote->target.address == "198.51.100.1";
    EXPECT_EQ(remote->target.settings->require_starttls(), required);
    EXPECT_EQ(remote->target.settings->use_starttls(), required);
    EXPECT_EQ(remote->target.settings->source_interface(), required ? "127.0.0.5" : "");
  }
  Begin(Snapshot(
      [](Settings& settings) { settings.set_max_smtp_out(1); }, "a.test",
      [](Settings& settings) { settings.mutable_smtp_hosts()->add_values("relay.example"); }));
  rollups_.clear();
  Ready(1, "a.test");
  EXPECT_TRUE(rollups_.empty());
}

TEST_F(RollupTest, ASourceThatAReplyDisablesIsDisabledForAllOfThem) {
  policy::v1::PolicySnapshot snapshot =
      Snapshot([](Settings& settings) { settings.set_smtp_pattern_list("list"); });
  auto* list = snapshot.add_sections();
  list->set_name("smtp-pattern-list/list");
  auto* rule = list->mutable_content()->mutable_smtp_pattern_list();
  rule->set_name("list");
  rule->add_rules()->set_regex("blocked");
  rule->mutable_rules(0)->set_disable_source_ip(true);
  Begin(snapshot);
  Ready(1, "a.test", 1);
  Deliver(milliseconds(100));
  Ready(2, "b.test", 1);
  world_->GreetAll();
  Read();
  world_->shard().Lease(++lease_, 2);
  world_->executor.RunPosted();
  for (auto* remote : world_->sites.open) {
    if (remote->under_way.empty()) continue;
    remote->Answer(kTransient, 421, "blocked");
    break;
  }
  Read();
  Ready(4, "a.test", 5);
  EXPECT_EQ(blocked_[4], "every source of the virtual MTA is disabled for this queue");
}

// A pattern list for the rollup with one line, "blocked"; "later" has a penalty.
policy::v1::PolicySnapshot WithRule(const std::function<void(policy::v1::ReplyRule&)>& rule) {
  policy::v1::PolicySnapshot snapshot = Snapshot([](Settings& settings) {
    settings.set_smtp_pattern_list("list");
    settings.mutable_penalties()->add_entries()->add_patterns("later");
  });
  auto* list = snapshot.add_sections();
  list->set_name("smtp-pattern-list/list");
  list->mutable_content()->mutable_smtp_pattern_list()->set_name("list");
  auto* added = list->mutable_content()->mutable_smtp_pattern_list()->add_rules();
  added->set_regex("blocked");
  rule(*added);
  return snapshot;
}

// What a reply says of the queue it says of all of them: every shard is told, also what it has that
// no worker knows of, and here what has not begun goes back.
TEST_F(RollupTest, BounceQueueAndDeferQueueAreAboutAllOfThem) {
  for (const bool permanent : {true, false}) {
    SCOPED_TRACE(permanent);
    Begin(WithRule([&](policy::v1::ReplyRule& rule) {
            rule.set_bounce_queue(permanent);
            rule.set_defer_queue(!permanent);
          }),
          2);
    for (uint64_t ref : {1, 2, 3}) {
      Ready(ref, ref == 1 ? "a.test" : ref == 2 ? "b.test" : "c.test", 3);
      world_->GreetAll();
      Read();
      for (int i = 0; i < 2; ++i) world_->shard().Lease(++lease_, ref);
    }
    world_->executor.RunPosted();
    ASSERT_GE(world_->sites.open.size(), 3U);
    world_->Take();
    FakeSites::Remote* const judge = world_->sites.open.front();
    ASSERT_EQ(judge->target.address, "198.51.100.1");
    judge->Answer(kTransient, 450, "blocked");
    world_->executor.RunPosted();
    const auto said = world_->Take();
    ASSERT_EQ(said.failures_size(), 1) << "the queue's own";
    EXPECT_EQ(said.failures(0).permanent(), permanent);
    EXPECT_TRUE(said.failures(0).by_reply());
    for (const auto& each : {said, world_->shards[1]->Take()}) {
      ASSERT_EQ(each.rollup_failures_size(), 1);
      EXPECT_EQ(each.rollup_failures(0).rollup(), "big.rollup");
      EXPECT_EQ(each.rollup_failures(0).vmta(), "v");
      EXPECT_EQ(each.rollup_failures(0).failure().permanent(), permanent);
      EXPECT_TRUE(each.rollup_failures(0).failure().by_reply());
      EXPECT_EQ(each.rollup_failures(0).failure().reply().text(), "blocked");
      EXPECT_EQ(each.rollup_failures(0).failure().attempt().worker(), "w1");
    }
    size_t other_domains = 0;
    for (const auto* remote : world_->sites.open) {
      const bool small = remote->target.address == "198.51.100.3";
      EXPECT_EQ(remote->quit, !small) << remote->target.address;
      other_domains += small ? 1 : 0;
    }
    EXPECT_GT(other_domains, 0U);
    // Another of its connections hears the same a moment later: the shards know.
    for (auto* remote : world_->sites.open) {
      if (remote == judge || remote->under_way.empty() || !remote->quit) continue;
      remote->Answer(kTransient, 450, "blocked");
      break;
    }
    world_->executor.RunPosted();
    EXPECT_EQ(world_->Take().rollup_failures_size(), 0);
  }
}

TEST_F(RollupTest, APenaltyIsTheDomainsOwn) {
  Begin(WithRule([](policy::v1::ReplyRule& rule) { rule.set_bounce_queue(true); }));
  Ready(1, "a.test", 1);
  world_->GreetAll();
  Read();
  world_->shard().Lease(++lease_, 1);
  world_->executor.RunPosted();
  world_->sites.open.front()->Answer(kTransient, 450, "later");
  const auto said = world_->Take();
  ASSERT_EQ(said.failures_size(), 1);
  EXPECT_GT(said.failures(0).penalty_us(), 0);
  EXPECT_FALSE(said.failures(0).by_reply());
  EXPECT_EQ(said.rollup_failures_size(), 0);
}

// A shard of the release before releases nothing: the mail goes on by itself, as before.
TEST_F(RollupTest, AShardThatDoesNotKnowOfItKeepsNothingStanding) {
  Begin(WithRule([](policy::v1::ReplyRule& rule) { rule.set_defer_queue(true); }));
  Ready(1, "a.test", 1);
  Ready(2, "b.test", 1000);
  ASSERT_GE(world_->sites.open.size(), 2U);
  world_->sites.open.front()->handler->OnReady();  // that of b is still being made
  world_->sites.open.front()->greeted = true;
  Read();
  world_->shard().Lease(++lease_, 1);
  world_->executor.RunPosted();
  world_->sites.open.front()->Answer(kTransient, 450, "blocked");
  world_->executor.RunPosted();
  credits_.clear();
  Deliver(seconds(5));
  EXPECT_GT(delivered_["198.51.100.2"], 0);
}

// A shard's word counts until the lookup; out of it a queue goes by the shard's word.
TEST_F(RollupTest, ItIsInBeforeTheLookupAndOutWhenTheShardSaysSo) {
  Begin([](Settings& settings) { settings.set_max_smtp_out(1); });
  Ready(1, "c.test", 100, "big.rollup");
  EXPECT_EQ(rollups_.at(1), "") << "DNS says otherwise";
  EXPECT_EQ(Deliver(seconds(5)), 1U) << "as long as the shard has it there";
  Ready(1, "c.test", 100, "");
  EXPECT_GT(Deliver(seconds(20)), 1U);
  // Of an entry that is not in the policy, nothing is known.
  Ready(5, "c.test", 100, "no.rollup");
  EXPECT_GT(Deliver(seconds(1)), 1U);
}

// A policy that puts queues together closes what is above their limit now; one that takes the list
// away gives them their own again.
TEST_F(RollupTest, APolicyChangesWhatBelongsTogether) {
  Begin([](Settings& settings) { settings.set_max_smtp_out(2); });
  auto without = Snapshot([](Settings& settings) { settings.set_max_smtp_out(2); });
  without.mutable_sections()->RemoveLast();
  without.set_version(2);
  world_->SetPolicy(without);
  Ready(1, "a.test");
  Ready(2, "b.test");
  EXPECT_GT(Deliver(seconds(1)), 4U);
  EXPECT_TRUE(rollups_.empty());
  auto with = Snapshot([](Settings& settings) { settings.set_max_smtp_out(2); });
  with.set_version(3);
  world_->SetPolicy(with);
  Ready(1, "a.test");
  Ready(2, "b.test");
  EXPECT_EQ(rollups_[1], "big.rollup");
  Deliver(seconds(1));
  EXPECT_LE(Deliver(seconds(20)), 2U);
  rollups_.clear();
  without.set_version(4);
  world_->SetPolicy(without);
  Ready(1, "a.test");
  Ready(2, "b.test");
  EXPECT_EQ(rollups_[1], "");
  EXPECT_GT(Deliver(seconds(30)), 2U);
}

}  // namespace
}  // namespace sluice::delivery
