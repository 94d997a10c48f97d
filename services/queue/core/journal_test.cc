// Proves when a commit begins: at once for an idle journal, at the gap's end for little, without
// waiting for what is worth its sync, and never beside another one.
#include "services/queue/core/journal.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>

#include "services/base/testing/manual_executor.h"
#include "services/queue/core/key_codec.h"
#include "services/queue/core/memory_store.h"
#include "services/queue/testing/virtual_committer.h"

namespace sluice::queue {
namespace {

using std::chrono::microseconds;

constexpr Duration kSync = microseconds(100);
constexpr Duration kGap = microseconds(500);

class JournalTest : public ::testing::Test {
 protected:
  void Change(int rows, size_t bytes = 1) {
    for (int i = 0; i < rows; ++i) {
      journal_.batch().Put(Family::kMessages, "k" + std::to_string(++rows_),
                           std::string(bytes, 'v'));
    }
    journal_.WhenDurable([this](const absl::Status& status) {
      EXPECT_TRUE(status.ok()) << status;
      ++durable_;
    });
  }
  // Begins a commit, so that the next one has a gap to keep.
  void CommitOne() {
    Change(1);
    executor_.Advance(kSync);
    ASSERT_EQ(durable_, 1);
  }

  sluice::testing::ManualExecutor executor_;
  MemoryStore store_;
  testing::VirtualCommitter committer_{executor_, store_, kSync};
  Journal journal_{executor_,
                   store_,
                   committer_,
                   {.gap = kGap, .full_count = 10, .full_bytes = 1000, .max_batch_bytes = 5000}};
  int rows_ = 0;
  int durable_ = 0;
};

TEST_F(JournalTest, IdleJournalBeginsAtOnce) {
  CommitOne();
  executor_.Advance(kGap);
  Change(1);
  executor_.Advance(kSync);
  EXPECT_EQ(durable_, 2);
}

TEST_F(JournalTest, LittleWaitsForTheGap) {
  CommitOne();
  Change(9);
  executor_.Advance(kGap - kSync - microseconds(1));
  EXPECT_FALSE(journal_.busy());
  executor_.Advance(microseconds(1));
  EXPECT_TRUE(journal_.busy());
  executor_.Advance(kSync);
  EXPECT_EQ(durable_, 2);
  EXPECT_EQ(executor_.timers(), 0U);
}

TEST_F(JournalTest, ManyChangesDoNotWait) {
  CommitOne();
  Change(9);
  Change(1);
  executor_.Advance(Duration(0));
  EXPECT_TRUE(journal_.busy());
  executor_.Advance(kSync);
  EXPECT_EQ(durable_, 3);
  EXPECT_EQ(executor_.timers(), 0U) << "the gap's timer is forgotten";
}

TEST_F(JournalTest, ManyBytesDoNotWait) {
  CommitOne();
  Change(1, 1000);
  executor_.Advance(Duration(0));
  EXPECT_TRUE(journal_.busy());
}

// Results of a long list come in one turn: neither a record nor a batch grows with it.
TEST_F(JournalTest, ManyEventsAreSeveralRecordsAndBatches) {
  CommitOne();
  size_t most = 0;
  int told = 0;
  journal_.set_on_events([&](const v1::EventBatch& record) {
    most = std::max(most, static_cast<size_t>(record.events_size()));
    told += record.events_size();
  });
  journal_.set_next_sequence(7);
  for (int i = 0; i < 1000; ++i) {
    journal_.Seal();
    journal_.AddEvent().set_id("event " + std::to_string(i));
  }
  Change(1);
  while (durable_ < 2) executor_.Advance(kSync);
  EXPECT_EQ(most, 256U);
  EXPECT_EQ(told, 1000);
  EXPECT_EQ(journal_.events_total(), 1000U);
  EXPECT_EQ(journal_.next_sequence(), 11U);
  EXPECT_EQ(committer_.stats().syncs, 3U) << "two records pass max_batch_bytes";
  int next = 0;
  auto rows = store_.Scan(Family::kEvents, U64Key(7), "", false);
  for (; rows->Valid(); rows->Next()) {
    v1::EventBatch record;
    ASSERT_TRUE(record.ParseFromString(std::string(rows->value())));
    for (const auto& event : record.events()) {
      EXPECT_EQ(event.id(), "event " + std::to_string(next++));
    }
  }
  EXPECT_EQ(next, 1000);
}

TEST_F(JournalTest, WhatComesDuringACommitIsTheNextBatch) {
  Change(1);
  executor_.Advance(Duration(0));
  ASSERT_TRUE(journal_.busy());
  Change(20);
  executor_.Advance(kSync);
  EXPECT_EQ(durable_, 1);
  EXPECT_EQ(committer_.stats().syncs, 1U);
  EXPECT_TRUE(journal_.busy()) << "the second batch is worth its sync";
  executor_.Advance(kSync);
  EXPECT_EQ(durable_, 2);
  EXPECT_EQ(committer_.stats().syncs, 2U);
}

}  // namespace
}  // namespace sluice::queue
