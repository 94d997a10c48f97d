// One shard over memory, in virtual time: what is durable when, who gets what, and what a kill
// leaves.
#include "services/queue/core/shard.h"

#include "services/queue/testing/shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::ShardFixture;
using testing::TestInjector;
using testing::TestWorker;

using ShardTest = ShardFixture;

size_t MailRows(const MemoryStore& store) {
  return store.rows(Family::kMessages) + store.rows(Family::kBodies) +
         store.rows(Family::kDeliveries) + store.rows(Family::kLeases);
}

TEST_F(ShardTest, AnAnswerComesOnlyWhenTheMessageIsDurable) {
  TestInjector& in = injector();
  const uint64_t token = in.Send({"a@x.example"});
  executor_.Advance(std::chrono::microseconds(100));  // the sync takes 300
  EXPECT_EQ(in.outcome(token), v1::EnqueueResult::OUTCOME_UNSPECIFIED);
  Run();
  EXPECT_EQ(in.outcome(token), v1::EnqueueResult::OUTCOME_QUEUED);
  Kill();
  Open();
  Run(std::chrono::seconds(1));
  EXPECT_EQ(Status().recipients(), 1U);
}

TEST_F(ShardTest, FromInjectionToDeliveredAndNothingIsLeftBehind) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@x.example"}, "Subject: s\r\n\r\nbody\r\n");
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  EXPECT_EQ(worker.leases[0].body, "Subject: s\r\n\r\nbody\r\n");
  EXPECT_EQ(worker.leases[0].lease.deliveries(0).rcpt(), "a@x.example");
  const uint64_t id = worker.leases[0].lease.lease_id();
  worker.Answer(id, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run();
  EXPECT_EQ(worker.acknowledged, std::vector<uint64_t>{id});
  EXPECT_EQ(MailRows(store_), 0U);
  EXPECT_EQ(Status().delivered_total(), 1U);
  EXPECT_EQ(Status().recipients(), 0U);
}

TEST_F(ShardTest, AFreshMessageWithAStandingCreditIsBornLeased) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  ASSERT_EQ(worker.ready.size(), 1U);
  worker.Credit(worker.ready["x.example"].queue_ref(), 3);
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  const uint64_t syncs = committer_->stats().syncs;
  injector().Send({"b@x.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 2U);
  // One sync carried the message and its lease.
  EXPECT_EQ(committer_->stats().syncs, syncs + 1);
}

TEST_F(ShardTest, RecipientsOfOneMessageInOneQueueGoAsAGroupAndSettleOneByOne) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 5;
  injector().Send({"a@x.example", "b@x.example", "c@x.example", "d@y.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 2U);
  const auto& group = worker.leases[0].lease.deliveries_size() == 3 ? worker.leases[0].lease
                                                                    : worker.leases[1].lease;
  ASSERT_EQ(group.deliveries_size(), 3);
  worker.Answer(group.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok",
                {{1, v1::RECIPIENT_OUTCOME_TRANSIENT}, {2, v1::RECIPIENT_OUTCOME_PERMANENT}});
  Run();
  EXPECT_EQ(Status().delivered_total(), 1U);
  EXPECT_EQ(Status().transient_total(), 1U);
  EXPECT_EQ(Status().failed_total(), 1U);
  // b waits, d is leased, and the bounce of c goes to the sender.
  EXPECT_EQ(Status().recipients(), 3U);
  ASSERT_EQ(worker.leases.size(), 3U);
  EXPECT_EQ(worker.leases[2].lease.deliveries(0).rcpt(), "sender@from.example");
  EXPECT_EQ(worker.leases[2].lease.message().mail_from(), "");
  EXPECT_NE(worker.leases[2].body.find("Final-Recipient: rfc822; c@x.example"), std::string::npos);
  EXPECT_NE(worker.leases[2].body.find("Action: failed"), std::string::npos);
  EXPECT_EQ(store_.rows(Family::kBodies), 2U);
}

TEST_F(ShardTest, EachRecipientOfAMailMergeGoesAloneAndItsBounceShowsWhatItGot) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 5;
  const std::string body = "Subject: for [x]\r\n\r\n" + std::string(80, '.');
  injector().edit = [&body](v1::NewMessage& message) {
    message.mutable_message()->set_is_template(true);
    auto* const part = message.mutable_message()->add_parts();
    part->set_number(1);
    part->set_size(body.size());
    for (auto& each : *message.mutable_deliveries()) {
      (*each.mutable_delivery()->mutable_merge_variables())["x"] = each.delivery().rcpt();
    }
  };
  injector().Send({"a@x.example", "b@x.example", "c@x.example"}, body);
  Run();
  ASSERT_EQ(worker.leases.size(), 3U);
  for (const auto& each : worker.leases) EXPECT_EQ(each.lease.deliveries_size(), 1);
  EXPECT_EQ(store_.rows(Family::kBodies), 1U);
  injector().edit = nullptr;
  worker.Answer(worker.leases[1].lease.lease_id(), v1::RECIPIENT_OUTCOME_PERMANENT, 550, "no");
  Run();
  ASSERT_EQ(worker.leases.size(), 4U);
  EXPECT_NE(worker.leases[3].body.find("Subject: for b@x.example"), std::string::npos);
  // A fresh one for a warm connection, too.
  injector().edit = [](v1::NewMessage& message) { message.mutable_message()->set_verp(true); };
  injector().Send({"a@x.example", "b@x.example"});
  Run();
  for (const auto& each : worker.leases) EXPECT_EQ(each.lease.deliveries_size(), 1);
  EXPECT_EQ(worker.leases.size(), 6U);
}

TEST_F(ShardTest, ADeferredRecipientComesAgainAfterItsStep) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  injector().Send({"a@x.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  Run(std::chrono::minutes(9));
  EXPECT_EQ(worker.leases.size(), 1U);
  Run(std::chrono::minutes(2));
  ASSERT_EQ(worker.leases.size(), 2U);
  EXPECT_EQ(worker.leases[1].lease.deliveries(0).attempts(), 1U);
  EXPECT_EQ(worker.leases[1].lease.deliveries(0).last_reply().text(), "later");
}

TEST_F(ShardTest, AKillLosesNoAcceptedMessageAndGivesNoLeaseTwiceWhileItsWorkerMayStillSend) {
  TestWorker& worker = AddWorker("w1", 7);
  worker.auto_credit = 1;
  injector().Send({"a@x.example"});
  injector().Send({"b@y.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 2U);
  const uint64_t kept = worker.leases[0].lease.lease_id();
  Kill();
  Open();
  // The same process comes back and still has one of the two.
  TestWorker& again = AddWorker("w1", 7, {kept});
  again.auto_credit = 5;
  Run();
  ASSERT_EQ(again.leases.size(), 1U);  // the other one never arrived
  again.Answer(kept, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  again.Answer(again.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run(std::chrono::seconds(2));
  EXPECT_EQ(Status().recipients(), 0U);
  EXPECT_EQ(MailRows(store_), 0U);
}

TEST_F(ShardTest, ALostWorkersMailWaitsUntilItCannotBeSendingAnyMore) {
  AddWorker("w1").auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  workers_[0]->Drop();
  Run();
  TestWorker& other = AddWorker("w2");
  other.auto_credit = 1;
  Run(options_.lease + options_.lost_contact_grace - std::chrono::seconds(2));
  EXPECT_TRUE(other.leases.empty());
  Run(std::chrono::seconds(5));
  ASSERT_EQ(other.leases.size(), 1U);
  EXPECT_EQ(other.leases[0].lease.deliveries(0).lost_leases(), 1U);
  EXPECT_EQ(other.leases[0].lease.deliveries(0).attempts(), 0U);
}

TEST_F(ShardTest, WhoMeansAnotherShardIsToldSoAndChangesNothing) {
  TestWorker& right = AddWorker("w1", 2);
  right.auto_credit = 1;
  Run();
  InprocStreamClient<v1::DispatchRequest, v1::DispatchResponse> dispatch(shard_->dispatch());
  InprocStreamClient<v1::EnqueueRequest, v1::EnqueueResponse> enqueue(shard_->enqueue());
  struct Closed final : Stream<v1::DispatchRequest, v1::DispatchResponse>::Handler,
                        Stream<v1::EnqueueRequest, v1::EnqueueResponse>::Handler {
    void OnFrame(Frame<v1::DispatchResponse>) override { ADD_FAILURE(); }
    void OnFrame(Frame<v1::EnqueueResponse>) override { ADD_FAILURE(); }
    void OnClosed(absl::Status status) override { statuses.push_back(std::move(status)); }
    std::vector<absl::Status> statuses;
  } closed;
  auto worker = dispatch.Open(executor_);
  worker->Start(&closed);
  Frame<v1::DispatchRequest> hello;
  hello.header.mutable_hello()->set_worker("w1");
  hello.header.mutable_hello()->set_incarnation(3);
  hello.header.mutable_hello()->set_shard("shard-7");
  worker->Send(std::move(hello));
  auto injector_stream = enqueue.Open(executor_);
  injector_stream->Start(&closed);
  Frame<v1::EnqueueRequest> question;
  question.header.set_shard("shard-7");
  injector_stream->Send(std::move(question));
  Run();
  ASSERT_EQ(closed.statuses.size(), 2U);
  for (const absl::Status& status : closed.statuses) {
    EXPECT_EQ(status, absl::FailedPreconditionError("this is shard shard-0, not shard-7"));
  }
  // The worker's right connection stands.
  EXPECT_FALSE(right.closed);
  injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(right.leases.size(), 1U);
}

TEST_F(ShardTest, ANewIncarnationGivesBackTheLeasesOfTheDeadOneAtOnce) {
  AddWorker("w1", 1).auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  TestWorker& next = AddWorker("w1", 2);
  next.auto_credit = 1;
  Run(std::chrono::seconds(2));
  ASSERT_EQ(next.leases.size(), 1U);
  EXPECT_EQ(next.leases[0].lease.deliveries(0).lost_leases(), 1U);
}

TEST_F(ShardTest, AfterFiveLostLeasesAMessageIsHeldAndNotBounced) {
  injector().Send({"a@x.example", "b@x.example"});
  for (uint64_t incarnation = 1; incarnation <= 8; ++incarnation) {
    AddWorker("w1", incarnation).auto_credit = 10;
    Run(std::chrono::seconds(2));
  }
  EXPECT_TRUE(workers_.back()->leases.empty());
  EXPECT_EQ(workers_[1]->leases.size(), 1U);
  EXPECT_EQ(workers_[2]->leases.size(), 2U) << "alone after two";
  EXPECT_EQ(Status().held_recipients(), 2U);
  EXPECT_EQ(Status().recipients(), 2U);
  v1::ReleaseMessagesRequest request;
  request.mutable_filter()->set_all(true);
  shard_->ReleaseMessages(request, [](auto response) { EXPECT_EQ(response->recipients(), 2U); });
  Run(std::chrono::seconds(2));
  ASSERT_EQ(workers_.back()->leases.size(), 1U);
  EXPECT_EQ(workers_.back()->leases[0].lease.deliveries_size(), 2) << "together again";
}

TEST_F(ShardTest, AQueueThatReachesNoMxRetriesAsAQueueAndItsRecipientsStayUntouched) {
  TestWorker& worker = AddWorker();
  for (int i = 0; i < 50; ++i) injector().Send({"a@x.example"});
  Run();
  const size_t rows = store_.rows(Family::kDeliveries);
  worker.Fail(worker.ready["x.example"].queue_ref(), false, false);
  Run();
  EXPECT_EQ(store_.rows(Family::kDeliveries), rows);
  v1::QueueStatus queue;
  shard_->GetQueue(
      [] {
        v1::GetQueueRequest request;
        request.set_name("x.example/default");
        return request;
      }(),
      [&queue](auto response) { queue = response->queue(); });
  EXPECT_EQ(queue.mode(), "retry");
  EXPECT_NE(queue.reason().find("no MX answers"), std::string::npos);
  const int announcements = worker.announcements;
  injector().Send({"new@x.example"});
  Run(std::chrono::minutes(9));
  EXPECT_EQ(worker.announcements, announcements) << "new mail waits";
  worker.auto_credit = 1;
  Run(std::chrono::minutes(2));
  ASSERT_EQ(worker.leases.size(), 1U);
  EXPECT_TRUE(worker.ready["x.example"].retry_probe());
  EXPECT_EQ(worker.leases[0].lease.deliveries(0).attempts(), 0U);
}

TEST_F(ShardTest, RetryModeSurvivesAKill) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  worker.Fail(worker.ready["x.example"].queue_ref(), false, false);
  Run();
  Kill();
  Open();
  TestWorker& again = AddWorker("w1", 2);
  Run(std::chrono::minutes(8));
  EXPECT_EQ(again.announcements, 0);
  Run(std::chrono::minutes(3));
  EXPECT_GT(again.announcements, 0);
}

TEST_F(ShardTest, APermanentQueueFailureBouncesWhatIsDue) {
  TestWorker& worker = AddWorker();
  for (int i = 0; i < 20; ++i) injector().Send({"a@nowhere.example"});
  Run();
  worker.Fail(worker.ready["nowhere.example"].queue_ref(), true, true);
  Run();
  EXPECT_EQ(Status().failed_total(), 20U);
  EXPECT_EQ(worker.ready.count("from.example"), 1U) << "the senders hear of it";
}

TEST_F(ShardTest, MailExpiresAlsoInAQueueThatNobodyServes) {
  injector().notify = 4;  // of the failure, and of no delay
  injector().Send({"a@x.example"});
  injector().Send({"b@x.example"}, "Subject: null sender\r\n\r\n", "", "", "");
  Run(std::chrono::hours(24 * 4));
  EXPECT_EQ(Status().expired_total(), 0U);
  Run(std::chrono::hours(24));
  EXPECT_EQ(Status().expired_total(), 2U);
  // One bounce: the null sender gets none.
  EXPECT_EQ(Status().recipients(), 1U);
}

TEST_F(ShardTest, OneIdempotencyKeyMakesOneMessage) {
  TestInjector& in = injector();
  const uint64_t first = in.Send({"a@x.example"}, "x", "", "key-1");
  const uint64_t second = in.Send({"a@x.example"}, "x", "", "key-1");
  Run();
  EXPECT_EQ(in.outcome(first), v1::EnqueueResult::OUTCOME_QUEUED);
  EXPECT_EQ(in.outcome(second), v1::EnqueueResult::OUTCOME_IN_FLIGHT);
  const uint64_t third = in.Send({"a@x.example"}, "x", "", "key-1");
  Run();
  EXPECT_EQ(in.outcome(third), v1::EnqueueResult::OUTCOME_DUPLICATE);
  EXPECT_EQ(in.results[third].message_id(), in.results[first].message_id());
  Run(std::chrono::minutes(130));
  const uint64_t fourth = in.Send({"a@x.example"}, "x", "", "key-1");
  Run();
  EXPECT_EQ(in.outcome(fourth), v1::EnqueueResult::OUTCOME_QUEUED);
}

TEST_F(ShardTest, AFailedSyncIsRefusedToAllWhoWaitAndForEver) {
  absl::Status failure;
  shard_->set_on_failed([&failure](const absl::Status& status) { failure = status; });
  store_.FailNextSync();
  const uint64_t token = injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(token), v1::EnqueueResult::OUTCOME_STORE_FAILED);
  EXPECT_FALSE(failure.ok());
  const uint64_t later = injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(later), v1::EnqueueResult::OUTCOME_STORE_FAILED);
}

TEST_F(ShardTest, AStallingStoreRefusesMailAndTakesResults) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  store_.health().stalling = true;
  Run(std::chrono::seconds(1));
  const uint64_t token = injector().Send({"b@x.example"});
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run();
  EXPECT_EQ(injector().outcome(token), v1::EnqueueResult::OUTCOME_REFUSED_BUSY);
  EXPECT_EQ(Status().delivered_total(), 1U);
}

TEST_F(ShardTest, ABigJobDoesNotStandBeforeASmallOne) {
  for (int i = 0; i < 500; ++i) injector().Send({"big@x.example"}, "x", "big");
  Run();
  for (int i = 0; i < 5; ++i) injector().Send({"small@x.example"}, "x", "small");
  Run();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 60;
  Run();
  int small = 0;
  for (const auto& held : worker.leases) {
    small += held.lease.deliveries(0).rcpt() == "small@x.example" ? 1 : 0;
  }
  EXPECT_GE(worker.leases.size(), 60U);
  EXPECT_EQ(small, 5);
}

TEST_F(ShardTest, EmptyQueuesAreForgottenOnceTheirWorkerLetsGo) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "");
  Run();
  EXPECT_EQ(Status().queues(), 1U);
  worker.Revoke(worker.ready["x.example"].queue_ref(), true);
  Run();
  EXPECT_EQ(Status().queues(), 0U);
  EXPECT_EQ(store_.rows(Family::kQueues), 0U);
}

}  // namespace
}  // namespace sluice::queue
