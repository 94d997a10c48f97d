// A limit that workers share, in a worker without the policy service's lease: what its leased
// sources are of it may be somebody else's by then, and its other queues go on without it.
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/delivery/core/worker.h"
#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::seconds;

// "own" has one source and no other worker; "both" has two, of this worker and of w2, so that the
// part of three is two with the lease and one without.
class WorkerLeaseParts : public ::testing::Test {
 protected:
  WorkerLeaseParts() {
    snapshot_.set_version(1);
    global_ = snapshot_.add_sections()->mutable_content()->mutable_global()->mutable_settings();
    pool_ = snapshot_.add_sections()->mutable_content()->mutable_pool();
    pool_->set_name("p");
    AddVmta("own", {"127.0.0.5"});
    AddVmta("both", {"127.0.0.6", "192.0.2.9"});
  }
  void AddVmta(const std::string& name, const std::vector<std::string>& ips) {
    auto* vmta = snapshot_.add_sections()->mutable_content()->mutable_virtual_mta();
    vmta->set_name(name);
    for (const std::string& ip : ips) vmta->add_source_hosts()->set_ip(ip);
    pool_->add_virtual_mtas(name);
  }
  void Begin() {
    world_ = std::make_unique<testing::World>(snapshot_);
    world_->options.addresses = {"127.0.0.5", "127.0.0.6"};
    world_->Restart(nullptr, true);
    policy::v1::OwnersTable table;
    table.set_epoch(1);
    table.add_workers("w1");
    table.add_workers("w2");
    auto* own = table.add_vmtas();
    own->set_vmta("own");
    own->add_hosts()->set_ip("127.0.0.5");
    auto* both = table.add_vmtas();
    both->set_vmta("both");
    both->set_leased(true);
    both->add_hosts()->set_ip("127.0.0.6");
    auto* other = both->add_hosts();
    other->set_ip("192.0.2.9");
    other->set_worker(1);
    world_->worker->SetOwners(config::Owners::Build(table));
    world_->executor.RunPosted();
    Lease();
    for (uint64_t i = 1; i <= 4; ++i) {
      world_->shard().Ready(i, 1000, 0, "d" + std::to_string(i) + ".test", "own");
    }
  }
  void Lease() {
    world_->worker->SetLease(world_->executor.clock().Now() + seconds(20), seconds(40));
    world_->executor.RunPosted();
  }
  void LeaseForCredits() {
    const queue::v1::DispatchRequest said = world_->Take();
    for (const auto& credit : said.credits()) {
      for (uint32_t i = 0; i < credit.groups(); ++i) {
        world_->shard().Lease(++lease_id_, credit.queue_ref());
      }
    }
  }
  // The number of recipients; who has said QUIT is let go.
  size_t AnswerAll(bool only_quitting) {
    size_t answered = 0;
    for (auto* remote : std::vector(world_->sites.open)) {
      if (only_quitting && !remote->quit) continue;
      for (; !remote->under_way.empty(); ++answered) {
        remote->Answer(queue::v1::RECIPIENT_OUTCOME_DELIVERED);
      }
      if (remote->quit) remote->Close(true);
    }
    return answered;
  }
  // As many connections as the worker makes, each busy.
  size_t Open() {
    for (int i = 0; i < 50; ++i) {
      world_->GreetAll();
      LeaseForCredits();
      world_->executor.Advance(std::chrono::milliseconds(10));
    }
    return Left();
  }
  size_t Left() const {
    size_t left = 0;
    for (const auto* remote : world_->sites.open) left += remote->quit || remote->aborted ? 0 : 1;
    return left;
  }
  void SixWithAndThreeWithoutTheLease() {
    Begin();
    EXPECT_EQ(Open(), 6u);
    world_->executor.Advance(seconds(21));
    EXPECT_EQ(Left(), 3u) << "three close in good order";
    AnswerAll(true);
    EXPECT_EQ(Open(), 3u) << "and no other is made";
    Lease();
    EXPECT_EQ(Open(), 6u);
  }
  // Recipients that leave within a minute.
  size_t Sent() {
    size_t sent = 0;
    const MonotonicTime end = world_->executor.clock().Now() + std::chrono::minutes(1);
    while (world_->executor.clock().Now() < end) {
      LeaseForCredits();
      world_->GreetAll();
      sent += AnswerAll(false);
      world_->executor.Advance(std::chrono::milliseconds(5));
    }
    return sent;
  }

  policy::v1::PolicySnapshot snapshot_;
  policy::v1::GlobalSettings* global_ = nullptr;
  policy::v1::PoolSection* pool_ = nullptr;
  std::unique_ptr<testing::World> world_;
  uint64_t lease_id_ = 100;
};

TEST_F(WorkerLeaseParts, IpConnectionLimit) {
  auto* entry = global_->mutable_ip_connection_limit()->add_entries();
  entry->set_key("192.0.2.0/24");
  entry->set_count(9);
  SixWithAndThreeWithoutTheLease();
}

TEST_F(WorkerLeaseParts, ConnectionsOfAPool) {
  pool_->set_max_smtp_out(9);
  SixWithAndThreeWithoutTheLease();
}

TEST_F(WorkerLeaseParts, WhatIsLeftOfThemIsCutAfterTheGrace) {
  pool_->set_max_smtp_out(9);
  Begin();
  EXPECT_EQ(Open(), 6u);
  world_->executor.Advance(seconds(20) + seconds(41));
  size_t aborted = 0;
  for (const auto* remote : world_->sites.open) aborted += remote->aborted ? 1 : 0;
  EXPECT_EQ(aborted, 3u);
}

TEST_F(WorkerLeaseParts, RateOfAPool) {
  auto* rate = pool_->mutable_max_smtp_msg_rate();
  rate->set_count(9);
  rate->set_period_us(1'000'000);
  Begin();
  world_->worker->SetLease(world_->executor.clock().Now() + seconds(61), seconds(40));
  const size_t with = Sent();
  EXPECT_LE(with, 366u);
  EXPECT_GE(with, 300u);
  world_->executor.Advance(seconds(2));
  const size_t without = Sent();
  EXPECT_LE(without, 186u);
  EXPECT_GE(without, 150u);
}

// The whole part comes with the lease: nothing passes without it, and mail that waits goes on when
// it is back.
TEST_F(WorkerLeaseParts, ARateThatIsNothingWithoutTheLease) {
  pool_->clear_virtual_mtas();
  pool_->add_virtual_mtas("both");
  pool_->add_virtual_mtas("own");
  auto* rate = pool_->mutable_max_smtp_msg_rate();
  rate->set_count(1);
  rate->set_period_us(1'000'000);
  Begin();
  const auto lease = [this] {
    world_->worker->SetLease(world_->executor.clock().Now() + seconds(61), seconds(40));
    return Sent();
  };
  EXPECT_GE(lease(), 50u);
  world_->executor.Advance(seconds(2));
  EXPECT_LE(Sent(), 1u) << "of before its end";
  EXPECT_GE(lease(), 50u);
}

}  // namespace
}  // namespace sluice::delivery
