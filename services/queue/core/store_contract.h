// What every Store must do (store.h), run over each of them: StoreContract is a typed suite whose
// parameter makes and reopens a store.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "services/queue/core/store.h"

namespace sluice::queue {

// Harness: default-constructible; Store& store(); void Reopen() as after a kill.
template <class Harness>
class StoreContract : public ::testing::Test {
 protected:
  Store& store() { return harness_.store(); }
  void Put(Family family, std::string_view key, std::string_view value) {
    auto batch = store().NewBatch();
    batch->Put(family, key, value);
    ASSERT_TRUE(store().Commit(*batch, true).ok());
  }
  std::string Get(Family family, std::string_view key) {
    std::string value;
    return store().Get(family, key, &value).ok() ? value : "(none)";
  }
  std::string Keys(Family family, std::string_view lower, std::string_view upper) {
    std::string keys;
    auto cursor = store().Scan(family, lower, upper);
    for (; cursor->Valid(); cursor->Next()) keys += std::string(cursor->key()) + " ";
    EXPECT_TRUE(cursor->status().ok());
    return keys;
  }
  Harness harness_;
};
TYPED_TEST_SUITE_P(StoreContract);

TYPED_TEST_P(StoreContract, ABatchAppliesInOrderAndSurvivesReopening) {
  auto batch = this->store().NewBatch();
  batch->Put(Family::kMessages, "a", "1");
  batch->Put(Family::kMessages, "a", "2");
  batch->Put(Family::kMessages, "b", "1");
  batch->Delete(Family::kMessages, "b");
  batch->Put(Family::kQueues, "a", "other family");
  EXPECT_EQ(batch->count(), 5U);
  EXPECT_GT(batch->bytes(), 10U);
  ASSERT_TRUE(this->store().Commit(*batch, true).ok());
  this->harness_.Reopen();
  EXPECT_EQ(this->Get(Family::kMessages, "a"), "2");
  EXPECT_EQ(this->Get(Family::kMessages, "b"), "(none)");
  EXPECT_EQ(this->Get(Family::kQueues, "a"), "other family");
  std::string value;
  EXPECT_EQ(this->store().Get(Family::kMessages, "zz", &value).code(), absl::StatusCode::kNotFound);
}

TYPED_TEST_P(StoreContract, AClearedBatchIsEmptyAndUsableAgain) {
  auto batch = this->store().NewBatch();
  batch->Put(Family::kLeases, "gone", "1");
  batch->Clear();
  EXPECT_EQ(batch->count(), 0U);
  batch->Put(Family::kLeases, "kept", "1");
  ASSERT_TRUE(this->store().Commit(*batch, true).ok());
  EXPECT_EQ(this->Get(Family::kLeases, "gone"), "(none)");
  EXPECT_EQ(this->Get(Family::kLeases, "kept"), "1");
}

TYPED_TEST_P(StoreContract, RangesAreHalfOpenAndSortedByUnsignedBytes) {
  for (const char* key : {"b", "a", "\xff", "c", "\x7f"}) this->Put(Family::kBodies, key, "x");
  EXPECT_EQ(this->Keys(Family::kBodies, "a", "c"), "a b ");
  EXPECT_EQ(this->Keys(Family::kBodies, "b", ""), "b c \x7f \xff ");
  auto batch = this->store().NewBatch();
  batch->DeleteRange(Family::kBodies, "a", "c");
  ASSERT_TRUE(this->store().Commit(*batch, true).ok());
  EXPECT_EQ(this->Keys(Family::kBodies, "", ""), "c \x7f \xff ");
}

TYPED_TEST_P(StoreContract, SeekStaysInsideTheBounds) {
  for (const char* key : {"a", "c", "e", "g"}) this->Put(Family::kIndex, key, key);
  auto cursor = this->store().Scan(Family::kIndex, "b", "f");
  ASSERT_TRUE(cursor->Valid());
  EXPECT_EQ(cursor->key(), "c");
  cursor->Seek("a");
  EXPECT_EQ(cursor->key(), "c");
  cursor->Seek("d");
  EXPECT_EQ(cursor->key(), "e");
  EXPECT_EQ(cursor->value(), "e");
  cursor->Next();
  EXPECT_FALSE(cursor->Valid());
  cursor->Seek("f");
  EXPECT_FALSE(cursor->Valid());
}

TYPED_TEST_P(StoreContract, LargeValuesComeBackWhole) {
  std::string body(300 * 1024, 'x');
  body[1234] = '\0';
  this->Put(Family::kBodies, "big", body);
  this->harness_.Reopen();
  EXPECT_EQ(this->Get(Family::kBodies, "big"), body);
  EXPECT_FALSE(this->store().Health().failed);
}

REGISTER_TYPED_TEST_SUITE_P(StoreContract, ABatchAppliesInOrderAndSurvivesReopening,
                            AClearedBatchIsEmptyAndUsableAgain,
                            RangesAreHalfOpenAndSortedByUnsignedBytes, SeekStaysInsideTheBounds,
                            LargeValuesComeBackWhole);

}  // namespace sluice::queue
