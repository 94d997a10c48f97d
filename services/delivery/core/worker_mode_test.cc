// Backoff mode in the worker: what puts a queue into it, what holds in it, what ends it, and what
// shards hear of it; and what else lines of an <smtp-pattern-list> do.
#include "services/delivery/core/worker_mode_config.h"

namespace sluice::delivery {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using Config = testing::ModeConfig;
using testing::Send;
using testing::World;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;
constexpr auto kTransient = queue::v1::RECIPIENT_OUTCOME_TRANSIENT;
constexpr auto kPermanent = queue::v1::RECIPIENT_OUTCOME_PERMANENT;
constexpr auto kNotAttempted = queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED;

TEST(WorkerMode, ALineGivesWhatItRefusesACategory) {
  Config config;
  config.Reply("blocked").set_bounce_category("spam-related");
  config.Reply("^5").set_bounce_category("policy-related");
  config.Reply("^554").set_bounce_queue(true);
  World world(config.snapshot);
  world.Connected(5);
  world.Take();
  EXPECT_EQ(Send(world, 1, kTransient, 450, "later").results(0).reply().bounce_category(), "");
  EXPECT_EQ(Send(world, 2, queue::v1::RECIPIENT_OUTCOME_PERMANENT, 550, "you are blocked")
                .results(0)
                .reply()
                .bounce_category(),
            "spam-related")
      << "the first line that says one";
  EXPECT_EQ(Send(world, 3, queue::v1::RECIPIENT_OUTCOME_DELIVERED, 250, "blocked")
                .results(0)
                .reply()
                .bounce_category(),
            "");
  world.sites.open.front()->Close(false, 554, "go away");
  EXPECT_EQ(world.Take().failures(0).reply().bounce_category(), "policy-related")
      << "also of a greeting";
}

TEST(WorkerMode, AReplyPutsTheQueueIntoBackoffAndTheShardHearsWhyWithTheResult) {
  Config config;
  config.TriggerAt421();
  config.settings->set_backoff_to_normal_after_us(90'000'000);
  World world(config.snapshot);
  world.Connected(5);
  world.Take();
  EXPECT_EQ(Send(world, 1, kTransient, 450, "later").modes_size(), 0);
  const queue::v1::DispatchRequest said = Send(world, 2, kTransient, 421, "Too many\nconnections");
  ASSERT_EQ(said.modes_size(), 1);
  const auto& mode = said.modes(0).mode();
  EXPECT_EQ(said.modes(0).queue_ref(), 1u);
  EXPECT_TRUE(mode.backoff());
  EXPECT_TRUE(mode.notify());
  EXPECT_EQ(mode.author(), "w1");
  EXPECT_EQ(mode.reason(), "421 Too many connections (matches /^421/ of backoff-trigger-pattern)");
  EXPECT_EQ(mode.until_us() - mode.since_us(), 90'000'000);
  EXPECT_EQ(said.results_size(), 1) << "in one frame";
}

// backoff-max-msg-rate holds from the next token on, beginning with a wait; max-msg-rate holds
// beside it, and again when the mode is over.
TEST(WorkerMode, RateOfBackoffMode) {
  Config config;
  config.TriggerAt421();
  config.BackoffRate(2, seconds(1));
  config.settings->mutable_max_msg_rate()->set_count(100);
  config.settings->mutable_max_msg_rate()->set_period_us(1'000'000);
  config.settings->set_backoff_to_normal_after_us(10'000'000);
  World world(config.snapshot);
  world.Connected(1000);
  uint64_t id = 100;
  bool refused = false;
  MonotonicTime changed{};
  std::vector<MonotonicTime> all;
  for (int step = 0; step < 13'000; ++step) {
    const queue::v1::DispatchRequest said = world.Take();
    for (const auto& credit : said.credits()) {
      for (uint32_t i = 0; i < credit.groups(); ++i) world.shard().Lease(++id, 1);
    }
    world.GreetAll();
    for (size_t i = 0; i < world.sites.open.size(); ++i) {
      auto& remote = *world.sites.open[i];
      if (remote.under_way.empty()) continue;
      const bool now = !refused && step > 500;
      refused |= now;
      if (now) changed = world.executor.clock().Now();
      remote.Answer(now ? kTransient : kDelivered, now ? 421 : 250);
    }
    world.executor.Advance(milliseconds(1));
  }
  size_t in_backoff = 0;
  size_t after = 0;
  const auto& sends = world.sites.sends;
  for (size_t i = 0; i < sends.size(); ++i) {
    const Duration since = sends[i].when - changed;
    if (since > Duration(0) && since < seconds(10)) {
      ++in_backoff;
      EXPECT_GE(since, milliseconds(500));
      if (i > 1 && sends[i - 2].when > changed) {
        EXPECT_GE(sends[i].when - sends[i - 2].when, seconds(1));
      }
    }
    if (since >= seconds(10)) ++after;
    if (i >= 100) {
      EXPECT_GE(sends[i].when - sends[i - 100].when, seconds(1));
    }
  }
  EXPECT_GE(in_backoff, 17u) << "the limit is used";
  EXPECT_LE(in_backoff, 20u);
  EXPECT_GE(after, 150u) << "the mode is over by itself";
}

// The first message is refused with a 421, all later ones are delivered, for `time`; each
// connection ends after its message where `close` says so. Leases one recipient a credit.
uint64_t RunInBackoff(World& world, Duration time, Duration step, bool close) {
  uint64_t id = 0;
  world.resolver.answer.expires += hours(100);
  bool refused = false;
  uint64_t before = 0;
  world.shard().edit = [](queue::v1::Lease& lease) { lease.mutable_message()->set_body_size(500); };
  world.shard().Ready(1, 100'000);
  for (Duration t{}; t < time; t += step) {
    const queue::v1::DispatchRequest said = world.Take();
    for (const auto& credit : said.credits()) {
      for (uint32_t i = 0; i < credit.groups(); ++i) world.shard().Lease(++id, 1);
    }
    world.GreetAll();
    // An answer, or an end, may take other connections with it.
    const std::vector<testing::FakeSites::Remote*> open = world.sites.open;
    const auto is_open = [&world](auto* remote) {
      const auto& left = world.sites.open;
      return std::find(left.begin(), left.end(), remote) != left.end();
    };
    for (auto* remote : open) {
      while (is_open(remote) && !remote->under_way.empty()) {
        const bool first = !std::exchange(refused, true);
        remote->Answer(first ? kTransient : kDelivered, first ? 421 : 250);
        if (first) {
          world.sites.sends.clear();
          before = world.worker->stats().connects;
        }
        if (close && is_open(remote)) remote->quit = true;
      }
    }
    for (auto* remote : open) {
      if (is_open(remote) && remote->quit) remote->Close(true);
    }
    if (world.worker->open_connections() == 0) world.shard().Ready(1, 100'000);
    world.executor.Advance(step);
  }
  EXPECT_TRUE(refused);
  return world.worker->stats().connects - before;
}

void ExpectAtMost(const World& world, size_t most, Duration period) {
  const auto& sends = world.sites.sends;
  for (size_t i = 0; i + most < sends.size(); ++i) {
    EXPECT_GE(sends[i + most].when - sends[i].when, period) << "from attempt " << i;
  }
}

TEST(WorkerMode, BackoffMaxMsgPerHour) {
  Config config;
  config.TriggerAt421();
  config.settings->set_backoff_max_msg_per_hour(4);
  World world(config.snapshot);
  RunInBackoff(world, hours(4), seconds(1), false);
  ExpectAtMost(world, 4, hours(1));
  EXPECT_GE(world.sites.sends.size(), 13u) << "the limit is used";
}

TEST(WorkerMode, BackoffMaxConnectRate) {
  Config config;
  config.TriggerAt421();
  config.settings->mutable_backoff_max_connect_rate()->set_count(1);
  config.settings->mutable_backoff_max_connect_rate()->set_period_us(60'000'000);
  World world(config.snapshot);
  const uint64_t connects = RunInBackoff(world, minutes(20), milliseconds(100), true);
  EXPECT_LE(connects, 20u);
  EXPECT_GE(connects, 17u) << "the limit is used";
}

TEST(WorkerMode, BackoffMaxDataVolumeRate) {
  Config config;
  config.TriggerAt421();
  config.settings->mutable_backoff_max_data_volume_rate()->set_count(1000);
  config.settings->mutable_backoff_max_data_volume_rate()->set_period_us(60'000'000);
  config.settings->mutable_max_data_volume_rate()->set_count(1'000'000);
  config.settings->mutable_max_data_volume_rate()->set_period_us(60'000'000);
  World world(config.snapshot);
  RunInBackoff(world, minutes(20), milliseconds(100), false);
  ExpectAtMost(world, 2, minutes(1));
  EXPECT_GE(world.sites.sends.size(), 20u) << "the limit is used";
}

TEST(WorkerMode, ConnectionsAboveBackoffMaxSmtpOutCloseInGoodOrder) {
  Config config;
  config.TriggerAt421();
  config.settings->set_max_smtp_out(8);
  config.settings->set_backoff_max_smtp_out(2);
  World world(config.snapshot);
  world.shard().Ready(1, 1000);
  world.executor.RunPosted();
  for (int i = 0; i < 10; ++i) world.GreetAll();
  ASSERT_EQ(world.sites.open.size(), 8u);
  Send(world, 1, kTransient, 421);
  size_t left = 0;
  for (const auto* remote : world.sites.open) left += remote->quit ? 0 : 1;
  EXPECT_EQ(left, 2u);
  for (size_t i = world.sites.open.size(); i > 0; --i) {
    if (world.sites.open[i - 1]->quit) world.sites.open[i - 1]->Close(true);
  }
  world.executor.Advance(seconds(1));
  for (int i = 0; i < 10; ++i) world.GreetAll();
  EXPECT_EQ(world.sites.open.size(), 2u);
}

TEST(WorkerMode, ADeliveryThatBeganInItEndsBackoffToNormalAfterDelivery) {
  Config config;
  config.TriggerAt421();
  config.settings->set_backoff_to_normal_after_delivery(true);
  World world(config.snapshot);
  auto& remote = world.Connected(5);
  world.shard().Lease(1, 1);
  world.shard().Lease(2, 1);
  world.executor.RunPosted();
  ASSERT_EQ(remote.under_way.size(), 2u);
  remote.Answer(kTransient, 421);
  EXPECT_TRUE(world.Take().modes(0).mode().backoff());
  remote.Answer(kDelivered, 250);
  EXPECT_EQ(world.Take().modes_size(), 0) << "it was on its way before";
  const queue::v1::DispatchRequest said = Send(world, 3, kDelivered, 250);
  ASSERT_EQ(said.modes_size(), 1);
  EXPECT_FALSE(said.modes(0).mode().backoff());
}

TEST(WorkerMode, MaxErrorsPerDomainCountsErrorsInARow) {
  Config config;
  config.settings->set_max_errors_per_domain(3);
  World world(config.snapshot);
  world.Connected(50);
  Send(world, 1, kTransient, 450);
  Send(world, 2, kPermanent, 550);
  Send(world, 3, kDelivered, 250);
  Send(world, 4, kPermanent, 550);
  EXPECT_EQ(Send(world, 5, kTransient, 450).modes_size(), 0);
  const auto said = Send(world, 6, kPermanent, 550, "no");
  ASSERT_EQ(said.modes_size(), 1);
  EXPECT_EQ(said.modes(0).mode().reason(),
            "3 errors in a row (max-errors-per-domain 3), the last: 550 no");
}

TEST(WorkerMode, AGreetingCountsToo) {
  Config config;
  config.Reply("^421 .*busy").set_mode("backoff");
  World world(config.snapshot);
  world.shard().Ready(1, 5);
  world.executor.RunPosted();
  world.sites.open.front()->Close(false, 421, "we are busy");
  const auto said = world.Take();
  ASSERT_GE(said.modes_size(), 1);
  EXPECT_EQ(said.modes(0).mode().reason(), "421 we are busy (matches ^421 .*busy of l)");
}

// Lines of the list: mode=normal at a reply to mail that was taken, and a time of their own.
TEST(WorkerMode, PatternsEndItAndSayHowLongItLasts) {
  Config config;
  auto& rule = config.Reply("slow");
  rule.set_mode("backoff");
  rule.set_backoff_to_normal_after_us(5'000'000);
  config.Reply("^250 .*welcome").set_mode("normal");
  World world(config.snapshot);
  world.Connected(50);
  auto said = Send(world, 1, kTransient, 450, "slow down");
  ASSERT_EQ(said.modes_size(), 1);
  EXPECT_EQ(said.modes(0).mode().until_us() - said.modes(0).mode().since_us(), 5'000'000);
  EXPECT_EQ(Send(world, 2, kDelivered, 250, "ok").modes_size(), 0);
  said = Send(world, 3, kDelivered, 250, "welcome back");
  ASSERT_EQ(said.modes_size(), 1);
  EXPECT_FALSE(said.modes(0).mode().backoff());
}

TEST(WorkerMode, BounceRcptSkipMxAnd553) {
  Config config;
  config.Reply("^450 full").set_bounce_rcpt(true);
  config.Reply("^451 this host").set_skip_mx(true);
  World world(config.snapshot);
  world.Connected(1);
  auto said = Send(world, 1, kTransient, 450, "full");
  EXPECT_EQ(said.results(0).outcome(), kPermanent);
  world.shard().Lease(2, 1);
  world.executor.RunPosted();
  auto* const first = world.sites.open.front();
  EXPECT_EQ(first->target.host, "mx1");
  first->Answer(kTransient, 451, "this host");
  said = world.Take();
  EXPECT_EQ(said.results(0).outcome(), kNotAttempted);
  EXPECT_TRUE(first->quit);
  first->Close(true);
  world.shard().Ready(1, 5);
  world.executor.RunPosted();
  ASSERT_FALSE(world.sites.open.empty());
  EXPECT_EQ(world.sites.open.front()->target.host, "mx2");
}

TEST(WorkerMode, Smtp553MeansInvalidMailbox) {
  for (const bool means : {true, false}) {
    Config config;
    config.settings->set_smtp_553_means_invalid_mailbox(means);
    World world(config.snapshot);
    auto& remote = world.Connected();
    world.Take();
    world.shard().Lease(1, 1);
    world.executor.RunPosted();
    queue::v1::GroupResult result;
    result.set_lease_id(remote.under_way.front().lease->lease_id());
    result.set_outcome(kPermanent);
    result.mutable_reply()->set_code(553);
    result.mutable_reply()->set_stage(common::v1::STAGE_RCPT);
    remote.under_way.clear();
    remote.handler->OnResult(std::move(result));
    EXPECT_EQ(world.Take().results(0).reply().enhanced(), means ? "5.1.1" : "");
  }
}

// What an operator says comes with the announcement or later, holds at once, and goes to the other
// shards; no reply and no delivery ends it.
TEST(WorkerMode, AnOperatorsWordHoldsOnEveryShard) {
  Config config;
  config.Reply("ok").set_mode("normal");
  config.settings->set_backoff_to_normal_after_delivery(true);
  World world(config.snapshot);
  world.Connected(5);
  world.Take();
  queue::v1::DispatchResponse word;
  auto* change = word.add_modes();
  change->set_queue_ref(1);
  change->mutable_mode()->set_backoff(true);
  change->mutable_mode()->set_by_operator(true);
  change->mutable_mode()->set_since_us(ToUnixMicros(world.executor.clock().WallNow()));
  world.shard().Say(word);
  EXPECT_EQ(Send(world, 1, kDelivered, 250, "ok").modes_size(), 0);
  // A shard that knows of nothing hears of it when it has mail of the queue.
  world.shard().Ready(2, 5);
  const auto said = world.Take();
  ASSERT_EQ(said.modes_size(), 1);
  EXPECT_EQ(said.modes(0).queue_ref(), 2u);
  EXPECT_TRUE(said.modes(0).mode().backoff() && said.modes(0).mode().by_operator());
}

TEST(WorkerMode, BounceQueueAndDeferQueueAreTheQueuesFate) {
  for (const bool bounce : {true, false}) {
    Config config;
    auto& rule = config.Reply("blocked");
    rule.set_bounce_queue(bounce);
    rule.set_defer_queue(!bounce);
    World world(config.snapshot);
    auto& remote = world.Connected(50);
    world.Take();
    const auto said = Send(world, 1, kPermanent, 554, "blocked");
    EXPECT_EQ(said.results_size(), 1);
    ASSERT_EQ(said.failures_size(), 1);
    EXPECT_EQ(said.failures(0).permanent(), bounce);
    EXPECT_EQ(said.failures(0).reply().text(), "blocked");
    EXPECT_TRUE(remote.quit);
  }
}

// <smtp-pattern>: the queue waits, and for how long is the shard's to count.
TEST(WorkerMode, APenaltyIsToldWithTheQueuesFailure) {
  Config config;
  auto& penalty = *config.settings->mutable_penalties()->add_entries();
  penalty.set_name("4xx");
  penalty.add_patterns("^4[0-9]2");
  penalty.set_initial_us(60'000'000);
  World world(config.snapshot);
  auto& remote = world.Connected(50);
  world.Take();
  EXPECT_EQ(Send(world, 1, kTransient, 450, "not yet").failures_size(), 0);
  const auto said = Send(world, 2, kTransient, 452, "slow down");
  EXPECT_EQ(said.results_size(), 1);
  ASSERT_EQ(said.failures_size(), 1);
  EXPECT_FALSE(said.failures(0).permanent());
  EXPECT_EQ(said.failures(0).penalty_us(), 60'000'000);
  EXPECT_EQ(said.failures(0).penalty_most_us(), 3'600'000'000) << "if not said";
  EXPECT_TRUE(remote.quit);
}

}  // namespace
}  // namespace sluice::delivery
