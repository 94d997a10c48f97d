// Proves that the store of simulations keeps the contract of stores, and loses what a power cut
// loses.
#include "services/queue/core/memory_store.h"

#include "services/queue/core/store_contract.h"

namespace sluice::queue {
namespace {

struct MemoryHarness {
  Store& store() { return memory; }
  void Reopen() { memory.Reopen(); }
  MemoryStore memory;
};
INSTANTIATE_TYPED_TEST_SUITE_P(Memory, StoreContract, MemoryHarness);

TEST(MemoryStore, APowerCutLosesWhatWasNotSynced) {
  MemoryStore store;
  auto batch = store.NewBatch();
  batch->Put(Family::kMeta, "kept", "1");
  ASSERT_TRUE(store.Commit(*batch, true).ok());
  batch->Clear();
  batch->Put(Family::kMeta, "kept", "2");
  batch->Put(Family::kMeta, "lost", "1");
  ASSERT_TRUE(store.Commit(*batch, false).ok());
  store.CutPower();
  std::string value;
  ASSERT_TRUE(store.Get(Family::kMeta, "kept", &value).ok());
  EXPECT_EQ(value, "1");
  EXPECT_FALSE(store.Get(Family::kMeta, "lost", &value).ok());
}

TEST(MemoryStore, AFailedSyncRefusesEverythingUntilReopened) {
  MemoryStore store;
  store.FailNextSync();
  auto batch = store.NewBatch();
  batch->Put(Family::kMeta, "a", "1");
  EXPECT_FALSE(store.Commit(*batch, true).ok());
  EXPECT_TRUE(store.Health().failed);
  EXPECT_FALSE(store.Commit(*batch, true).ok());
  store.Reopen();
  EXPECT_TRUE(store.Commit(*batch, true).ok());
}

}  // namespace
}  // namespace sluice::queue
