// What operators do to single recipients, and what they see of them: bounces in place of deletes,
// holds that are counted, and why each one waits.
#include <gtest/gtest.h>

#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

class ShardChangeTest : public testing::PolicyShardFixture {
 protected:
  std::vector<v1::QueuedRecipient> List(const v1::MessageFilter& filter) {
    v1::ListMessagesRequest request;
    *request.mutable_filter() = filter;
    std::optional<v1::ListMessagesResponse> response;
    shard_->ListMessages(request, [&response](auto answer) { response = *answer; });
    for (int i = 0; i < 1000 && !response; ++i) Run(std::chrono::microseconds(1));
    if (!response) return {};
    return {response->recipients().begin(), response->recipients().end()};
  }
  // The one that is queued to this address.
  v1::QueuedRecipient One(const std::string& rcpt) {
    const auto found = List(ByRcpt(rcpt));
    EXPECT_EQ(found.size(), 1U) << rcpt;
    return found.empty() ? v1::QueuedRecipient() : found[0];
  }
  std::vector<common::v1::Event> Events(common::v1::EventKind kind) {
    v1::ReadEventsResponse response;
    shard_->ReadEvents({}, [&response](auto answer) { response = *answer; });
    std::vector<common::v1::Event> events;
    for (const auto& event : response.events()) {
      if (event.kind() == kind) events.push_back(event);
    }
    return events;
  }
  void Delete(bool bounce) {
    v1::DeleteMessagesRequest request;
    request.mutable_filter()->set_rcpt("a@x.example");
    request.set_author("ops");
    request.set_reason("complaint");
    request.set_bounce(bounce);
    shard_->DeleteMessages(request, [](auto) {});
    Run();
  }
  // Holds what a worker takes, by losing it five times.
  void LoseFiveTimes() {
    for (uint64_t incarnation = 1; incarnation <= 6; ++incarnation) {
      AddWorker("w1", incarnation).auto_credit = 1;
      Run(std::chrono::seconds(1));
    }
  }
};

// A worker had it when the operator asked, and the shard was killed before it answered.
TEST_F(ShardChangeTest, ABounceOfLeasedMailTellsTheSenderAlsoAfterAKill) {
  AddWorker().auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  ASSERT_EQ(workers_.back()->leases.size(), 1u);
  const uint64_t lease = workers_.back()->leases[0].lease.lease_id();
  Delete(/*bounce=*/true);
  Kill();
  Open();
  TestWorker& worker = AddWorker("w1", 1, {lease});
  Run();
  worker.Answer(lease, v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  Run();
  const auto failed = Events(common::v1::EVENT_KIND_FAILED);
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].author(), "ops");
  EXPECT_EQ(failed[0].reason(), "complaint");
  EXPECT_EQ(failed[0].dsn_status(), "5.0.0");
  EXPECT_EQ(List(ByRcpt("sender@from.example")).size(), 1u) << "the report to the sender";
}

TEST_F(ShardChangeTest, ADeleteOfLeasedMailTellsNobody) {
  AddWorker().auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  ASSERT_EQ(workers_.back()->leases.size(), 1u);
  Delete(/*bounce=*/false);
  workers_.back()->Return(workers_.back()->leases[0].lease.lease_id());
  Run();
  EXPECT_EQ(Events(common::v1::EVENT_KIND_DELETED).size(), 1u);
  EXPECT_EQ(Status().recipients(), 0u);
}

TEST_F(ShardChangeTest, HeldMailIsCountedAlsoAfterAKillAndUntilItIsReleasedOrEnds) {
  injector().Send({"a@x.example"});
  injector().Send({"b@y.example"});
  Run();
  LoseFiveTimes();
  EXPECT_EQ(Status().held_recipients(), 2u);
  const auto held = Events(common::v1::EVENT_KIND_HELD);
  ASSERT_EQ(held.size(), 2u);
  EXPECT_EQ(held[0].author(), "sluice");
  EXPECT_EQ(held[0].reason(), "its worker was lost five times while it was sent");
  Kill();
  Open();
  Run(std::chrono::seconds(2));
  EXPECT_EQ(Status().held_recipients(), 2u);
  Delete(/*bounce=*/false);
  EXPECT_EQ(Status().held_recipients(), 1u);
  v1::ReleaseMessagesRequest request;
  request.mutable_filter()->set_all(true);
  request.set_author("ops");
  uint64_t released = 0;
  shard_->ReleaseMessages(request, [&released](auto answer) { released = answer->recipients(); });
  Run();
  EXPECT_EQ(released, 1u);
  EXPECT_EQ(Status().held_recipients(), 0u);
  AddWorker("w1", 9).auto_credit = 1;
  Run(std::chrono::seconds(1));
  EXPECT_EQ(workers_.back()->leases.size(), 1u) << "it is tried again";
}

// DESIGN: every queued recipient has a next time and a reason that one command shows.
TEST_F(ShardChangeTest, EachRecipientInAListingSaysWhyItWaits) {
  TestWorker& worker = AddWorker();
  injector().Send({"new@x.example"});
  Run();
  EXPECT_EQ(One("new@x.example").reason(), "the worker looks for its MX or connects");
  EXPECT_GT(One("new@x.example").due_us(), 0);
  worker.Credit(worker.ready["x.example"].queue_ref(), 1);
  Run();
  ASSERT_EQ(worker.leases.size(), 1u);
  EXPECT_EQ(One("new@x.example").state(), "leased");
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  Run();
  EXPECT_EQ(One("new@x.example").reason(), "later");
  EXPECT_GT(One("new@x.example").due_us(), NowUs());

  injector().edit = [this](v1::NewMessage& message) {
    message.mutable_message()->set_not_before_us(NowUs() + 3'600'000'000);
  };
  injector().Send({"timed@t.example"});
  injector().edit = nullptr;
  Run();
  EXPECT_EQ(One("timed@t.example").reason(), "waits for the time that its sender gave");

  injector().SendVia("elsewhere", "no@w.example");
  Run();
  EXPECT_EQ(One("no@w.example").reason(),
            "no worker is connected that owns a source of virtual MTA elsewhere");

  Pause("x.example/*", "");
  Run();
  EXPECT_EQ(One("new@x.example").state(), "paused");
  EXPECT_EQ(One("new@x.example").reason(), "paused by ops: maintenance");

  policy_.clear_sections();
  Pause("", "news");
  injector().Send({"job@j.example"}, "x", "news");
  Run();
  EXPECT_EQ(One("job@j.example").state(), "paused");
  EXPECT_EQ(One("job@j.example").reason(), "its job was paused by ops: maintenance");
}

TEST_F(ShardChangeTest, AQueueSaysHowOldItsMailIs) {
  injector().Send({"a@x.example"});
  Run(std::chrono::minutes(5));
  injector().Send({"b@x.example"});
  Run();
  const int64_t oldest_us = Queue("x.example/default").oldest_queued_us();
  EXPECT_NEAR(static_cast<double>(NowUs() - oldest_us), 300e6, 1e6);
  v1::ListQueuesResponse listed;
  shard_->ListQueues({}, [&listed](auto answer) { listed = *answer; });
  Run();
  ASSERT_EQ(listed.queues_size(), 1);
  EXPECT_EQ(listed.queues(0).oldest_queued_us(), oldest_us);
}

// Recipients of a mail merge have envelope ids of their own (XDFN *envid).
TEST_F(ShardChangeTest, ARecipientsOwnEnvelopeIdIsInItsEventsItsReportAndTheFilter) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 2;
  injector().edit = [](v1::NewMessage& message) {
    message.mutable_message()->set_is_template(true);
    message.mutable_message()->set_envid("all");
    message.mutable_deliveries(1)->mutable_delivery()->set_envelope_id("own");
  };
  injector().Send({"a@x.example", "b@x.example"});
  injector().edit = nullptr;
  Run();
  v1::MessageFilter filter;
  filter.set_envid("own");
  ASSERT_EQ(List(filter).size(), 1u);
  EXPECT_EQ(List(filter)[0].delivery().rcpt(), "b@x.example");
  ASSERT_EQ(worker.leases.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    worker.Answer(worker.leases[i].lease.lease_id(), v1::RECIPIENT_OUTCOME_PERMANENT, 550, "no");
  }
  Run();
  const auto failed = Events(common::v1::EVENT_KIND_FAILED);
  ASSERT_EQ(failed.size(), 2u);
  EXPECT_EQ(failed[0].envid(), "all");
  EXPECT_EQ(failed[1].envid(), "own");
  EXPECT_NE(failed[0].time_first_attempt_us(), 0);
  bool reported = false;
  for (const auto& held : worker.leases) {
    reported |= held.body.find("Original-Envelope-Id: own") != std::string::npos;
  }
  EXPECT_TRUE(reported);
}

}  // namespace
}  // namespace sluice::queue
