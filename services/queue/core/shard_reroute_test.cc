// reroute-to-virtual-mta and backoff-reroute-to-virtual-mta: new mail and what waits go by the
// other virtual MTA, once, durably, and nothing is lost on the way.
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using std::chrono::seconds;
using testing::TestWorker;

class ShardRerouteTest : public testing::PolicyShardFixture {
 protected:
  void SetUp() override {
    PolicyShardFixture::SetUp();
    for (const char* name : {"default", "other", "third"}) {
      Section(std::string("vmta/") + name).mutable_virtual_mta()->set_name(name);
    }
    SetPolicy();
  }
  policy::v1::QueueSettings& Domain(const std::string& pattern) {
    auto* domain = Section("domain/" + pattern).mutable_domain();
    domain->set_pattern(pattern);
    return *domain->mutable_settings();
  }
  uint64_t Waiting(const std::string& queue) { return Queue(queue).recipients(); }
  void SetBackoff(bool backoff) {
    v1::SetQueueModeRequest request;
    request.set_pattern("x.example/default");
    request.set_backoff(backoff);
    request.set_author("olive");
    shard_->SetQueueMode(request, [](auto) {});
    Run();
  }
  std::vector<common::v1::Event> Rerouted() {
    std::vector<common::v1::Event> events;
    shard_->ReadEvents({}, [&](auto response) {
      for (const auto& event : response->events()) {
        if (event.kind() == common::v1::EVENT_KIND_REROUTED) events.push_back(event);
      }
    });
    Run();
    return events;
  }
};

TEST_F(ShardRerouteTest, NewMailGoesByTheVirtualMtaThatTheSettingsName) {
  Domain("x.example").set_reroute_to_virtual_mta("Other");
  SetPolicy();
  injector().Send({"a@x.example", "b@y.example"});
  Run();
  EXPECT_EQ(Waiting("x.example/default"), 0U);
  EXPECT_EQ(Waiting("x.example/other"), 1U);
  EXPECT_EQ(Waiting("y.example/default"), 1U);
}

TEST_F(ShardRerouteTest, WhatWaitsMovesWhenThePolicyChangesAndAKillLosesNothing) {
  for (int i = 0; i < 1200; ++i) injector().Send({"a" + std::to_string(i) + "@x.example"});
  Run(seconds(1));
  ASSERT_EQ(Waiting("x.example/default"), 1200U);
  Domain("x.example").set_reroute_to_virtual_mta("other");
  SetPolicy();
  Run(seconds(1));
  Kill();
  Open();
  SetPolicy();
  Run(seconds(20));
  EXPECT_EQ(Waiting("x.example/default"), 0U);
  EXPECT_EQ(Waiting("x.example/other"), 1200U);
  EXPECT_EQ(store_.rows(Family::kDeliveries), 1200U);
}

TEST_F(ShardRerouteTest, BackoffModeMovesWhatWaitsAndWhatComes) {
  Domain("x.example").set_backoff_reroute_to_virtual_mta("other");
  SetPolicy();
  injector().Send({"a@x.example"}, "Subject: x\r\n\r\nhi\r\n", "job7");
  Run();
  EXPECT_EQ(Waiting("x.example/default"), 1U);
  SetBackoff(true);
  Run(seconds(1));
  injector().Send({"b@x.example"});
  Run();
  EXPECT_EQ(Waiting("x.example/default"), 0U);
  EXPECT_EQ(Waiting("x.example/other"), 2U);
  const auto events = Rerouted();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].from_queue(), "x.example/default");
  EXPECT_EQ(events[0].queue(), "x.example/other");
  EXPECT_EQ(events[0].reason(), "backoff-reroute-to-virtual-mta");
  // Normal again: new mail goes the usual way, what was moved stays.
  SetBackoff(false);
  injector().Send({"c@x.example"});
  Run(seconds(10));
  EXPECT_EQ(Waiting("x.example/default"), 1U);
  EXPECT_EQ(Waiting("x.example/other"), 2U);
  TestWorker& worker = workers_.empty() ? AddWorker("w1", 1, {}, {"other"}) : *workers_[0];
  worker.auto_credit = 5;
  Run(seconds(1));
  EXPECT_EQ(worker.leases.size(), 2U);
}

// What a worker has is moved when it comes back.
TEST_F(ShardRerouteTest, ADeferredRecipientFollows) {
  Domain("x.example").set_backoff_reroute_to_virtual_mta("other");
  SetPolicy();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  SetBackoff(true);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 421, "no");
  Run(seconds(10));
  EXPECT_EQ(Waiting("x.example/default"), 0U);
  EXPECT_EQ(Waiting("x.example/other"), 1U);
}

TEST_F(ShardRerouteTest, TwoQueuesThatNameEachOtherMoveARecipientOnce) {
  auto* vmta = Section("vmta/other").mutable_virtual_mta();
  vmta->set_name("other");
  vmta->mutable_queue_defaults()->set_reroute_to_virtual_mta("default");
  Domain("x.example").set_reroute_to_virtual_mta("other");
  SetPolicy();
  injector().Send({"a@x.example"});
  Run(seconds(20));
  EXPECT_EQ(Waiting("x.example/other"), 1U);
  EXPECT_TRUE(Rerouted().empty());  // it came there at once
}

TEST_F(ShardRerouteTest, APoolSendsItByAnotherOfItsMembers) {
  auto* pool = Section("pool/all").mutable_pool();
  pool->set_name("all");
  pool->add_virtual_mtas("default");
  pool->add_virtual_mtas("other");
  pool->add_virtual_mtas("third");
  Domain("x.example").set_reroute_to_virtual_mta("all");
  SetPolicy();
  for (int i = 0; i < 4; ++i) injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(Waiting("x.example/default"), 0U);
  EXPECT_EQ(Waiting("x.example/other") + Waiting("x.example/third"), 4U);
}

TEST_F(ShardRerouteTest, WhatAnOperatorPausedStays) {
  injector().Send({"a@x.example"});
  Run();
  Pause("x.example/default", "");
  Domain("x.example").set_reroute_to_virtual_mta("other");
  SetPolicy();
  Run(seconds(10));
  EXPECT_EQ(Waiting("x.example/default"), 1U);
}

}  // namespace
}  // namespace sluice::queue
