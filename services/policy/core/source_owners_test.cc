// Who has which source and queue, and that nothing changes hands while the one who had it may still
// use it.
#include "services/policy/core/source_owners.h"

#include <optional>

#include "gtest/gtest.h"
#include "services/base/testing/manual_executor.h"
#include "services/config/owners.h"

namespace sluice::policy {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

class SourceOwnersTest : public ::testing::Test {
 protected:
  SourceOwnersTest() { Start({}); }
  void Start(const std::string& embedded) {
    SourceOwnersOptions options;
    options.embedded_worker = embedded;
    options.witnesses = witnesses_;
    owners_.emplace(executor_, options, [this](const v1::OwnersTable& table) {
      disk_ = table;
      return absl::OkStatus();
    });
    if (disk_.epoch() != 0) owners_->Load(disk_);
    owners_->SetConfig(config_);
    executor_.RunPosted();
  }
  void Configure(std::vector<SourceOwners::Vmta> vmtas) {
    config_ = std::move(vmtas);
    owners_->SetConfig(config_);
    executor_.RunPosted();
  }
  // `worker` says what it has, and that it keeps to the table of `released`. True: it gets a lease.
  bool Report(const std::string& worker, const std::vector<std::string>& ips, uint64_t released) {
    v1::ServiceReport report;
    report.set_incarnation(1);
    for (const std::string& ip : ips) report.add_owned_source_ips(ip);
    report.set_released_epoch(released);
    report.set_lease_request(++requests_);
    const auto lease = owners_->OnReport(worker, report);
    executor_.RunPosted();
    return lease.has_value();
  }
  // Of a process of `worker` with that number. True: it gets a lease.
  bool ReportAs(uint64_t incarnation, const std::string& worker) {
    v1::ServiceReport report;
    report.set_incarnation(incarnation);
    report.add_owned_source_ips("192.0.2.1");
    report.set_released_epoch(disk_.epoch());
    report.set_lease_request(++requests_);
    return owners_->OnReport(worker, report).has_value();
  }
  // `shard` has the last table on its disk.
  void Keeps(const std::string& shard) {
    v1::ServiceReport report;
    report.set_shard(shard);
    report.set_released_epoch(disk_.epoch());
    owners_->OnShardReport(report);
    executor_.RunPosted();
  }
  std::shared_ptr<const config::Owners> Table() const { return config::Owners::Build(disk_); }
  std::string OwnerOf(const std::string& queue, const std::string& vmta = "v") const {
    return std::string(Table()->OwnerOf(queue, vmta));
  }
  // A queue of "v" that `worker` has.
  std::string QueueOf(const std::string& worker) const {
    for (int i = 0; i < 100; ++i) {
      const std::string queue = "d" + std::to_string(i) + "/v";
      if (OwnerOf(queue) == worker) return queue;
    }
    ADD_FAILURE() << worker << " has no queue: " << disk_.ShortDebugString();
    return {};
  }
  // v has a source on each of two workers, and both know it.
  void Shared() {
    Configure({{"v", {"192.0.2.1", "192.0.2.2"}, false}});
    Report("w1", {"192.0.2.1"}, disk_.epoch());
    Report("w2", {"192.0.2.2"}, disk_.epoch());
    Report("w1", {"192.0.2.1"}, disk_.epoch());
    ASSERT_EQ(disk_.vmtas(0).hosts_size(), 2) << disk_.ShortDebugString();
    ASSERT_EQ(disk_.vmtas(0).moving_since_epoch(), 0u);
  }

  testing::ManualExecutor executor_;
  std::vector<SourceOwners::Vmta> config_;
  std::vector<std::string> witnesses_;
  v1::OwnersTable disk_;
  std::optional<SourceOwners> owners_;
  uint64_t requests_ = 0;
};

TEST_F(SourceOwnersTest, WhatOneWorkerHasAloneNeedsNoLease) {
  Configure({{"v", {"192.0.2.1"}, false}});
  EXPECT_EQ(disk_.epoch(), 0u) << "nobody is there";
  EXPECT_TRUE(Report("w1", {"192.0.2.1"}, 0));
  EXPECT_EQ(OwnerOf("a/v"), "w1");
  EXPECT_FALSE(Table()->Leased("v"));
  EXPECT_TRUE(Table()->MayUseSource("w1", "192.0.2.1"));
  EXPECT_FALSE(Table()->MayUseSource("w2", "192.0.2.1"));
}

// Reports of a dead process come late and mean nothing; but a machine whose clock was set back
// starts its worker with a lower number, and may not wait for its clock.
TEST_F(SourceOwnersTest, AnOlderProcessIsHeardOnlyWhereTheNewerOneIsGone) {
  Configure({{"v", {"192.0.2.1"}, false}});
  EXPECT_TRUE(ReportAs(5, "w1"));
  executor_.Advance(seconds(30));
  EXPECT_FALSE(ReportAs(4, "w1"));
  executor_.Advance(seconds(30));
  EXPECT_FALSE(ReportAs(4, "w1"));
  executor_.Advance(seconds(30));
  EXPECT_TRUE(ReportAs(4, "w1"));
}

TEST_F(SourceOwnersTest, AQueueChangesHandsOnlyWhenTheOneThatHadItHasLetGo) {
  Configure({{"v", {"192.0.2.1", "192.0.2.2"}, false}});
  Report("w1", {"192.0.2.1"}, 0);
  Report("w1", {"192.0.2.1"}, disk_.epoch());
  Report("w2", {"192.0.2.2"}, 0);
  const uint64_t asked = disk_.epoch();
  size_t stays = 0;
  size_t waits = 0;
  for (int i = 0; i < 100; ++i) {
    const std::string owner = OwnerOf("d" + std::to_string(i) + "/v");
    EXPECT_NE(owner, "w2");
    ++(owner.empty() ? waits : stays);
  }
  EXPECT_GT(stays, 20u) << "what does not change hands goes on";
  EXPECT_GT(waits, 20u);
  Report("w2", {"192.0.2.2"}, asked);
  Report("w1", {"192.0.2.1"}, asked - 1);
  EXPECT_EQ(disk_.epoch(), asked) << "w1 has not answered";
  Report("w1", {"192.0.2.1"}, asked);
  EXPECT_FALSE(QueueOf("w1").empty());
  EXPECT_FALSE(QueueOf("w2").empty());
  EXPECT_TRUE(Table()->Leased("v"));
}

TEST_F(SourceOwnersTest, ADeadWorkersShareGoesToTheOthersAfterItsLease) {
  Shared();
  const std::string queue = QueueOf("w1");
  owners_->OnGone("w1");
  for (int i = 0; i < 12; ++i) {
    executor_.Advance(seconds(5));
    Report("w2", {"192.0.2.2"}, disk_.epoch());
    EXPECT_EQ(OwnerOf(queue), "w1") << "its connections may be open for lease and grace";
  }
  executor_.Advance(seconds(10));
  Report("w2", {"192.0.2.2"}, disk_.epoch());
  executor_.Advance(seconds(2));
  EXPECT_EQ(OwnerOf(queue), "w2");
  EXPECT_FALSE(Table()->Leased("v")) << "it is alone now";
  // It comes back: the same again.
  Report("w1", {"192.0.2.1"}, 0);
  EXPECT_EQ(OwnerOf(queue), "");
  Report("w2", {"192.0.2.2"}, disk_.epoch());
  EXPECT_EQ(OwnerOf(queue), "w1");
}

TEST_F(SourceOwnersTest, AWorkerThatIsCutOffKeepsWhatItHasAlone) {
  Configure({{"v", {"192.0.2.1"}, false}});
  Report("w1", {"192.0.2.1"}, 0);
  owners_->OnGone("w1");
  Report("w2", {}, 0);
  Configure({{"v", {"192.0.2.1", "192.0.2.2"}, false}});
  for (int i = 0; i < 100; ++i) {
    executor_.Advance(minutes(1));
    Report("w2", {"192.0.2.2"}, disk_.epoch());
    ASSERT_EQ(OwnerOf("a/v"), "w1") << "it could not agree";
  }
  // Its machine is gone, and its address is on another one.
  Report("w2", {"192.0.2.1", "192.0.2.2"}, disk_.epoch());
  executor_.Advance(seconds(2));
  Report("w2", {"192.0.2.1", "192.0.2.2"}, disk_.epoch());
  executor_.Advance(seconds(2));
  EXPECT_EQ(OwnerOf("a/v"), "w2");
}

TEST_F(SourceOwnersTest, AWorkerThatDoesNotLetGoLosesItsLease) {
  Shared();
  Configure({{"v", {"192.0.2.2"}, false}});
  EXPECT_TRUE(Report("w1", {"192.0.2.1"}, 1));
  executor_.Advance(seconds(61));
  EXPECT_FALSE(Report("w1", {"192.0.2.1"}, 1));
  for (int i = 0; i < 20; ++i) {
    executor_.Advance(seconds(5));
    Report("w1", {"192.0.2.1"}, 1);
    Report("w2", {"192.0.2.2"}, disk_.epoch());
  }
  EXPECT_EQ(OwnerOf("a/v"), "w2");
}

// Limits of an address hold on the address, so one worker has it, even where two machines say that
// they do (as with loopback).
TEST_F(SourceOwnersTest, AnAddressBelongsToOneWorker) {
  Configure({{"v", {"127.0.0.5"}, false}, {"u", {"127.0.0.5", "127.0.0.6"}, false}});
  Report("w1", {"127.0.0.5", "127.0.0.6"}, 0);
  Report("w1", {"127.0.0.5", "127.0.0.6"}, disk_.epoch());
  Report("w2", {"127.0.0.5", "127.0.0.6"}, disk_.epoch());
  Report("w1", {"127.0.0.5", "127.0.0.6"}, disk_.epoch());
  for (const char* ip : {"127.0.0.5", "127.0.0.6"}) {
    EXPECT_NE(Table()->MayUseSource("w1", ip), Table()->MayUseSource("w2", ip)) << ip;
  }
  EXPECT_TRUE(Table()->Leased("v")) << "the other one would do";
}

// A limit over all queues of a virtual MTA holds only where one worker has them all.
TEST_F(SourceOwnersTest, AVirtualMtaWithLimitsOfItsOwnStaysTogether) {
  Configure({{"v", {"192.0.2.1", "192.0.2.2"}, true}});
  Report("w1", {"192.0.2.1"}, 0);
  Report("w2", {"192.0.2.2"}, disk_.epoch());
  Report("w1", {"192.0.2.1"}, disk_.epoch());
  const std::string owner = OwnerOf("d0/v");
  EXPECT_FALSE(owner.empty());
  for (int i = 1; i < 100; ++i) EXPECT_EQ(OwnerOf("d" + std::to_string(i) + "/v"), owner);
}

TEST_F(SourceOwnersTest, ARestartOfPolicyChangesNothing) {
  Shared();
  const v1::OwnersTable before = disk_;
  Start({});
  Report("w2", {"192.0.2.2"}, disk_.epoch());
  executor_.Advance(seconds(30));
  EXPECT_EQ(disk_.SerializeAsString(), before.SerializeAsString());
  Report("w1", {"192.0.2.1"}, disk_.epoch());
  executor_.Advance(hours(1));
  EXPECT_EQ(disk_.SerializeAsString(), before.SerializeAsString());
}

TEST_F(SourceOwnersTest, WhereThePolicyServiceLostItsDataAllLeasesRunOutFirst) {
  Shared();
  const uint64_t known = disk_.epoch();
  disk_.Clear();
  Start({});
  Report("w1", {"192.0.2.1"}, known);
  EXPECT_GT(disk_.epoch(), known) << "so that workers believe it";
  EXPECT_TRUE(disk_.vmtas().empty());
  executor_.Advance(seconds(60));
  Report("w1", {"192.0.2.1"}, disk_.epoch());
  EXPECT_TRUE(disk_.vmtas().empty());
  executor_.Advance(seconds(10));
  EXPECT_EQ(OwnerOf("d0/v"), "w1");
}

// Shards may have stood in for us: what a silent worker shares is given away when they have kept to
// the change for as long as a lease.
TEST_F(SourceOwnersTest, WhereShardsVouchASilentWorkersShareWaitsForThem) {
  witnesses_ = {"s1", "s0"};
  Start({});
  Shared();
  const std::string queue = QueueOf("w1");
  EXPECT_EQ(disk_.witnesses_size(), 2);
  EXPECT_EQ(disk_.vouch_us(), 20'000'000);
  owners_->OnGone("w1");
  for (int i = 0; i < 100; ++i) {
    executor_.Advance(seconds(5));
    Report("w2", {"192.0.2.2"}, disk_.epoch());
    ASSERT_NE(OwnerOf(queue), "w2") << "both shards may stand in for us";
  }
  EXPECT_NE(disk_.vmtas(0).moving_since_epoch(), 0u);
  Keeps("s1");
  for (int i = 0; i < 13; ++i) {
    executor_.Advance(seconds(5));
    Report("w2", {"192.0.2.2"}, disk_.epoch());
    ASSERT_NE(OwnerOf(queue), "w2") << "what s1 said before may hold still";
  }
  executor_.Advance(seconds(10));
  EXPECT_EQ(OwnerOf(queue), "w2") << "both are needed, so one that keeps to it is enough";
}

// Shards of the release before know of no table, and cannot have stood in for us.
TEST_F(SourceOwnersTest, ShardsOfAnOldReleaseAreNotWaitedFor) {
  witnesses_ = {"s1", "s0"};
  Start({});
  Shared();
  const std::string queue = QueueOf("w1");
  owners_->OnShardHello("s0", false);
  owners_->OnShardHello("s1", true);
  owners_->OnGone("w1");
  for (int i = 0; i < 13; ++i) {
    executor_.Advance(seconds(5));
    Report("w2", {"192.0.2.2"}, disk_.epoch());
    ASSERT_NE(OwnerOf(queue), "w2") << "its lease by us is not over";
  }
  executor_.Advance(seconds(10));
  EXPECT_EQ(OwnerOf(queue), "w2");
}

TEST_F(SourceOwnersTest, AWorkerThatLetsGoIsNotWaitedForThoughShardsAreAway) {
  witnesses_ = {"s0"};
  Start({});
  Shared();
  Configure({{"v", {"192.0.2.2"}, false}});
  Report("w2", {"192.0.2.2"}, disk_.epoch());
  Report("w1", {"192.0.2.1"}, disk_.epoch());
  EXPECT_EQ(OwnerOf("a/v"), "w2");
}

// Workers that know the old set only may still find more than half of it.
TEST_F(SourceOwnersTest, AnotherSetOfShardsCountsWhenEverybodyKnowsOfIt) {
  witnesses_ = {"s0"};
  Start({});
  Shared();
  witnesses_ = {"s1", "s2", "s3"};
  Start({});
  EXPECT_EQ(disk_.witnesses_size(), 1);
  EXPECT_EQ(disk_.next_witnesses_size(), 3);
  Report("w2", {"192.0.2.2"}, disk_.epoch());
  executor_.Advance(minutes(10));
  EXPECT_EQ(disk_.witnesses_size(), 1) << "w1 may have been away, and s0 vouches for it";
  Keeps("s0");
  executor_.Advance(seconds(66));
  EXPECT_EQ(disk_.witnesses_size(), 1);
  executor_.Advance(seconds(5));
  EXPECT_EQ(disk_.witnesses_size(), 3);
  EXPECT_EQ(disk_.next_witnesses_size(), 0);
  EXPECT_EQ(disk_.witnesses_since_epoch(), 0u);
}

TEST_F(SourceOwnersTest, WhereThePolicyServiceLostItsDataShardsKeepToTheNewTableFirst) {
  witnesses_ = {"s0"};
  Start({});
  Shared();
  v1::ServiceReport shard;
  shard.set_shard("s0");
  shard.set_released_epoch(disk_.epoch());
  const uint64_t known = disk_.epoch();
  disk_.Clear();
  Start({});
  owners_->OnShardReport(shard);
  executor_.RunPosted();
  EXPECT_GT(disk_.epoch(), known) << "a shard's word is enough";
  Report("w2", {"192.0.2.2"}, disk_.epoch());
  executor_.Advance(minutes(10));
  EXPECT_TRUE(disk_.vmtas().empty()) << "w1 may be away, with the shard's word";
  Keeps("s0");
  executor_.Advance(seconds(66));
  EXPECT_TRUE(disk_.vmtas().empty());
  executor_.Advance(seconds(5));
  EXPECT_EQ(OwnerOf("d0/v"), "w2");
}

// What operators are shown: who has what, since when, and what stands between it and other hands.
TEST_F(SourceOwnersTest, TheListSaysWhatEachSourceWaitsFor) {
  Configure({{"v", {"192.0.2.1", "192.0.2.2"}, false}, {"any", {}, false}});
  Report("w1", {"192.0.2.1"}, 0);
  Report("w1", {"192.0.2.1"}, disk_.epoch());
  executor_.Advance(seconds(3));
  auto list = owners_->List();
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].worker, "w1");
  EXPECT_TRUE(list[0].connected);
  EXPECT_EQ(list[0].lease_age, seconds(3));
  EXPECT_EQ(list[0].waits_for, "");
  EXPECT_EQ(list[1].ip, "192.0.2.2");
  EXPECT_EQ(list[1].worker, "");
  EXPECT_EQ(list[1].waits_for, "no worker that is connected has this address");
  EXPECT_EQ(list[2].vmta, "any");
  EXPECT_EQ(list[2].worker, "w1");
  Report("w2", {"192.0.2.2"}, 0);
  list = owners_->List();
  EXPECT_FALSE(list[0].changing) << "it keeps its address";
  EXPECT_TRUE(list[1].changing);
  EXPECT_EQ(list[1].next, "w2");
  EXPECT_EQ(list[1].waits_for, "worker w1 finishes what it has under way");
  Report("w1", {"192.0.2.1"}, disk_.epoch());
  list = owners_->List();
  EXPECT_EQ(list[1].worker, "w2");
  EXPECT_TRUE(list[1].leased);
  owners_->OnGone("w2");
  EXPECT_EQ(owners_->List()[1].waits_for, "its worker is not connected to the policy service");
}

TEST_F(SourceOwnersTest, TheListSaysThatShardsAreWaitedFor) {
  witnesses_ = {"s0"};
  Start({});
  Shared();
  owners_->OnGone("w1");
  executor_.Advance(seconds(30));
  Report("w2", {"192.0.2.2"}, disk_.epoch());
  EXPECT_EQ(owners_->List()[0].waits_for, "the lease of worker w1, which is away, has to run out");
  executor_.Advance(seconds(60));
  EXPECT_EQ(owners_->List()[0].waits_for,
            "worker w1 is away, and shards may stand in: half of them have to keep to the change "
            "for 68 s");
}

// sluiced under another host name: its worker of before died with it.
TEST_F(SourceOwnersTest, AnEmbeddedWorkerThatChangedItsNameIsNotWaitedFor) {
  config_ = {{"v", {}, false}};
  Start("old-name");
  Report("old-name", {}, 0);
  EXPECT_EQ(OwnerOf("a/v"), "old-name");
  Start("new-name");
  Report("new-name", {}, 0);
  executor_.Advance(seconds(2));
  EXPECT_EQ(OwnerOf("a/v"), "new-name");
}

}  // namespace
}  // namespace sluice::policy
