// What operators do with queued mail of one shard: it is found, counted and deleted, in whatever
// state it is.
#include "services/queue/testing/shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::ShardFixture;
using testing::TestWorker;

using ShardMailTest = ShardFixture;

TEST_F(ShardMailTest, DeletedMailIsGoneAndItsEventSaysWho) {
  injector().Send({"a@x.example", "b@x.example"});
  injector().Send({"a@y.example"});
  Run();
  v1::DeleteMessagesRequest request;
  request.mutable_filter()->set_rcpt("a@X.example");
  request.set_author("ops");
  uint64_t deleted = 0;
  shard_->DeleteMessages(request, [&deleted](auto response) { deleted = response->recipients(); });
  Run();
  EXPECT_EQ(deleted, 1U);
  EXPECT_EQ(Status().recipients(), 2U);
  v1::ReadEventsResponse events;
  shard_->ReadEvents({}, [&events](auto response) { events = *response; });
  bool found = false;
  for (const auto& event : events.events()) {
    found |= event.kind() == common::v1::EVENT_KIND_DELETED && event.rcpt() == "a@x.example";
  }
  EXPECT_TRUE(found);
  shard_->DeleteMessages({}, [](auto response) { EXPECT_FALSE(response.ok()); });
}

// What an operator deletes while a worker has it goes when the worker gives it back, also where the
// shard was killed in between.
TEST_F(ShardMailTest, ADeleteOfLeasedMailSurvivesAKill) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@d.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 1u);
  const uint64_t lease = worker.leases[0].lease.lease_id();
  v1::DeleteMessagesRequest request;
  request.mutable_filter()->set_all(true);
  request.set_author("op");
  bool answered = false;
  shard_->DeleteMessages(request, [&](auto response) {
    answered = true;
    EXPECT_EQ(response->leased(), 1u);
  });
  Run();
  ASSERT_TRUE(answered);
  Kill();
  Open();
  TestWorker& again = AddWorker("w1", 1, {lease});
  Run();
  again.Answer(lease, v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  Run();
  EXPECT_EQ(Status().recipients(), 0u);
  EXPECT_EQ(Status().transient_total(), 0u);
}

TEST_F(ShardMailTest, ADeleteOfLeasedMailHoldsAlsoWhereItsLeaseComesBackUnused) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@d.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 1u);
  v1::DeleteMessagesRequest request;
  request.mutable_filter()->set_all(true);
  shard_->DeleteMessages(request, [](auto) {});
  Run();
  worker.Return(worker.leases[0].lease.lease_id());
  Run();
  EXPECT_EQ(Status().recipients(), 0u);
}

// Its answer has come and waits for its commit, by which the recipient moves to a later time.
TEST_F(ShardMailTest, ADeleteFindsMailThatIsJustBeingMoved) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@d.example", "b@d.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 1u);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  executor_.RunPosted();  // the shard has it, the disk not yet
  v1::DeleteMessagesRequest request;
  request.mutable_filter()->set_queue_pattern("d.example/*");
  std::optional<v1::DeleteMessagesResponse> answer;
  shard_->DeleteMessages(request, [&answer](auto response) { answer = *response; });
  Run(std::chrono::seconds(1));
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->recipients(), 2u);
  EXPECT_EQ(answer->leased(), 0u);
  EXPECT_EQ(Status().recipients(), 0u);
  EXPECT_EQ(store_.rows(Family::kDeliveries), 0u);
}

TEST_F(ShardMailTest, ListingFindsEveryRecipientAlsoRightAfterAKill) {
  AddWorker().auto_credit = 1;
  for (int i = 0; i < 300; ++i) injector().Send({"r" + std::to_string(i) + "@x.example"});
  Run();
  Kill();
  Open();
  v1::ListMessagesRequest request;
  request.set_limit(100);
  std::set<std::string> seen;
  for (int page = 0; page < 5; ++page) {
    std::optional<v1::ListMessagesResponse> response;
    shard_->ListMessages(request, [&response](auto answer) { response = *answer; });
    Run(std::chrono::milliseconds(1));
    ASSERT_TRUE(response);
    for (const auto& each : response->recipients()) seen.insert(each.delivery().rcpt());
    request.set_after(response->after());
    if (response->after().empty()) break;
  }
  EXPECT_EQ(seen.size(), 300U);
}

TEST_F(ShardMailTest, CountsAfterAKillAreRightWhileMailComesAndGoes) {
  for (int i = 0; i < 5000; ++i) injector().Send({"r@d" + std::to_string(i % 7) + ".example"});
  Run();
  Kill();
  Open();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 3;
  for (int i = 0; i < 100; ++i) injector().Send({"n@d" + std::to_string(i % 7) + ".example"});
  Run(std::chrono::microseconds(700));
  for (size_t i = 0; i < worker.leases.size(); ++i) {
    worker.Answer(worker.leases[i].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "");
  }
  Run(std::chrono::seconds(3));
  EXPECT_FALSE(Status().counting());
  EXPECT_EQ(Status().recipients(), store_.rows(Family::kDeliveries));
}

}  // namespace
}  // namespace sluice::queue
