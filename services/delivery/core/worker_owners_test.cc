// A worker uses what the policy service's table gives it, and within its lease: nothing else.
#include <functional>

#include "gtest/gtest.h"
#include "services/delivery/core/worker.h"
#include "services/delivery/core/worker_fakes.h"

namespace sluice::delivery {
namespace {

using std::chrono::seconds;

class WorkerOwners : public ::testing::Test {
 protected:
  WorkerOwners() {
    resolver_.answer.outcome = MxOutcome::kFound;
    resolver_.answer.hosts = {{"mx1", 10, {"192.0.2.1"}}};
    resolver_.answer.from_dns = false;
    resolver_.answer.expires = executor_.clock().Now() + std::chrono::hours(1);
    policy::v1::PolicySnapshot snapshot;
    snapshot.set_version(1);
    auto* vmta = snapshot.add_sections()->mutable_content()->mutable_virtual_mta();
    vmta->set_name("v");
    vmta->add_source_hosts()->set_ip("127.0.0.5");
    vmta->add_source_hosts()->set_ip("192.0.2.9");
    auto view = config::PolicyView::Build(snapshot);
    EXPECT_TRUE(view.ok());
    WorkerOptions options;
    options.name = "w1";
    options.incarnation = 7;
    options.follows_owners = true;
    worker_ = std::make_unique<Worker>(options, executor_, resolver_, sites_,
                                       std::vector<ShardAddress>{{"s0", &shard_, nullptr}});
    worker_->set_on_released([this](uint64_t epoch) { released_ = epoch; });
    worker_->SetPolicy(*view);
    worker_->Start();
    executor_.RunPosted();
    shard_.Hello(60);
  }
  // The virtual MTA's addresses, and who has each.
  void Table(uint64_t epoch, const std::string& first, const std::string& second, bool leased) {
    policy::v1::OwnersTable table;
    table.set_epoch(epoch);
    for (const std::string& shard : witnesses_) table.add_witnesses(shard);
    table.set_vouch_us(20'000'000);
    table.set_grace_us(40'000'000);
    auto* entry = table.add_vmtas();
    entry->set_vmta("v");
    entry->set_leased(leased);
    for (const auto& [ip, worker] : {std::pair("127.0.0.5", first), {"192.0.2.9", second}}) {
      if (worker.empty()) continue;
      auto* host = entry->add_hosts();
      host->set_ip(ip);
      host->set_worker(static_cast<uint32_t>(table.workers_size()));
      table.add_workers(worker);
    }
    worker_->SetOwners(config::Owners::Build(table));
    executor_.RunPosted();
  }
  testing::FakeSites::Remote* Connected() {
    executor_.RunPosted();
    if (sites_.open.empty()) return nullptr;
    testing::FakeSites::Remote* remote = sites_.open.front();
    remote->handler->OnReady();
    executor_.RunPosted();
    return remote;
  }
  void RenewLease() { worker_->SetLease(executor_.clock().Now() + seconds(20), seconds(40)); }
  // With a lease, a shard that stands in for the policy service, and a group under way.
  testing::FakeSites::Remote* AtWork() {
    witnesses_ = {"s0"};
    Table(1, "w1", "w1", true);
    RenewLease();
    shard_.Ready(1, 1);
    testing::FakeSites::Remote* remote = Connected();
    if (remote != nullptr) shard_.Lease(10, 1);
    executor_.RunPosted();
    return remote;
  }

  sluice::testing::ManualExecutor executor_;
  testing::FakeSites sites_{executor_};
  testing::FakeResolver resolver_;
  testing::FakeShard shard_;
  std::unique_ptr<Worker> worker_;
  // The shard's answer to what the worker asked last, if it did.
  bool Vouch() {
    const queue::v1::DispatchRequest asked = shard_.Take();
    if (!asked.has_vouch()) return false;
    queue::v1::DispatchResponse response;
    *response.mutable_vouch() = asked.vouch();
    shard_.Say(response);
    executor_.RunPosted();
    return true;
  }

  uint64_t released_ = 0;
  std::vector<std::string> witnesses_;
};

TEST_F(WorkerOwners, NothingIsUsedBeforeThePolicyServiceHasSpoken) {
  shard_.Ready(1, 1);
  executor_.RunPosted();
  EXPECT_TRUE(sites_.open.empty());
  const queue::v1::DispatchRequest said = shard_.Take();
  ASSERT_EQ(said.blocked_size(), 1) << "the operator sees why";
  EXPECT_TRUE(said.blocked(0).in_line()) << "so many are announced, and not all there are";
  Table(1, "w1", "", false);
  EXPECT_EQ(released_, 1u);
  ASSERT_NE(Connected(), nullptr);
  EXPECT_EQ(shard_.Take().credits_size(), 1);
}

TEST_F(WorkerOwners, WhatGoesToAnotherWorkerIsClosedInGoodOrderAndThenReported) {
  Table(1, "w1", "", false);
  shard_.Ready(1, 3);
  testing::FakeSites::Remote* remote = Connected();
  ASSERT_NE(remote, nullptr);
  shard_.Lease(10, 1);
  executor_.RunPosted();
  ASSERT_EQ(remote->under_way.size(), 1u);
  Table(2, "w2", "", false);
  EXPECT_TRUE(remote->quit);
  EXPECT_EQ(released_, 1u) << "the connection is open";
  shard_.Lease(11, 1);  // from before the shard heard of it
  executor_.RunPosted();
  EXPECT_EQ(remote->under_way.size(), 1u);
  EXPECT_EQ(shard_.Take().returned_leases_size(), 1);
  remote->Answer(queue::v1::RECIPIENT_OUTCOME_DELIVERED);
  EXPECT_EQ(released_, 1u);
  remote->Close(true);
  executor_.RunPosted();
  EXPECT_EQ(released_, 2u);
  EXPECT_TRUE(sites_.open.empty());
  EXPECT_EQ(shard_.Take().results_size(), 1);
}

TEST_F(WorkerOwners, AnAddressOfAnotherWorkerIsNotUsedThoughItIsHere) {
  Table(1, "w2", "w1", true);
  RenewLease();
  for (int i = 0; i < 20; ++i) shard_.Ready(1, 1);
  executor_.RunPosted();
  EXPECT_TRUE(sites_.open.empty());
}

TEST_F(WorkerOwners, AtTheEndOfTheLeaseAllIsClosedAndAfterTheGraceItIsCut) {
  // Both addresses are of w1, the second one's worker is elsewhere: whichever has the queue, this
  // test is about the lease.
  Table(1, "w1", "w1", true);
  shard_.Ready(1, 1);
  executor_.RunPosted();
  EXPECT_TRUE(sites_.open.empty()) << "no lease yet";
  RenewLease();
  testing::FakeSites::Remote* remote = Connected();
  ASSERT_NE(remote, nullptr);
  shard_.Lease(10, 1);
  executor_.RunPosted();
  executor_.Advance(seconds(15));
  RenewLease();
  executor_.Advance(seconds(15));
  EXPECT_FALSE(remote->quit) << "it was renewed";
  executor_.Advance(seconds(6));
  EXPECT_TRUE(remote->quit);
  EXPECT_FALSE(remote->aborted);
  executor_.Advance(seconds(40));
  EXPECT_TRUE(remote->aborted) << "its last transaction hangs";
}

// The policy service is away, its shards are there: nobody else can have got what is ours.
TEST_F(WorkerOwners, MoreThanHalfOfTheShardsStandInForThePolicyService) {
  testing::FakeSites::Remote* remote = AtWork();
  ASSERT_NE(remote, nullptr);
  for (int i = 0; i < 4; ++i) {
    executor_.Advance(seconds(3));
    RenewLease();
    EXPECT_FALSE(Vouch()) << "there is no need";
  }
  int asked = 0;
  for (int i = 0; i < 100; ++i) {
    executor_.Advance(seconds(1));
    asked += Vouch() ? 1 : 0;
    ASSERT_FALSE(remote->quit);
  }
  EXPECT_LE(asked, 20);
  EXPECT_GE(asked, 5);
  executor_.Advance(seconds(21));
  EXPECT_TRUE(remote->quit) << "and the shard is away too";
  executor_.Advance(seconds(40));
  EXPECT_TRUE(remote->aborted);
}

TEST_F(WorkerOwners, HalfOfTheShardsAreNotEnough) {
  witnesses_ = {"s0", "s1"};
  Table(1, "w1", "w1", true);
  executor_.Advance(seconds(4));
  EXPECT_TRUE(Vouch());
  shard_.Ready(1, 1);
  EXPECT_EQ(Connected(), nullptr);
}

TEST_F(WorkerOwners, AVouchForAnotherTableOrByAnotherClockIsWorthNothing) {
  witnesses_ = {"s0"};
  Table(2, "w1", "w1", true);
  shard_.Ready(1, 1);
  queue::v1::DispatchResponse response;
  const auto say = [&](uint64_t epoch, int64_t asked_us) {
    response.mutable_vouch()->set_epoch(epoch);
    response.mutable_vouch()->set_asked_us(asked_us);
    shard_.Say(response);
    return Connected() != nullptr;
  };
  const int64_t now_us = executor_.clock().Now().time_since_epoch().count();
  EXPECT_FALSE(say(1, now_us));
  EXPECT_FALSE(say(3, now_us));
  EXPECT_FALSE(say(2, now_us + 1'000'000));
  EXPECT_FALSE(say(2, now_us - 20'000'000));
  EXPECT_TRUE(say(2, now_us));
}

// What it has besides the table ends with the policy service's lease: shards cannot know of it.
TEST_F(WorkerOwners, ShardsDoNotStandInBeforeTheTableIsKeptTo) {
  testing::FakeSites::Remote* remote = AtWork();
  ASSERT_NE(remote, nullptr);
  Table(2, "w2", "w2", true);
  EXPECT_EQ(released_, 1u) << "its transaction hangs";
  for (int i = 0; i < 61; ++i) {
    EXPECT_FALSE(Vouch());
    executor_.Advance(seconds(1));
  }
  EXPECT_TRUE(remote->aborted);
}

// Of mail that no shard has asked for any more: nobody else would end it.
TEST_F(WorkerOwners, WhatIsStillBeingConnectedEndsWithTheLeaseThoughItsShardIsAway) {
  Table(1, "w1", "w1", true);
  RenewLease();
  shard_.Ready(1, 1);
  executor_.RunPosted();
  ASSERT_EQ(sites_.open.size(), 1u);
  shard_.Break();
  executor_.Advance(seconds(19));
  EXPECT_EQ(sites_.open.size(), 1u);
  executor_.Advance(seconds(2));
  EXPECT_TRUE(sites_.open.empty());
}

// Or a shard would announce all queues of the virtual MTA, however many they are.
TEST_F(WorkerOwners, WithoutALeaseTheQueuesOfAVirtualMtaStandInLine) {
  Table(1, "w1", "w1", true);
  shard_.Ready(1, 1);
  executor_.RunPosted();
  queue::v1::DispatchRequest said = shard_.Take();
  ASSERT_EQ(said.blocked_size(), 1);
  EXPECT_TRUE(said.blocked(0).in_line());
  EXPECT_TRUE(said.blocked(0).limit().starts_with("the policy service is away"));
  executor_.Advance(seconds(30));
  EXPECT_EQ(shard_.Take().blocked_size(), 0);
  RenewLease();
  executor_.RunPosted();
  executor_.RunPosted();
  said = shard_.Take();
  ASSERT_GT(said.blocked_size(), 0);
  EXPECT_FALSE(said.blocked(said.blocked_size() - 1).in_line()) << "it has left the line";
  ASSERT_NE(Connected(), nullptr);
  EXPECT_EQ(shard_.Take().credits_size(), 1);
}

TEST_F(WorkerOwners, WithoutLeaseWhatIsNotSharedGoesOn) {
  Table(1, "w1", "", false);
  shard_.Ready(1, 1);
  testing::FakeSites::Remote* remote = Connected();
  ASSERT_NE(remote, nullptr);
  shard_.Lease(10, 1);
  executor_.RunPosted();
  executor_.Advance(std::chrono::minutes(5));
  EXPECT_FALSE(remote->quit);
  EXPECT_FALSE(remote->aborted);
}

}  // namespace
}  // namespace sluice::delivery
