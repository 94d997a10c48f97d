// Proves that RocksDB keeps the contract of stores, and that folders and formats are refused as
// they should be.
#include "services/queue/io/rocksdb_store.h"

#include <rocksdb/db.h>

#include "services/base/testing/temp_folder.h"
#include "services/base/version.h"
#include "services/queue/core/store_contract.h"
#include "sluice/queue/v1/storage.pb.h"

namespace rocksdb::crc32c {
uint32_t Extend(uint32_t init_crc, const char* data, size_t n);
}

namespace sluice::queue {
namespace {

struct RocksdbHarness {
  RocksdbHarness() { Open(); }
  ~RocksdbHarness() { opened.reset(); }
  void Open() {
    auto result = OpenRocksdbStore({.folder = folder, .ballast_bytes = 4096});
    ASSERT_TRUE(result.ok()) << result.status();
    opened = *std::move(result);
  }
  void Reopen() {
    opened.reset();
    Open();
  }
  Store& store() { return *opened; }
  const sluice::testing::TempFolder temp{"store"};
  const std::string folder = temp.path();
  std::unique_ptr<Store> opened;
};
INSTANTIATE_TYPED_TEST_SUITE_P(Rocksdb, StoreContract, RocksdbHarness);

// queue-shards
TEST(RocksdbStore, PartsOfTheCache) {
  EXPECT_EQ(CacheShardBits(0), -1);
  EXPECT_EQ(CacheShardBits(1), 0);
  EXPECT_EQ(CacheShardBits(16), 4);
  EXPECT_EQ(CacheShardBits(17), 5);
  EXPECT_EQ(CacheShardBits(4096), 6);
}

TEST(RocksdbStore, AFolderInUseIsRefusedWithItsName) {
  RocksdbHarness harness;
  const auto second = OpenRocksdbStore({.folder = harness.folder, .ballast_bytes = 0});
  ASSERT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition) << second.status();
  EXPECT_NE(second.status().ToString().find(harness.folder), std::string::npos);
  EXPECT_NE(second.status().ToString().find("in use"), std::string::npos);
}

TEST(RocksdbStore, ANewerFormatIsRefusedClearlyAndAnOlderReaderRowIsKept) {
  RocksdbHarness harness;
  v1::FormatRow row;
  row.set_version(kSpoolFormat + 5);
  row.set_least_reader(kSpoolFormat);
  auto batch = harness.store().NewBatch();
  batch->Put(Family::kMeta, "format", row.SerializeAsString());
  ASSERT_TRUE(harness.store().Commit(*batch, true).ok());
  harness.Reopen();  // additive changes of a newer release: opens
  row.set_least_reader(kSpoolFormat + 1);
  batch = harness.store().NewBatch();
  batch->Put(Family::kMeta, "format", row.SerializeAsString());
  ASSERT_TRUE(harness.store().Commit(*batch, true).ok());
  batch.reset();
  harness.opened.reset();
  const auto refused = OpenRocksdbStore({.folder = harness.folder, .ballast_bytes = 0});
  ASSERT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().ToString().find("newer"), std::string::npos);
}

TEST(RocksdbStore, WithoutAFormatRowThatCanBeReadOnlyANewSpoolOpens) {
  for (const std::string_view format : {"(none)", "", "\xff\xff"}) {
    RocksdbHarness harness;
    auto batch = harness.store().NewBatch();
    batch->Put(Family::kMeta, "epoch", "12345678");
    if (format == "(none)") {
      batch->Delete(Family::kMeta, "format");
    } else {
      batch->Put(Family::kMeta, "format", format);
    }
    ASSERT_TRUE(harness.store().Commit(*batch, true).ok());
    batch.reset();
    harness.opened.reset();
    const auto refused = OpenRocksdbStore({.folder = harness.folder, .ballast_bytes = 0});
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kDataLoss) << refused.status();
    EXPECT_NE(refused.status().ToString().find(harness.folder), std::string::npos);
  }
}

TEST(RocksdbStore, AFamilyOfANewerReleaseIsLeftAlone) {
  RocksdbHarness harness;
  harness.opened.reset();
  std::vector<std::string> names;
  ASSERT_TRUE(rocksdb::DB::ListColumnFamilies({}, harness.folder, &names).ok());
  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (const std::string& name : names) descriptors.push_back({name, {}});
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open({}, harness.folder, descriptors, &handles, &db).ok());
  rocksdb::ColumnFamilyHandle* future = nullptr;
  ASSERT_TRUE(db->CreateColumnFamily({}, "future", &future).ok());
  ASSERT_TRUE(db->Put({}, future, "key", "of the future").ok());
  handles.push_back(future);
  for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  delete db;

  harness.Open();
  auto batch = harness.store().NewBatch();
  batch->Put(Family::kKeys, "k", "v");
  ASSERT_TRUE(harness.store().Commit(*batch, true).ok());
  batch.reset();
  harness.opened.reset();

  handles.clear();
  descriptors.push_back({"future", {}});
  ASSERT_TRUE(rocksdb::DB::Open({}, harness.folder, descriptors, &handles, &db).ok());
  std::string value;
  EXPECT_TRUE(db->Get({}, handles.back(), "key", &value).ok());
  EXPECT_EQ(value, "of the future");
  for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  delete db;
  harness.Open();
}

TEST(RocksdbStore, TheFasterChecksumIsTheSameChecksum) {
  EXPECT_EQ(rocksdb::crc32c::Extend(0, "123456789", 9), 0xe3069283U);
}

}  // namespace
}  // namespace sluice::queue
