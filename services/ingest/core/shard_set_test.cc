// Proves that a shard which stands still, with its connection up, takes its share of what is under
// way and then no more: whoever comes next goes to those that answer.
#include "services/ingest/core/shard_set.h"

#include <gtest/gtest.h>

#include "services/base/testing/manual_executor.h"
#include "services/ingest/testing/fake_shard.h"

namespace sluice::ingest {
namespace {

struct Waiter final : SubmitWaiter {
  void OnSubmitted(const SubmitResult&) override { ++answers; }
  int answers = 0;
};

class ShardSetTest : public ::testing::Test {
 protected:
  ShardSetTest() {
    for (size_t i = 0; i < 2; ++i) {
      set_.Add(std::make_unique<ShardClient>("shard-" + std::to_string(i), executor_,
                                             shards_[i].enqueue(), shards_[i].upload(),
                                             ShardClientOptions()));
    }
    set_.Start();
    executor_.Advance(std::chrono::milliseconds(10));
  }
  // The number of the shard that got it.
  size_t Submit() {
    ShardClient* const chosen = set_.Choose();
    EXPECT_NE(chosen, nullptr);
    queue::v1::NewMessage message;
    message.add_deliveries();
    chosen->Submit(std::move(message), Body(std::string(100, 'x')), &waiter_);
    executor_.RunPosted();
    return chosen == set_.shards()[0].get() ? 0 : 1;
  }
  sluice::testing::ManualExecutor executor_;
  testing::FakeShard shards_[2];
  ShardSet set_{1};
  Waiter waiter_;
};

TEST_F(ShardSetTest, AShardThatStandsStillGetsNoMoreThanItsShare) {
  shards_[1].answers = false;
  int stuck = 0;
  for (int i = 0; i < 1000; ++i) {
    stuck += static_cast<int>(Submit());
    executor_.Advance(std::chrono::milliseconds(1));
  }
  EXPECT_LE(stuck, 2) << "it was never less loaded after its first message";
  EXPECT_EQ(waiter_.answers, 1000 - stuck);
}

TEST_F(ShardSetTest, WhatTheOtherOneSaidOfItsLoadLongAgoDoesNotCount) {
  shards_[1].answers = false;
  // Its last word: very busy.
  shards_[0].queued_bytes = 50'000'000;
  shards_[0].SendLoad();
  executor_.RunPosted();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Submit(), 1U);
  shards_[0].queued_bytes = 0;
  executor_.Advance(std::chrono::milliseconds(150));
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Submit(), 0U);
}

TEST_F(ShardSetTest, WhereNobodyAnswersInTimeAllAreAskedAndTheFirstAnswerHelps) {
  shards_[0].answers = shards_[1].answers = false;
  while (shards_[0].taken.empty() || shards_[1].taken.empty()) Submit();
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(set_.shards()[0]->stalled());
  EXPECT_TRUE(set_.shards()[1]->stalled());
  EXPECT_NE(set_.Choose(), nullptr);
  shards_[1].AnswerAll();
  executor_.RunPosted();
  EXPECT_FALSE(set_.shards()[1]->stalled());
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Submit(), 1U);
}

}  // namespace
}  // namespace sluice::ingest
