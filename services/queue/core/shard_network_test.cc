// What a network with retries does to one shard: hellos and answers that come late on a stream that
// its worker has given up, messages that come twice, bodies whose message never comes.
#include <memory>
#include <string>

#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::TestWorker;

class ShardNetworkTest : public testing::PolicyShardFixture {
 protected:
  struct UploadHandler final : Stream<v1::UploadRequest, v1::UploadResponse>::Handler {
    void OnFrame(Frame<v1::UploadResponse> frame) override {
      if (frame.header.has_opened()) id = frame.header.opened().upload_id();
    }
    void OnClosed(absl::Status) override {}
    uint64_t id = 0;
  };
  // The worker "w1" with a group of two whose lease it did not renew: taken back, and leased again.
  TestWorker& LeasedTwice() {
    TestWorker& worker = AddWorker("w1");
    worker.auto_credit = 1;
    injector().Send({"a@x.example", "b@x.example"}, "x", "", "", "");
    Run();
    worker.auto_credit = 5;
    Run(options_.lease + options_.lost_contact_grace + seconds(5));
    return worker;
  }
  // A body of one chunk, finished. Its stream stays open.
  uint64_t Upload() {
    InprocStreamClient<v1::UploadRequest, v1::UploadResponse> client(shard_->upload());
    upload_handler_ = std::make_unique<UploadHandler>();
    upload_stream_ = client.Open(executor_);
    upload_stream_->Start(upload_handler_.get());
    Frame<v1::UploadRequest> open;
    open.header.mutable_open()->set_token(1);
    upload_stream_->Send(std::move(open));
    Run();
    Frame<v1::UploadRequest> chunk;
    chunk.header.mutable_chunk()->set_upload_id(upload_handler_->id);
    chunk.header.mutable_chunk()->set_last(true);
    chunk.bodies.emplace_back(std::string(200'000, 'x'));
    upload_stream_->Send(std::move(chunk));
    Run();
    return upload_handler_->id;
  }
  uint64_t SendUpload(uint64_t upload, const std::string& key) {
    injector().edit = [upload](v1::NewMessage& message) { message.set_upload_id(upload); };
    const uint64_t token = injector().Send({"a@x.example"}, "", "", key);
    injector().edit = nullptr;
    Run();
    return token;
  }
  void TearDown() override { upload_stream_.reset(); }

  std::unique_ptr<UploadHandler> upload_handler_;
  std::shared_ptr<Stream<v1::UploadRequest, v1::UploadResponse>> upload_stream_;
};

// The network brings the first stream's hello after the second one's: believed, it would take back
// what the worker is sending, and give it out again.
TEST_F(ShardNetworkTest, AHelloThatComesAfterALaterOneChangesNothing) {
  TestWorker& current = AddWorker("w1", 7, {}, {"default"}, 2);
  current.auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  ASSERT_EQ(current.leases.size(), 1U);
  TestWorker& late = AddWorker("w1", 7, {}, {"default"}, 1);
  late.auto_credit = 1;
  Run(seconds(2));
  ASSERT_TRUE(late.closed.has_value());
  EXPECT_EQ(late.closed->code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(late.leases.empty());
  EXPECT_FALSE(current.closed.has_value());
  EXPECT_EQ(current.leases.size(), 1U);
  current.Answer(current.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run();
  EXPECT_EQ(Status().recipients(), 0U);
  EXPECT_EQ(current.acknowledged.size(), 1U);
}

// Also where the later stream is gone by then.
TEST_F(ShardNetworkTest, ALateHelloChangesNothingWhileItsWorkerIsAway) {
  AddWorker("w1", 7, {}, {"default"}, 2).auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  ASSERT_EQ(workers_[0]->leases.size(), 1U);
  const uint64_t held = workers_[0]->leases[0].lease.lease_id();
  workers_[0]->Drop();
  Run();
  TestWorker& late = AddWorker("w1", 7, {}, {"default"}, 1);
  TestWorker& older = AddWorker("w1", 6, {}, {"default"}, 9);
  late.auto_credit = older.auto_credit = 5;
  Run(seconds(2));
  EXPECT_TRUE(late.closed.has_value());
  EXPECT_TRUE(older.closed.has_value());
  TestWorker& next = AddWorker("w1", 7, {held}, {"default"}, 3);
  next.auto_credit = 5;
  Run(seconds(2));
  EXPECT_TRUE(next.leases.empty()) << "it still has it";
  next.Answer(held, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run();
  EXPECT_EQ(Status().recipients(), 0U);
}

// A machine whose clock was set back gives its worker a lower number than before.
TEST_F(ShardNetworkTest, AnOlderIncarnationIsBelievedWhenTheNewerOneDoesNotComeBack) {
  AddWorker("w1", 7, {}, {"default"}, 1);
  Run();
  workers_[0]->Drop();
  Run(minutes(1));
  TestWorker& back = AddWorker("w1", 6, {}, {"default"}, 1);
  back.auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  EXPECT_FALSE(back.closed.has_value());
  EXPECT_EQ(back.leases.size(), 1U);
}

// What a stream still brings after a later one of its worker, or the worker's next process, has
// taken over: answers are true all the same, anything else means nothing.
TEST_F(ShardNetworkTest, AnAnswerOnAStreamThatWasGivenUpCounts) {
  TestWorker& old = AddWorker("w1", 7, {}, {"default"}, 1);
  old.auto_credit = 2;
  injector().Send({"a@x.example"});
  injector().Send({"b@x.example"});
  Run();
  ASSERT_EQ(old.leases.size(), 2U);
  const uint64_t first = old.leases[0].lease.lease_id();
  const uint64_t second = old.leases[1].lease.lease_id();
  TestWorker& next = AddWorker("w1", 7, {first, second}, {"default"}, 2);
  Run();
  old.Answer(first, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "late");
  Run();
  EXPECT_EQ(Status().delivered_total(), 1U);
  EXPECT_EQ(next.acknowledged, std::vector<uint64_t>{first});
  next.Answer(first, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "told twice");
  Run();
  EXPECT_EQ(Status().delivered_total(), 1U);
  // The process dies after the final reply to the other one; its answer is still on its way.
  TestWorker& reborn = AddWorker("w1", 8, {}, {"default"}, 1);
  Run();
  next.Answer(second, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "late");
  Run();
  EXPECT_EQ(Status().delivered_total(), 2U);
  EXPECT_EQ(Status().recipients(), 0U);
  EXPECT_TRUE(reborn.leases.empty());
  Frame<v1::DispatchRequest> renewal;
  renewal.header.set_renew_all(true);
  old.Say(std::move(renewal));
  Run();
  EXPECT_TRUE(old.closed.has_value());
  EXPECT_FALSE(reborn.closed.has_value());
}

TEST_F(ShardNetworkTest, ALateDeliveredWinsOverTheNextLease) {
  TestWorker& first = LeasedTwice();
  ASSERT_EQ(first.leases.size(), 2U);
  const uint64_t old_lease = first.leases[0].lease.lease_id();
  ASSERT_EQ(first.lost, std::vector<uint64_t>{old_lease});
  first.Answer(old_lease, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "late");
  Run();
  EXPECT_EQ(Status().delivered_total(), 2U);
  EXPECT_EQ(store_.rows(Family::kDeliveries), 0U);
  // What the second one says changes nothing any more.
  first.Answer(first.leases[1].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "no");
  Run();
  EXPECT_EQ(Status().recipients(), 0U);
  EXPECT_EQ(store_.rows(Family::kMessages), 0U);
  EXPECT_EQ(store_.rows(Family::kLeases), 0U);
}

TEST_F(ShardNetworkTest, ALateDeliveredCountsAlsoWhereTheMailWaitsAndAfterARestart) {
  AddWorker("w1").auto_credit = 1;
  injector().Send({"a@x.example"}, "x", "", "", "");
  Run();
  const uint64_t lease = workers_[0]->leases[0].lease.lease_id();
  Run(options_.lease + options_.lost_contact_grace + seconds(5));
  Kill();
  Open();
  TestWorker& again = AddWorker("w1", 1, {lease});
  Run();
  EXPECT_EQ(again.lost, std::vector<uint64_t>{lease});
  again.Answer(lease, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "late");
  Run(seconds(1));
  EXPECT_EQ(again.acknowledged, std::vector<uint64_t>{lease});
  EXPECT_EQ(store_.rows(Family::kDeliveries), 0U);
}

// One of a group ended by a late answer of the lease before; then the shard is killed. What the
// worker says of the others must still count, or they are sent again.
TEST_F(ShardNetworkTest, AfterALateAnswerAndARestartTheRestOfAGroupIsStillAnswered) {
  TestWorker& first = LeasedTwice();
  ASSERT_EQ(first.leases.size(), 2U);
  const uint64_t old_lease = first.leases[0].lease.lease_id();
  const uint64_t new_lease = first.leases[1].lease.lease_id();
  first.Answer(old_lease, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "late",
               {{1, v1::RECIPIENT_OUTCOME_TRANSIENT}});
  Run();
  EXPECT_EQ(Status().recipients(), 2U) << "the lease stands until it is answered";
  Kill();
  Open();
  TestWorker& again = AddWorker("w1", 1, {new_lease});
  again.auto_credit = 5;
  Run();
  again.Answer(new_lease, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run(seconds(2));
  EXPECT_TRUE(again.leases.empty());
  EXPECT_EQ(Status().recipients(), 0U);
  EXPECT_EQ(store_.rows(Family::kMessages), 0U);
}

TEST_F(ShardNetworkTest, ABodyWhoseMessageIsNotTakenGoesWithIt) {
  const uint64_t first = SendUpload(Upload(), "key");
  ASSERT_EQ(injector().outcome(first), v1::EnqueueResult::OUTCOME_QUEUED);
  ASSERT_EQ(store_.rows(Family::kBodies), 1U);
  // The client had no answer, and sends all of it again.
  const uint64_t second = SendUpload(Upload(), "key");
  EXPECT_EQ(injector().outcome(second), v1::EnqueueResult::OUTCOME_DUPLICATE);
  EXPECT_EQ(injector().results[second].message_id(), injector().results[first].message_id());
  Run(seconds(1));
  EXPECT_EQ(store_.rows(Family::kBodies), 1U);
  injector().edit = [upload = Upload()](v1::NewMessage& message) {
    message.set_upload_id(upload);
    message.mutable_message()->set_id("short");
  };
  injector().Send({"a@x.example"});
  Run(seconds(1));
  EXPECT_EQ(store_.rows(Family::kBodies), 1U);
}

TEST_F(ShardNetworkTest, ABodyWhoseMessageNeverComesGoesAfterAWhile) {
  const uint64_t upload = Upload();
  upload_stream_.reset();  // its ingest died before it sent the message
  Run(minutes(5));
  EXPECT_EQ(store_.rows(Family::kBodies), 1U) << "the message may be on its way";
  Run(minutes(6));
  EXPECT_EQ(store_.rows(Family::kBodies), 0U);
  const uint64_t token = SendUpload(upload, "");
  EXPECT_EQ(injector().outcome(token), v1::EnqueueResult::OUTCOME_REFUSED_BUSY)
      << "the message is good, and can be sent again";
}

TEST_F(ShardNetworkTest, AKeyIsKnownAfterTheClockWasSetBack) {
  // Just after a bucket, which is an hour, began.
  constexpr int64_t kBucketUs = int64_t{3600} * 1'000'000;
  Run(Duration(kBucketUs - NowUs() % kBucketUs) + seconds(10));
  const uint64_t first = injector().Send({"a@x.example"}, "x", "", "key");
  Run();
  ASSERT_EQ(injector().outcome(first), v1::EnqueueResult::OUTCOME_QUEUED);
  executor_.StepWallClock(-seconds(40));
  const uint64_t second = injector().Send({"a@x.example"}, "x", "", "key");
  Run();
  EXPECT_EQ(injector().outcome(second), v1::EnqueueResult::OUTCOME_DUPLICATE);
}

// What ends or moves in the moment in which its message is indexed leaves no row in the index, and
// none that leads to where it was.
TEST_F(ShardNetworkTest, WhatEndsWhileItIsIndexedLeavesNothingInTheIndex) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  for (int i = 0; i < 40; ++i) {
    injector().Send({"a@x.example", "b@x.example", "c@x.example"}, "x", "", "", "");
    Run();
    Run(seconds(59));
    // The index takes it up within the next seconds: answers come all the while.
    Run(Duration(13'000 * i));
    for (int turn = 0; turn < 40 && !worker.leases.empty(); ++turn) {
      const uint64_t id = worker.leases.back().lease.lease_id();
      worker.leases.clear();
      worker.Answer(id, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok",
                    {{1, v1::RECIPIENT_OUTCOME_TRANSIENT}});
      Run(std::chrono::microseconds(60'000));
    }
    EXPECT_EQ(Listed(ByRcpt("a@x.example")), 0);
    EXPECT_EQ(Listed(ByRcpt("b@x.example")), 1) << "it waits for its next turn";
    Run(minutes(12));
    ASSERT_EQ(worker.leases.size(), 1U);
    worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
    worker.leases.clear();
    Run(seconds(5));
    ASSERT_EQ(Status().recipients(), 0U);
    ASSERT_EQ(store_.rows(Family::kIndex), 0U) << "round " << i;
  }
}

// The policy service, which would say that a pause is over, may be away then.
TEST_F(ShardNetworkTest, APauseOfAJobEndsByItsTime) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  Pause("x.example/*", "job", NowUs() + Duration(minutes(1)).count());
  injector().Send({"a@x.example"}, "x", "job");
  Run(seconds(50));
  EXPECT_TRUE(worker.leases.empty());
  Run(seconds(15));
  ASSERT_EQ(worker.leases.size(), 1U);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run(minutes(2));
  injector().Send({"b@x.example"}, "x", "job");
  Run(seconds(1));
  EXPECT_EQ(worker.leases.size(), 2U) << "a pause that is over holds nothing that comes later";
}

TEST_F(ShardNetworkTest, ThePauseThatLastsLongestHolds) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  Pause("x.example/*", "", NowUs() + Duration(minutes(1)).count());
  auto* forever = Section("control/2").mutable_control();
  forever->set_id("2");
  forever->set_kind(policy::v1::ControlEntry::KIND_PAUSE);
  forever->set_queue_pattern("*/default");
  SetPolicy();
  injector().Send({"a@x.example"});
  Run(minutes(3));
  EXPECT_TRUE(worker.leases.empty());
}

// Mail of a priority of its own that came while its queue was paused.
TEST_F(ShardNetworkTest, WhatCameIntoAPausedQueueGoesWhenItIsResumed) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 5;
  Pause("x.example/*", "");
  injector().edit = [](v1::NewMessage& message) { message.mutable_message()->set_priority(90); };
  injector().Send({"a@x.example"});
  Run();
  EXPECT_TRUE(worker.leases.empty());
  policy_.clear_sections();
  SetPolicy();
  Run(seconds(1));
  EXPECT_EQ(worker.leases.size(), 1U);
}

}  // namespace
}  // namespace sluice::queue
