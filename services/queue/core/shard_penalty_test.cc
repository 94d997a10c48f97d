// What a reply of <smtp-pattern> does to its queue, and the size of what is written at once.
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

class ShardPenaltyTest : public testing::PolicyShardFixture {};

// <smtp-pattern>: a minute, twice as long each time, five minutes at most; a delivery ends that.
TEST_F(ShardPenaltyTest, PenaltiesDoubleUntilADelivery) {
  constexpr int64_t kMinuteUs = 60'000'000;
  TestWorker* worker = &AddWorker();
  injector().Send({"a@x.example"});
  injector().Send({"b@x.example"});
  Run();
  const auto minutes = [&] {
    const int64_t asked_us = NowUs();
    worker->Penalise(worker->ready["x.example"].queue_ref(), kMinuteUs, 5 * kMinuteUs);
    Run();
    EXPECT_EQ(Queue("x.example/default").mode(), "retry");
    const int64_t until_us = Queue("x.example/default").retry_until_us();
    Run(Duration(until_us - NowUs()) + std::chrono::seconds(1));
    return (until_us - asked_us + kMinuteUs / 2) / kMinuteUs;
  };
  EXPECT_EQ(minutes(), 1);
  EXPECT_EQ(minutes(), 2);
  Kill();
  Open();
  worker = &AddWorker("w1", 2);
  Run(std::chrono::minutes(10));
  EXPECT_EQ(minutes(), 4) << "a restart forgets nothing";
  EXPECT_EQ(minutes(), 5);
  worker->auto_credit = 1;
  worker->Penalise(worker->ready["x.example"].queue_ref(), kMinuteUs, 5 * kMinuteUs);
  Run(std::chrono::minutes(6));
  ASSERT_FALSE(worker->leases.empty());
  worker->auto_credit = 0;
  worker->Answer(worker->leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run();
  EXPECT_EQ(minutes(), 1);
}

// Neither an answer to what was under way nor new mail ends a penalty; an operator does.
TEST_F(ShardPenaltyTest, APenaltyLastsItsTime) {
  constexpr int64_t kMinuteUs = 60'000'000;
  Defaults().set_retry_upon_new_mail(true);
  SetPolicy();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 3;
  Run();
  for (const char* to : {"a@x.example", "b@x.example", "c@x.example"}) injector().Send({to});
  Run();
  ASSERT_EQ(worker.leases.size(), 3U);
  const auto lease = [&](size_t i) { return worker.leases[i].lease.lease_id(); };
  worker.Answer(lease(0), v1::RECIPIENT_OUTCOME_TRANSIENT, 452, "slow down");
  worker.Penalise(worker.ready["x.example"].queue_ref(), 10 * kMinuteUs, 60 * kMinuteUs);
  Run();
  const int64_t until_us = Queue("x.example/default").retry_until_us();
  worker.Answer(lease(1), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "busy");
  worker.Answer(lease(2), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  injector().Send({"d@x.example"});
  Run(std::chrono::minutes(1));
  EXPECT_EQ(Queue("x.example/default").mode(), "retry");
  EXPECT_EQ(Queue("x.example/default").retry_until_us(), until_us);
  EXPECT_EQ(worker.leases.size(), 3U);
  v1::RetryQueuesRequest request;
  shard_->RetryQueues(request, [](auto) {});
  Run(std::chrono::seconds(1));
  EXPECT_EQ(worker.leases.size(), 4U);
}

// spool-buffer-size: what comes at one moment is written in parts of that size, not in one.
TEST_F(ShardPenaltyTest, ABatchIsAsLargeAsTheSpoolBuffer) {
  auto& settings = *Section("global").mutable_global()->mutable_settings();
  const auto syncs = [&] {
    const uint64_t before = committer_->stats().syncs;
    for (int i = 0; i < 40; ++i) injector().Send({"a@x.example"}, std::string(20'000, 'x'));
    Run();
    return committer_->stats().syncs - before;
  };
  SetPolicy();
  EXPECT_LE(syncs(), 2U);
  settings.set_spool_buffer_size(100'000);
  SetPolicy();
  EXPECT_GE(syncs(), 8U);
  settings.set_spool_buffer_size(0);
  SetPolicy();
  EXPECT_LE(syncs(), 2U);
}

}  // namespace
}  // namespace sluice::queue
