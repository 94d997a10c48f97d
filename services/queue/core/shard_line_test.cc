// Queues that wait at a worker for a limit of their whole virtual MTA: it hears of so many of them,
// and the others keep their places in the shard's own line, whatever the backlog.
#include <cstdint>
#include <vector>

#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

constexpr char kLimit[] = "max-smtp-out 1 (virtual MTA)";

class ShardLineTest : public testing::PolicyShardFixture {
 protected:
  void SetUp() override {
    options_.max_in_line = 2;
    Open();
  }
  void Inject(int first, int last) {
    for (int i = first; i <= last; ++i) {
      injector().Send({"a@" + Domain(i)});
      Run();
    }
  }
  // What the worker says of a queue.
  void Blocked(TestWorker& worker, int queue, bool in_line, const std::string& limit = kLimit) {
    Frame<v1::DispatchRequest> frame;
    auto* blocked = frame.header.add_blocked();
    blocked->set_queue_ref(worker.ready.at(Domain(queue)).queue_ref());
    blocked->set_limit(limit);
    blocked->set_in_line(in_line);
    worker.Say(std::move(frame));
    Run();
  }
  static std::string Domain(int i) { return "d" + std::to_string(i) + ".example"; }
  static bool Knows(const TestWorker& worker, int i) { return worker.ready.contains(Domain(i)); }
};

TEST_F(ShardLineTest, AWorkerHearsOfSoManyThatStandInLineAndOfTheNextAsTheseGetOn) {
  TestWorker& worker = AddWorker();
  Inject(0, 1);
  for (int i : {0, 1}) Blocked(worker, i, true);
  Inject(2, 5);
  EXPECT_EQ(worker.announcements, 2);
  EXPECT_EQ(Queue("d3.example/default").reason(),
            std::string("behind other queues of its virtual MTA, which stand in line: ") + kLimit);
  EXPECT_EQ(Queue("d1.example/default").reason(), std::string("limit reached: ") + kLimit);

  worker.Credit(worker.ready.at("d0.example").queue_ref(), 1);
  Run();
  EXPECT_TRUE(Knows(worker, 2)) << "a credit: it has left the line";
  Blocked(worker, 2, true);
  EXPECT_FALSE(Knows(worker, 3));
  Blocked(worker, 1, false, "");
  EXPECT_TRUE(Knows(worker, 3)) << "first come, first announced";
  Blocked(worker, 3, true);
  EXPECT_FALSE(Knows(worker, 4));
  worker.Fail(worker.ready.at("d2.example").queue_ref(), false, false);
  Run();
  EXPECT_TRUE(Knows(worker, 4));
  EXPECT_EQ(worker.leases.size(), 1U);
}

TEST_F(ShardLineTest, WhatIsReleasedGoesBehindThoseThatHadNoTurn) {
  TestWorker& worker = AddWorker();
  Inject(0, 1);
  for (int i : {0, 1}) Blocked(worker, i, true);
  Inject(2, 3);
  worker.Revoke(worker.ready.at("d0.example").queue_ref(), true);
  worker.ready.clear();
  Run();
  EXPECT_TRUE(Knows(worker, 2));
  EXPECT_FALSE(Knows(worker, 0));
  Blocked(worker, 2, false, "");
  EXPECT_TRUE(Knows(worker, 3));
  EXPECT_FALSE(Knows(worker, 0));
  Blocked(worker, 3, false, "");
  EXPECT_TRUE(Knows(worker, 0));
}

TEST_F(ShardLineTest, OtherVirtualMtasAndOtherWorkersHaveLinesOfTheirOwn) {
  TestWorker& worker = AddWorker("w1", 1, {}, {"default", "other"});
  Inject(0, 1);
  for (int i : {0, 1}) Blocked(worker, i, true);
  Inject(2, 2);
  EXPECT_FALSE(Knows(worker, 2));
  injector().SendVia("other", "a@" + Domain(7));
  Run();
  EXPECT_TRUE(Knows(worker, 7));
  TestWorker& second = AddWorker("w2");
  Run();
  EXPECT_TRUE(Knows(second, 2)) << "there is room";
  workers_[0]->Drop();
  Run();
  for (int i : {0, 1}) EXPECT_TRUE(Knows(second, i));
}

TEST_F(ShardLineTest, LimitsOfOneQueueAloneHoldNoOtherBack) {
  TestWorker& worker = AddWorker();
  for (int i = 0; i < 6; ++i) {
    Inject(i, i);
    Blocked(worker, i, false, "max-msg-rate 1/h");
  }
  EXPECT_EQ(worker.announcements, 6);
}

// Queues of a worker that is lost with mail of theirs: nobody else may have them, and looking for
// somebody costs nothing meanwhile.
class ShardLostWorkerTest : public ShardLineTest {
 protected:
  static constexpr int kQueues = 600;

  // w1 has a group of each of 600 queues, of which each has more.
  void SetUp() override {
    ShardLineTest::SetUp();
    AddWorker("w1").auto_credit = 1;
    Inject(0, kQueues - 1);
    workers_[0]->auto_credit = 0;
    Inject(0, kQueues - 1);
    Run(std::chrono::seconds(1));
    for (auto& lease : workers_[0]->leases) held_.push_back(lease.lease.lease_id());
    ASSERT_EQ(held_.size(), static_cast<size_t>(kQueues));
  }
  std::vector<uint64_t> held_;
};

TEST_F(ShardLostWorkerTest, OthersAreServedAndTheShardIsAtRest) {
  workers_[0]->Drop();
  TestWorker& second = AddWorker("w2");
  EXPECT_TRUE(executor_.RunPosted(20'000)) << "it looks for a worker again and again";
  EXPECT_EQ(second.announcements, 0);
  Inject(kQueues, kQueues);
  EXPECT_TRUE(Knows(second, kQueues)) << "it waits for nobody";
  EXPECT_EQ(Queue("d1.example/default").reason(),
            "contact with worker w1 is lost while it has mail of this queue");
  Run(options_.lease + options_.lost_contact_grace + std::chrono::seconds(5));
  EXPECT_EQ(second.ready.size(), static_cast<size_t>(kQueues + 1));
}

TEST_F(ShardLostWorkerTest, ItGoesOnWhereItComesBack) {
  workers_[0]->Drop();
  TestWorker& second = AddWorker("w2");
  Run();
  TestWorker& back = AddWorker("w1", 1, held_);
  Run(std::chrono::seconds(1));
  EXPECT_EQ(back.ready.size(), static_cast<size_t>(kQueues));
  EXPECT_EQ(second.announcements, 0);
}

TEST_F(ShardLostWorkerTest, ItsNextLifeFreesThemForAll) {
  workers_[0]->Drop();
  TestWorker& second = AddWorker("w2");
  Run();
  TestWorker& back = AddWorker("w1", 2);
  Run(std::chrono::seconds(1));
  EXPECT_EQ(back.ready.size() + second.ready.size(), static_cast<size_t>(kQueues));
}

}  // namespace
}  // namespace sluice::queue
