// When mail of one shard is tried again, as the policy says: after a reply, after a failed lookup,
// by the step, together; and what is tried together.
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

class ShardRetryTest : public testing::PolicyShardFixture {};

TEST_F(ShardRetryTest, NewMailEndsTheRetryWaitOnlyWhereThePolicySaysSo) {
  Defaults().set_retry_upon_new_mail(true);
  SetPolicy();
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  worker.Fail(worker.ready["x.example"].queue_ref(), false, false);
  Run(std::chrono::seconds(10));
  const int before = worker.announcements;
  injector().Send({"b@x.example"});
  Run();
  EXPECT_EQ(worker.announcements, before + 1);
}

// queue-interval: what waits is due at multiples of it, and never before its own time.
TEST_F(ShardRetryTest, RetriesAreDueTogetherAtTheQueueInterval) {
  constexpr int64_t kSecondUs = 1'000'000;
  auto& global = *Section("global").mutable_global();
  global.mutable_queue_defaults()->set_retry_recipients_after_us(100 * kSecondUs);
  global.mutable_queue_defaults()->mutable_retry_after()->add_us(100 * kSecondUs);
  global.mutable_settings()->set_queue_interval_us(60 * kSecondUs);
  SetPolicy();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  injector().Send({"a@x.example"});
  injector().Send({"a@y.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 2U);
  const int64_t asked_us = NowUs();
  for (const auto& held : worker.leases) {
    worker.Answer(held.lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
    Run(std::chrono::milliseconds(50));
  }
  std::vector<int64_t> due;
  for (auto rows = store_.Scan(Family::kDeliveries, "", "", false); rows->Valid(); rows->Next()) {
    due.push_back(DeliveryKey::Decode(rows->key())->due_us);
  }
  ASSERT_EQ(due.size(), 2U);
  EXPECT_EQ(due[0], due[1]) << "though deferred at different times";
  EXPECT_EQ(due[0] % (60 * kSecondUs), 0);
  EXPECT_GE(due[0], asked_us + 100 * kSecondUs);
  EXPECT_LE(due[0], asked_us + 161 * kSecondUs);
}

TEST_F(ShardRetryTest, AGroupHasAtMostMaxRcptPerTransaction) {
  Defaults().set_max_rcpt_per_transaction(2);
  SetPolicy();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  Run();
  injector().Send({"a@x.example", "b@x.example", "c@x.example", "d@x.example", "e@x.example"});
  Run();
  std::vector<int> sizes;
  for (const auto& held : worker.leases) sizes.push_back(held.lease.deliveries_size());
  EXPECT_EQ(sizes, (std::vector<int>{2, 2, 1}));
}

TEST_F(ShardRetryTest, ADnsErrorWaitsForItsOwnTime) {
  Defaults().set_retry_after_dns_error_us(int64_t{300} * 1'000'000);
  SetPolicy();
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  worker.Fail(worker.ready["x.example"].queue_ref(), true, false);
  Run();
  const int before = worker.announcements;
  Run(std::chrono::seconds(299));
  EXPECT_EQ(worker.announcements, before);
  Run(std::chrono::seconds(2));
  EXPECT_EQ(worker.announcements, before + 1);
}

TEST_F(ShardRetryTest, AFailureThatIsPermanentFromAnAgeOnLeavesYoungMailInTheQueue) {
  constexpr int64_t kHourUs = 3'600'000'000;
  TestWorker& worker = AddWorker();
  injector().Send({"old@x.example"});
  Run(std::chrono::hours(1));
  injector().Send({"young@x.example"});
  Run();
  v1::GetQueueRequest request;
  request.set_name("x.example/default");
  const auto fail = [&] {
    worker.Fail(worker.ready["x.example"].queue_ref(), true, true, kHourUs);
    Run();
    v1::QueueStatus queue;
    shard_->GetQueue(request, [&queue](auto response) { queue = response->queue(); });
    return queue;
  };
  v1::QueueStatus queue = fail();
  EXPECT_EQ(queue.recipients(), 1U);
  EXPECT_EQ(queue.mode(), "retry");
  Run(std::chrono::minutes(30));
  EXPECT_EQ(fail().recipients(), 1U);
  Run(std::chrono::minutes(31));
  EXPECT_EQ(fail().recipients(), 0U);
}

TEST_F(ShardRetryTest, StepsOfRetryAfterAndTheLastAttempt) {
  policy::v1::QueueSettings& settings = Defaults();
  for (int64_t minutes : {5, 20, 60}) {
    settings.mutable_retry_after()->add_us(minutes * 60'000'000);
  }
  settings.set_retry_recipients_after_us(int64_t{600'000'000});
  settings.set_max_delivery_attempts(4);
  SetPolicy();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  injector().Send({"a@x.example"});
  Run();
  // The later of its own step and retry-recipients-after (10 min): 10, 20, 60.
  size_t attempts = 1;
  for (int minutes : {10, 20, 60}) {
    ASSERT_EQ(worker.leases.size(), attempts);
    worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450,
                  "later");
    Run(std::chrono::minutes(minutes) - std::chrono::seconds(1));
    EXPECT_EQ(worker.leases.size(), attempts) << minutes;
    Run(std::chrono::seconds(2));
    ++attempts;
  }
  ASSERT_EQ(worker.leases.size(), 4U);
  worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "no");
  Run();
  EXPECT_EQ(Status().failed_total(), 1U);
  ASSERT_EQ(worker.leases.size(), 5U);
  EXPECT_EQ(worker.leases[4].lease.message().source_type(), common::v1::SOURCE_TYPE_DSN);
  EXPECT_EQ(worker.leases[4].lease.deliveries(0).rcpt(), "sender@from.example");
}

TEST_F(ShardRetryTest, ADnsErrorHasAWaitOfItsOwn) {
  auto& settings = Defaults();
  settings.mutable_retry_after()->add_us(int64_t{1800} * 1'000'000);
  settings.set_retry_after_dns_error_us(int64_t{60} * 1'000'000);
  SetPolicy();
  TestWorker& worker = AddWorker();
  for (const bool dns : {true, false}) {
    const std::string domain = dns ? "dns.example" : "connect.example";
    injector().Send({"a@" + domain});
    Run();
    worker.Fail(worker.ready[domain].queue_ref(), dns, false);
    const int64_t failed_us = NowUs();
    Run();
    EXPECT_EQ(Queue(domain + "/default").retry_until_us(),
              failed_us + int64_t{dns ? 60 : 1800} * 1'000'000);
  }
}

TEST_F(ShardRetryTest, AStepOfTheWallClockExpiresNothingAtOnce) {
  injector().Send({"a@x.example"}, "x", "", "", "");
  Run(std::chrono::minutes(1));
  executor_.StepWallClock(std::chrono::hours(24 * 30));
  Run(std::chrono::minutes(9));
  EXPECT_EQ(Status().expired_total(), 0U);
  Run(std::chrono::minutes(3));
  EXPECT_EQ(Status().expired_total(), 1U) << "it has been quiet: the new time is believed";
}

}  // namespace
}  // namespace sluice::queue
