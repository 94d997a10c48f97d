// What a shard keeps and for how long (events, idempotency keys, the index), and when it puts mail
// off.
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

class ShardBoundsTest : public testing::PolicyShardFixture {};

TEST_F(ShardBoundsTest, MailIsPutOffFromMaxQueueSizeOnAndTakenAgainWhenThereIsRoom) {
  Defaults();
  policy_.mutable_sections(0)
      ->mutable_content()
      ->mutable_global()
      ->mutable_settings()
      ->set_max_queue_size(1'000'000);
  SetPolicy();
  store_.health().live_bytes = 999'999;
  Run(std::chrono::seconds(2));
  const uint64_t first = injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(first), v1::EnqueueResult::OUTCOME_QUEUED);
  // What came in since the last look at the store counts.
  const uint64_t second = injector().Send({"b@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(second), v1::EnqueueResult::OUTCOME_REFUSED_FULL);
  EXPECT_EQ(Status().spool_limit_bytes(), 1'000'000U);
  // Clients are not let in and turned away by turns.
  store_.health().live_bytes = 950'000;
  Run(std::chrono::seconds(2));
  EXPECT_FALSE(Status().accepting());
  const uint64_t again = injector().Send({"b@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(again), v1::EnqueueResult::OUTCOME_REFUSED_FULL);
  store_.health().live_bytes = 870'000;
  Run(std::chrono::seconds(2));
  const uint64_t third = injector().Send({"c@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(third), v1::EnqueueResult::OUTCOME_QUEUED);
}

TEST_F(ShardBoundsTest, MailIsPutOffBelowSpoolMinFreeSpace) {
  Defaults();
  auto& settings =
      *policy_.mutable_sections(0)->mutable_content()->mutable_global()->mutable_settings();
  settings.set_spool_min_free_space_mb(5'000'000);
  SetPolicy();
  store_.health().volume_free_bytes = uint64_t{4'000'000} << 20;
  Run(std::chrono::seconds(2));
  const uint64_t refused = injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(refused), v1::EnqueueResult::OUTCOME_REFUSED_FULL);
  settings.set_spool_min_free_space_mb(3'000'000);
  SetPolicy();
  const uint64_t taken = injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(taken), v1::EnqueueResult::OUTCOME_QUEUED);
}

TEST_F(ShardBoundsTest, ASpoolThatIsDeliverOnlyTakesNothingAndDeliversWhatItHas) {
  Defaults();
  auto& settings =
      *policy_.mutable_sections(0)->mutable_content()->mutable_global()->mutable_settings();
  SetPolicy();
  injector().Send({"a@x.example"});
  Run();
  settings.set_spool_deliver_only(true);
  SetPolicy();
  const uint64_t refused = injector().Send({"b@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(refused), v1::EnqueueResult::OUTCOME_REFUSED_BUSY);
  EXPECT_NE(Status().not_accepting_reason().find("deliver-only"), std::string::npos);
  auto& worker = AddWorker();
  worker.auto_credit = 1;
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_PERMANENT, 550, "no");
  Run();
  EXPECT_EQ(Status().failed_total(), 1U);
  EXPECT_EQ(Listed(ByRcpt("sender@from.example")), 1) << "its own reports are no new mail";
}

TEST_F(ShardBoundsTest, EventsAreKeptAsLongAsThePolicySays) {
  Defaults();
  auto& settings =
      *policy_.mutable_sections(0)->mutable_content()->mutable_global()->mutable_settings();
  settings.set_events_keep_us(int64_t{600} * 1'000'000);
  SetPolicy();
  injector().Send({"a@x.example"});
  Run(std::chrono::minutes(9));
  EXPECT_EQ(Status().events_dropped_total(), 0U);
  Run(std::chrono::minutes(5));
  EXPECT_EQ(Status().events_dropped_total(), 1U);
  settings.set_events_keep_us(int64_t{86'400} * 1'000'000);
  settings.set_events_keep_bytes(1);
  SetPolicy();
  injector().Send({"b@x.example"});
  Run(std::chrono::minutes(5));
  EXPECT_EQ(Status().events_dropped_total(), 2U);
}

// idempotency-keep: a key is known for that long, and at most an hour more.
TEST_F(ShardBoundsTest, IdempotencyKeysAreKeptAsLongAsThePolicySays) {
  Defaults();
  policy_.mutable_sections(0)
      ->mutable_content()
      ->mutable_global()
      ->mutable_settings()
      ->set_idempotency_keep_us(int64_t{5} * 3600 * 1'000'000);
  SetPolicy();
  injector().Send({"a@x.example"}, "x", "", "key");
  Run(std::chrono::minutes(299));
  const uint64_t second = injector().Send({"a@x.example"}, "x", "", "key");
  Run();
  EXPECT_EQ(injector().outcome(second), v1::EnqueueResult::OUTCOME_DUPLICATE);
  Run(std::chrono::minutes(62));
  EXPECT_EQ(store_.rows(Family::kKeys), 0U);
  const uint64_t third = injector().Send({"a@x.example"}, "x", "", "key");
  Run();
  EXPECT_EQ(injector().outcome(third), v1::EnqueueResult::OUTCOME_QUEUED);
}

TEST_F(ShardBoundsTest, TheIndexHoldsWhatStaysAndNothingOfWhatGoesThrough) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"}, "x", "", "", "");
  Run();
  EXPECT_EQ(store_.rows(Family::kIndex), 0U);
  EXPECT_EQ(Listed(ByRcpt("a@X.EXAMPLE")), 1) << "found among the recent";
  Run(std::chrono::minutes(2));
  EXPECT_GT(store_.rows(Family::kIndex), 0U);
  EXPECT_EQ(Listed(ByRcpt("a@x.example")), 1) << "found by the index";
  Kill();
  Open();
  EXPECT_EQ(Listed(ByRcpt("a@x.example")), 1);
  v1::MessageFilter sender;
  sender.set_sender("sender@from.example");
  EXPECT_EQ(Listed(sender), 0);
  TestWorker& again = AddWorker("w1", 2);
  again.auto_credit = 1;
  Run(std::chrono::seconds(2));
  ASSERT_EQ(again.leases.size(), 1U);
  again.Answer(again.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "");
  Run();
  EXPECT_EQ(store_.rows(Family::kIndex), 0U);
  EXPECT_EQ(Listed(ByRcpt("a@x.example")), 0);
  (void)worker;
}

TEST_F(ShardBoundsTest, AMessageOfManyRecipientsIsFoundByEachOfThem) {
  std::vector<std::string> rcpts;
  for (int i = 0; i < 3000; ++i) rcpts.push_back("r" + std::to_string(i) + "@x.example");
  injector().Send(rcpts, "x", "", "", "list@from.example");
  Run();
  EXPECT_EQ(Listed(ByRcpt("r2999@x.example")), 1);
  v1::MessageFilter sender;
  sender.set_sender("list@from.example");
  v1::ListMessagesRequest request;
  *request.mutable_filter() = sender;
  request.set_limit(700);
  size_t seen = 0;
  for (int page = 0; page < 10; ++page) {
    std::optional<v1::ListMessagesResponse> response;
    shard_->ListMessages(request, [&response](auto answer) { response = *answer; });
    for (int i = 0; i < 100 && !response; ++i) Run(std::chrono::microseconds(1));
    ASSERT_TRUE(response);
    seen += static_cast<size_t>(response->recipients_size());
    if (response->after().empty()) break;
    request.set_after(response->after());
  }
  EXPECT_EQ(seen, 3000U);
}

TEST_F(ShardBoundsTest, TheOutboxDropsWholeStretchesByAgeAlsoOfEarlierRuns) {
  // The null sender is told of no delay.
  injector().Send({"a@x.example"}, "x", "", "", "");
  Run(std::chrono::minutes(2));
  Kill();
  Open();
  injector().Send({"b@x.example"}, "x", "", "", "");
  Run(std::chrono::hours(23));
  v1::ReadEventsResponse events;
  auto read = [&] {
    std::optional<v1::ReadEventsResponse> response;
    shard_->ReadEvents({}, [&response](auto answer) { response = *answer; });
    return response->events_size();
  };
  EXPECT_EQ(read(), 2);
  Run(std::chrono::hours(2));
  EXPECT_EQ(read(), 0);
  EXPECT_EQ(Status().events_dropped_total(), 2U);
  EXPECT_EQ(store_.rows(Family::kEvents), 0U);
}

}  // namespace
}  // namespace sluice::queue
