// What the shard makes of a queue's rollup: the owner is the rollup's, its settings hold, an
// operator may name it, and all that survives a kill.
#include <algorithm>

#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::TestWorker;

class ShardRollupTest : public testing::PolicyShardFixture {
 protected:
  void SetUp() override {
    PolicyShardFixture::SetUp();
    auto* domain = Section("domain/big.rollup").mutable_domain();
    domain->set_pattern("big.rollup");
    domain->mutable_settings()->mutable_retry_after()->add_us(int64_t{7200} * 1'000'000);
    auto* entry = Section("mx-rollup").mutable_mx_rollup()->add_entries();
    entry->set_mx("*.big.example");
    entry->set_queue("big.rollup");
    SetPolicy();
  }
  // w1 and w2 have an address each of the default virtual MTA.
  static std::shared_ptr<const config::Owners> TwoWorkers() {
    policy::v1::OwnersTable table;
    table.set_epoch(1);
    table.add_workers("w1");
    table.add_workers("w2");
    auto* vmta = table.add_vmtas();
    vmta->set_vmta("default");
    for (uint32_t i = 0; i < 2; ++i) {
      auto* host = vmta->add_hosts();
      host->set_ip("192.0.2." + std::to_string(i + 1));
      host->set_worker(i);
    }
    return config::Owners::Build(table);
  }
  static void Say(TestWorker& worker, const std::string& domain, const std::string& rollup) {
    Frame<v1::DispatchRequest> frame;
    auto* said = frame.header.add_rollups();
    said->set_queue_ref(worker.ready.at(domain).queue_ref());
    said->set_rollup(rollup);
    worker.Say(std::move(frame));
  }
  static Frame<v1::DispatchRequest> RollupFails(bool permanent) {
    Frame<v1::DispatchRequest> frame;
    auto* said = frame.header.add_rollup_failures();
    said->set_rollup("big.rollup");
    said->set_vmta("default");
    said->mutable_failure()->set_permanent(permanent);
    said->mutable_failure()->set_by_reply(true);
    said->mutable_failure()->mutable_reply()->set_code(550);
    said->mutable_failure()->mutable_reply()->set_text("blocked");
    return frame;
  }
};

TEST_F(ShardRollupTest, ItsSettingsHoldAndSurviveAKill) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "big.rollup");
  Run();
  EXPECT_EQ(Queue("x.example/default").rollup(), "big.rollup");
  worker.Fail(worker.ready["x.example"].queue_ref(), false, false);
  Run();
  EXPECT_GT(Queue("x.example/default").next_time_us(), NowUs() + int64_t{7000} * 1'000'000);
  Kill();
  Open();
  SetPolicy();
  EXPECT_EQ(Queue("x.example/default").rollup(), "big.rollup");
  TestWorker& again = AddWorker("w1", 2);
  Run(minutes(121));
  EXPECT_EQ(again.ready.at("x.example").rollup(), "big.rollup");
}

TEST_F(ShardRollupTest, AQueueStaysForAMinuteWhereItCame) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "big.rollup");
  Say(worker, "x.example", "");
  Run();
  EXPECT_EQ(Queue("x.example/default").rollup(), "big.rollup");
  Run(seconds(61));  // nobody has to say it again
  EXPECT_EQ(Queue("x.example/default").rollup(), "");
  EXPECT_EQ(worker.ready.at("x.example").rollup(), "");
  Say(worker, "x.example", "big.rollup");
  Run();
  EXPECT_EQ(Queue("x.example/default").rollup(), "big.rollup") << "at once";
}

TEST_F(ShardRollupTest, ANameThatOnlyTheWorkersPolicyHasIsHeededWhenItComesHere) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "new.rollup");
  Run();
  EXPECT_EQ(Queue("x.example/default").rollup(), "");
  auto* entry = policy_.mutable_sections()->rbegin()->mutable_content()->mutable_mx_rollup();
  entry->add_entries()->set_mx("*.new.example");
  entry->mutable_entries()->rbegin()->set_queue("new.rollup");
  SetPolicy();
  Run();
  EXPECT_EQ(Queue("x.example/default").rollup(), "new.rollup");
}

TEST_F(ShardRollupTest, AnOperatorsPatternAndAPauseMayNameTheRollup) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "big.rollup");
  Run();
  v1::SetQueueModeRequest request;
  request.set_pattern("big.rollup/*");
  request.set_backoff(true);
  request.set_author("olive");
  shard_->SetQueueMode(request, [](auto) {});
  Run();
  EXPECT_EQ(Queue("x.example/default").mode(), "backoff");
  v1::SetQueueModeRequest normal;
  normal.add_names("big.rollup/default");
  normal.set_author("olive");
  shard_->SetQueueMode(normal, [](auto response) {
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->queues(), 1U);
  });
  Run();
  EXPECT_EQ(Queue("x.example/default").mode(), "normal");
  Pause("big.rollup/default", "");
  EXPECT_TRUE(Queue("x.example/default").paused());
}

TEST_F(ShardRollupTest, AListThatIsGoneHoldsNobody) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "big.rollup");
  Run();
  policy_.mutable_sections()->RemoveLast();
  SetPolicy();
  EXPECT_EQ(Queue("x.example/default").rollup(), "");
}

// bounce-queue of a reply to one of them: every queue of the rollup, whoever has it, and no other.
TEST_F(ShardRollupTest, AFailureOfTheRollupIsEveryQueuesOfIt) {
  TestWorker& worker = AddWorker();
  for (const char* to : {"a@x.example", "b@y.example", "c@y.example", "d@z.example"}) {
    injector().Send({to});
  }
  Run();
  Say(worker, "x.example", "big.rollup");
  Say(worker, "y.example", "big.rollup");
  Run();
  const uint64_t of_y = worker.ready["y.example"].queue_ref();
  worker.Say(RollupFails(true));
  Run();
  EXPECT_EQ(Status().failed_total(), 3U);
  EXPECT_EQ(std::count(worker.gone.begin(), worker.gone.end(), of_y), 1);
  EXPECT_EQ(Queue("z.example/default").recipients(), 1U);
  EXPECT_EQ(Queue("z.example/default").mode(), "normal");
  // What comes later is tried.
  injector().Send({"e@x.example"});
  Run();
  EXPECT_EQ(Queue("x.example/default").recipients(), 1U);
}

TEST_F(ShardRollupTest, WhatAnOperatorPausedIsNotBounced) {
  TestWorker& worker = AddWorker();
  for (const char* to : {"a@x.example", "b@y.example"}) injector().Send({to});
  Run();
  Say(worker, "x.example", "big.rollup");
  Say(worker, "y.example", "big.rollup");
  Run();
  Pause("y.example/default", "");
  worker.Say(RollupFails(true));
  Run();
  EXPECT_EQ(Status().failed_total(), 1U);
  EXPECT_EQ(Queue("y.example/default").recipients(), 1U);
}

// Large ones take their turns, and none is passed over.
TEST_F(ShardRollupTest, ARollupOfManyQueuesFailsWhole) {
  constexpr size_t kQueues = 300;
  options_.max_unanswered = 10'000;
  Kill();
  Open();
  SetPolicy();
  TestWorker& worker = AddWorker("w1", 2);
  for (size_t i = 0; i < kQueues; ++i) {
    const std::string domain = "d" + std::to_string(i) + ".example";
    injector().Send({"a@" + domain});
    if (i == 7) {
      for (int k = 0; k < 1'200; ++k) injector().Send({"a@" + domain});
    }
    if (i % 50 == 0) Run();
  }
  Run(seconds(2));
  ASSERT_EQ(worker.ready.size(), kQueues);
  for (const auto& [domain, ready] : worker.ready) {
    if (domain != "d3.example") Say(worker, domain, "big.rollup");
  }
  Run();
  worker.Say(RollupFails(false));
  Run(seconds(1));
  size_t waiting = 0;
  for (size_t i = 0; i < kQueues; ++i) {
    waiting += Queue("d" + std::to_string(i) + ".example/default").mode() == "retry" ? 1 : 0;
  }
  EXPECT_EQ(waiting, kQueues - 1);
  worker.Say(RollupFails(true));
  Run(seconds(5));
  EXPECT_EQ(Status().failed_total(), kQueues - 1 + 1'200);
  EXPECT_EQ(Queue("d3.example/default").recipients(), 1U);
}

// defer-queue: they wait as long as the rollup's retry-after says, and a restart forgets nothing.
TEST_F(ShardRollupTest, AllOfThemWaitAndRepeatingItDoesNotProlongThat) {
  TestWorker& worker = AddWorker();
  for (const char* to : {"a@x.example", "b@y.example", "c@z.example"}) injector().Send({to});
  Run();
  Say(worker, "x.example", "big.rollup");
  Say(worker, "y.example", "big.rollup");
  Run();
  const int64_t from_us = NowUs();
  // As many connections as had the same reply, and the queue's own failure before them.
  Frame<v1::DispatchRequest> frame = RollupFails(false);
  *frame.header.add_rollup_failures() = frame.header.rollup_failures(0);
  auto* own = frame.header.add_failures();
  *own = frame.header.rollup_failures(0).failure();
  own->set_queue_ref(worker.ready["x.example"].queue_ref());
  worker.Say(std::move(frame));
  Run(minutes(50));
  worker.Say(RollupFails(false));
  Run();
  for (const char* name : {"x.example/default", "y.example/default"}) {
    EXPECT_EQ(Queue(name).mode(), "retry") << name;
    EXPECT_GT(Queue(name).next_time_us(), from_us + int64_t{7199} * 1'000'000) << name;
    EXPECT_LT(Queue(name).next_time_us(), from_us + int64_t{7201} * 1'000'000) << name;
  }
  EXPECT_EQ(Queue("z.example/default").mode(), "normal");
  Kill();
  Open();
  SetPolicy();
  TestWorker& again = AddWorker("w1", 2);
  Run(minutes(69));
  EXPECT_EQ(again.ready.count("y.example"), 0U);
  again.Say(RollupFails(false));
  Run(minutes(2));
  EXPECT_EQ(again.ready.count("x.example"), 1U);
  EXPECT_EQ(again.ready.count("y.example"), 1U);
}

// One that waits for a reason of its own, and not for so long, waits as long as the others.
TEST_F(ShardRollupTest, AQueueThatWaitsIsPartOfIt) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "big.rollup");
  Run();
  worker.Fail(worker.ready["x.example"].queue_ref(), true, false);  // retry-after-dns-error
  Run();
  ASSERT_LT(Queue("x.example/default").next_time_us(), NowUs() + int64_t{7000} * 1'000'000);
  worker.Say(RollupFails(false));
  Run();
  EXPECT_GT(Queue("x.example/default").next_time_us(), NowUs() + int64_t{7000} * 1'000'000);
  const int announced = worker.announcements;
  Run(minutes(119));
  EXPECT_EQ(worker.announcements, announced);
  Run(minutes(2));
  EXPECT_EQ(worker.announcements, announced + 1);
}

// Many connections are busy when one of them hears it.
TEST_F(ShardRollupTest, WhatWasUnderWayDoesNotEndTheWait) {
  TestWorker& worker = AddWorker();
  for (const char* to : {"a@x.example", "b@x.example", "c@x.example"}) injector().Send({to});
  Run();
  Say(worker, "x.example", "big.rollup");
  worker.Credit(worker.ready["x.example"].queue_ref(), 2);
  Run();
  ASSERT_EQ(worker.leases.size(), 2U);
  worker.Say(RollupFails(false));
  Run();
  const int64_t until_us = Queue("x.example/default").retry_until_us();
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  worker.Answer(worker.leases[1].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "no");
  Run(minutes(10));
  EXPECT_EQ(Queue("x.example/default").mode(), "retry");
  EXPECT_EQ(Queue("x.example/default").retry_until_us(), until_us);
  // An operator ends it; then an answer counts.
  worker.auto_credit = 1;
  shard_->RetryQueues({}, [](auto) {});
  Run(seconds(1));
  ASSERT_EQ(worker.leases.size(), 3U);
  worker.Answer(worker.leases[2].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run(seconds(1));
  EXPECT_EQ(Queue("x.example/default").mode(), "normal");
}

// All domains of a rollup have one owner, so that no two workers have its limits.
TEST_F(ShardRollupTest, TheOwnerIsTheRollups) {
  const auto owners = TwoWorkers();
  shard_->SetOwners(owners);
  TestWorker& first = AddWorker("w1");
  TestWorker& second = AddWorker("w2");
  const std::string rollups(owners->OwnerOf("big.rollup/default", "default"));
  TestWorker& owner = rollups == "w1" ? first : second;
  TestWorker& other = rollups == "w1" ? second : first;
  for (int i = 0; i < 8; ++i) injector().Send({"a@x" + std::to_string(i) + ".example"});
  Run();
  ASSERT_FALSE(other.ready.empty());
  const auto theirs = other.ready;
  for (const auto& [domain, ready] : theirs) Say(other, domain, "big.rollup");
  Run();
  for (const auto& [domain, ready] : theirs) {
    EXPECT_TRUE(owner.ready.contains(domain)) << domain;
    EXPECT_EQ(owner.ready[domain].rollup(), "big.rollup");
  }
  EXPECT_EQ(other.gone.size(), theirs.size());
}

// Mail with "TLS-Required: No" has a queue beside its domain's: its settings, its owner and its
// pauses are those of the domain's queue.
TEST_F(ShardRollupTest, AQueueBesideItsDomainsIsUnderTheSameRules) {
  injector().edit = [](v1::NewMessage& message) {
    message.mutable_deliveries(0)->mutable_delivery()->set_queue_domain("{tls-optional}Big.Rollup");
  };
  const std::string name = "{tls-optional}big.rollup/default";
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  ASSERT_TRUE(worker.ready.contains("{tls-optional}big.rollup"));
  worker.Fail(worker.ready["{tls-optional}big.rollup"].queue_ref(), false, false);
  Run();
  EXPECT_GT(Queue(name).next_time_us(), NowUs() + int64_t{7000} * 1'000'000) << "the domain's";
  Pause("big.rollup/default", "");
  EXPECT_TRUE(Queue(name).paused());
  Kill();
  Open();
  SetPolicy();
  EXPECT_TRUE(Queue(name).paused());
  EXPECT_EQ(Queue(name).recipients(), 1u);
}

TEST_F(ShardRollupTest, AQueueBesideItsDomainsHasItsOwner) {
  shard_->SetOwners(TwoWorkers());
  TestWorker& first = AddWorker("w1");
  TestWorker& second = AddWorker("w2");
  for (int i = 0; i < 16; ++i) {
    const std::string domain = "x" + std::to_string(i) + ".example";
    for (const std::string mark : {"", "{tls-optional}"}) {
      injector().edit = [&](v1::NewMessage& message) {
        message.mutable_deliveries(0)->mutable_delivery()->set_queue_domain(mark + domain);
      };
      injector().Send({"a@" + domain});
    }
    Run();
    EXPECT_EQ(first.ready.contains(domain), first.ready.contains("{tls-optional}" + domain));
    EXPECT_EQ(second.ready.contains(domain), second.ready.contains("{tls-optional}" + domain));
  }
  EXPECT_FALSE(first.ready.empty());
  EXPECT_FALSE(second.ready.empty());
}

}  // namespace
}  // namespace sluice::queue
