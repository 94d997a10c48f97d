// Nothing stands still unseen: for each cause, one command says why a queue does not move, and
// until when; in UTF-8, whatever a remote host said.
#include <gtest/gtest.h>

#include "services/config/owners.h"
#include "services/config/policy_view.h"
#include "services/queue/testing/shard_fixture.h"

namespace sluice::queue {
namespace {

using std::chrono::seconds;
using testing::TestWorker;

class ShardReasonsTest : public testing::ShardFixture {
 protected:
  v1::QueueStatus Queue(const std::string& name = "x.example/default") {
    v1::QueueStatus status;
    v1::GetQueueRequest request;
    request.set_name(name);
    shard_->GetQueue(request, [&](auto response) {
      if (response.ok()) status = response->queue();
    });
    return status;
  }
  std::string Reason() { return Queue().reason(); }
  int64_t NowUs() { return ToUnixMicros(executor_.clock().WallNow()); }
  void Pause(const std::string& pattern, const std::string& job,
             const std::string& reason = "complaints") {
    policy::v1::PolicySnapshot snapshot;
    snapshot.set_version(++version_);
    auto* entry = snapshot.add_sections()->mutable_content()->mutable_control();
    entry->set_kind(policy::v1::ControlEntry::KIND_PAUSE);
    entry->set_queue_pattern(pattern);
    entry->set_job_id(job);
    entry->set_author("olive");
    entry->set_reason(reason);
    shard_->SetPolicy(*config::PolicyView::Build(snapshot));
    Run();
  }
  // The worker says why it takes nothing.
  void Block(TestWorker& worker, const std::string& limit, int64_t until_us) {
    Frame<v1::DispatchRequest> frame;
    auto* blocked = frame.header.add_blocked();
    blocked->set_queue_ref(worker.ready["x.example"].queue_ref());
    blocked->set_limit(limit);
    blocked->set_until_unix_us(until_us);
    worker.Say(std::move(frame));
    Run();
  }

  uint64_t version_ = 0;
};

// One queue, under the name that DNS has, however the recipient's domain is written.
TEST_F(ShardReasonsTest, DomainsBeyondAsciiAreNamedAsInDns) {
  injector().Send(
      {"a@b\xc3\xbc"
       "cher.example",
       "b@B\xc3\x9c"
       "CHER.example",
       "c@XN--bcher-kva.example"});
  Run();
  EXPECT_EQ(Queue("xn--bcher-kva.example/default").recipients(), 3u);
}

TEST_F(ShardReasonsTest, NoWorkerHasASource) {
  injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(Reason(), "no worker is connected that owns a source of virtual MTA default");
  AddWorker("w1", 1, {}, {"other"});
  Run();
  EXPECT_EQ(Reason(), "no worker is connected that owns a source of virtual MTA default");
}

TEST_F(ShardReasonsTest, ThePolicyServiceGaveItToAnotherWorkerOrToNone) {
  policy::v1::OwnersTable table;
  table.set_epoch(1);
  AddWorker("w1");
  shard_->SetOwners(config::Owners::Build(table));
  injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(Reason(), "the policy service has given it to no worker yet");
  table.set_epoch(2);
  table.add_workers("w2");
  auto* entry = table.add_vmtas();
  entry->set_vmta("default");
  entry->add_hosts();
  shard_->SetOwners(config::Owners::Build(table));
  Run();
  EXPECT_EQ(Reason(), "waits for worker w2, to which the policy service has given it");
}

TEST_F(ShardReasonsTest, WhatTheWorkerSays) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(Reason(), "the worker looks for its MX or connects");
  const int64_t until_us = NowUs() + 60'000'000;
  Block(worker, "max-smtp-out 20", until_us);
  EXPECT_EQ(Reason(), "limit reached: max-smtp-out 20");
  EXPECT_EQ(Queue().next_time_us(), until_us);
  Block(worker, "the policy service is away: no lease", 0);
  EXPECT_EQ(Reason(), "the policy service is away: no lease");
  worker.Credit(worker.ready["x.example"].queue_ref(), 1);
  Run();
  EXPECT_EQ(Reason(), "") << "it moves";
}

TEST_F(ShardReasonsTest, AnOperatorPausedItOrItsJob) {
  AddWorker().auto_credit = 1;
  Pause("x.example/*", "");
  injector().Send({"a@x.example"}, "x", "newsletter");
  Run();
  EXPECT_EQ(Reason(), "paused by olive: complaints");
  EXPECT_EQ(Queue().author(), "olive");
  Pause("x.example/*", "", "");
  EXPECT_EQ(Reason(), "paused by olive") << "who gave no reason";
  Pause("", "newsletter");
  Run();
  EXPECT_EQ(Reason(), "its jobs are paused");
  ASSERT_GE(Queue().lanes_size(), 1);
  EXPECT_TRUE(Queue().lanes(0).paused());
}

// What a remote host says need not be UTF-8; one such reply would make the whole answer unreadable.
TEST_F(ShardReasonsTest, RetryModeShowsTheReplyWhateverItsBytes) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Frame<v1::DispatchRequest> frame;
  auto* failure = frame.header.add_failures();
  failure->set_queue_ref(worker.ready["x.example"].queue_ref());
  failure->mutable_reply()->set_code(554);
  failure->mutable_reply()->set_text("d\xe9sol\xe9");
  worker.Say(std::move(frame));
  Run();
  EXPECT_EQ(Reason(), "no MX could be reached: d?sol?");
  EXPECT_GT(Queue().next_time_us(), NowUs());
  v1::QueueStatus read;
  EXPECT_TRUE(read.ParseFromString(Queue().SerializeAsString()));
}

TEST_F(ShardReasonsTest, DeferredMailAndItsReplyWhateverItsBytes) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 1u);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450,
                "r\xe9"
                "essayez");
  Run();
  EXPECT_EQ(Reason(), "deferred: waits for the next attempt");
  EXPECT_GT(Queue().next_time_us(), NowUs());
  v1::ListMessagesResponse listed;
  v1::ListMessagesRequest request;
  request.mutable_filter()->set_all(true);
  shard_->ListMessages(request, [&](auto response) { listed = *response; });
  Run();
  ASSERT_EQ(listed.recipients_size(), 1);
  EXPECT_EQ(listed.recipients(0).reason(), "r?essayez");
  v1::ListMessagesResponse read;
  EXPECT_TRUE(read.ParseFromString(listed.SerializeAsString()));
}

// Exact where there is little mail, and never more than it is; at a cost that does not grow.
TEST_F(ShardReasonsTest, HowOldTheOldestIs) {
  TestWorker& worker = AddWorker();
  const int64_t first_us = NowUs();
  injector().Send({"a@x.example"});
  Run(seconds(10));
  injector().Send({"b@x.example"});
  Run();
  EXPECT_NEAR(static_cast<double>(Queue().oldest_queued_us()), static_cast<double>(first_us), 1e5);
  EXPECT_FALSE(Queue().oldest_at_least());
  worker.Credit(worker.ready.at("x.example").queue_ref(), 1);
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  EXPECT_NEAR(static_cast<double>(Queue().oldest_queued_us()), static_cast<double>(first_us), 1e5)
      << "with the worker";
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  Run();
  EXPECT_NEAR(static_cast<double>(Queue().oldest_queued_us()), static_cast<double>(first_us), 1e5)
      << "deferred";
  for (int i = 0; i < 40; ++i) injector().Send({"c@x.example"});
  Run();
  EXPECT_GT(Queue().oldest_queued_us(), first_us + 9'000'000) << "not among those tried next";
  EXPECT_TRUE(Queue().oldest_at_least());
}

TEST_F(ShardReasonsTest, TheSenderGaveALaterTime) {
  AddWorker().auto_credit = 1;
  const int64_t when_us = NowUs() + 3'600'000'000;
  injector().edit = [&](v1::NewMessage& message) {
    message.mutable_message()->set_not_before_us(when_us);
  };
  injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(Reason(), "waits for the time that its sender gave");
  EXPECT_EQ(Queue().next_time_us(), when_us);
}

TEST_F(ShardReasonsTest, HeldForLostWorkers) {
  injector().Send({"a@x.example"});
  for (uint64_t incarnation = 1; incarnation <= 7; ++incarnation) {
    AddWorker("w1", incarnation).auto_credit = 10;
    Run(seconds(2));
  }
  const std::string held =
      "held: its worker was lost five times while it was sent; `sluicectl messages release` lets "
      "it "
      "go on, or it expires";
  EXPECT_EQ(Reason(), held);
  EXPECT_GT(Queue().next_time_us(), NowUs()) << "when it expires";
  Kill();
  Open();
  AddWorker("w1", 8).auto_credit = 10;
  Run(seconds(2));
  EXPECT_EQ(Reason(), held) << "also after a kill";
  EXPECT_EQ(Status().held_recipients(), 1u);
}

TEST_F(ShardReasonsTest, ItsWorkerIsLostWithItsMail) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 1u);
  worker.Drop();
  AddWorker("w2");
  injector().Send({"b@x.example"});
  Run();
  EXPECT_EQ(Reason(), "contact with worker w1 is lost while it has mail of this queue");
}

TEST_F(ShardReasonsTest, TheShardShutsDown) {
  injector().Send({"a@x.example"});
  Run();
  shard_->Drain([] {});
  EXPECT_EQ(Reason(), "the shard shuts down");
}

}  // namespace
}  // namespace sluice::queue
