// Proves that the space of dead bodies comes back, and living ones are not rewritten for it.
#include "services/queue/io/blob_reclaimer.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "services/base/testing/temp_folder.h"

namespace sluice::queue {
namespace {

constexpr int kValues = 400;
constexpr size_t kValueBytes = 64 << 10;

std::string Key(int i) { return std::to_string(100000 + i); }

class BlobReclaimerTest : public ::testing::Test {
 protected:
  BlobReclaimerTest() {
    rocksdb::Options options;
    options.create_if_missing = true;
    options.enable_blob_files = true;
    options.min_blob_size = 512;
    options.blob_file_size = 1 << 20;
    options.write_buffer_size = 4 << 20;
    rocksdb::DB* opened = nullptr;
    EXPECT_TRUE(rocksdb::DB::Open(options, folder_, &opened).ok());
    db_.reset(opened);
    for (int i = 0; i < kValues; ++i) {
      EXPECT_TRUE(db_->Put({}, Key(i), std::string(kValueBytes, 'a' + i % 26)).ok());
    }
    EXPECT_TRUE(db_->Flush({}).ok());
  }
  ~BlobReclaimerTest() override { db_.reset(); }
  // All but one of `keep_each`, so that every blob file has a survivor.
  void DeleteAllBut(int keep_each) {
    for (int i = 0; i < kValues; ++i) {
      if (i % keep_each == 0) continue;
      EXPECT_TRUE(db_->Delete({}, Key(i)).ok());
    }
  }
  uint64_t BlobBytes() const {
    uint64_t bytes = 0;
    EXPECT_TRUE(db_->GetIntProperty(rocksdb::DB::Properties::kTotalBlobFileSize, &bytes));
    return bytes;
  }
  BlobReclaimerOptions Options() const {
    return {.every = Duration(0), .least_dead_bytes = 1 << 20, .leave_free_bytes = 0};
  }

  const sluice::testing::TempFolder temp_{"blobs"};
  const std::string folder_ = temp_.path();
  std::unique_ptr<rocksdb::DB> db_;
};

TEST_F(BlobReclaimerTest, StragglersDoNotKeepTheSpaceOfWhatDiedBesideThem) {
  BlobReclaimer reclaimer(*db_, *db_->DefaultColumnFamily(), folder_, Options());
  DeleteAllBut(10);
  const uint64_t before = BlobBytes();
  ASSERT_GE(before, kValues * kValueBytes);
  int runs = 0;
  while (true) {
    const auto ran = reclaimer.RunOnce();
    ASSERT_TRUE(ran.ok()) << ran.status();
    if (!*ran) break;
    ASSERT_LE(++runs, 8) << "it must come to an end";
  }
  EXPECT_GE(runs, 1);
  EXPECT_LE(BlobBytes(), 2 * (kValues / 10) * kValueBytes + (1 << 20));
  for (int i = 0; i < kValues; i += 10) {
    std::string value;
    ASSERT_TRUE(db_->Get({}, Key(i), &value).ok());
    EXPECT_EQ(value, std::string(kValueBytes, 'a' + i % 26));
  }
}

TEST_F(BlobReclaimerTest, NothingIsRewrittenWhileHalfLives) {
  BlobReclaimer reclaimer(*db_, *db_->DefaultColumnFamily(), folder_, Options());
  for (int i = 0; i < kValues; ++i) {
    if (i % 5 >= 2) continue;
    ASSERT_TRUE(db_->Delete({}, Key(i)).ok());
  }
  const uint64_t before = BlobBytes();
  const auto ran = reclaimer.RunOnce();
  ASSERT_TRUE(ran.ok()) << ran.status();
  EXPECT_FALSE(*ran);
  EXPECT_EQ(BlobBytes(), before);
}

TEST_F(BlobReclaimerTest, AVolumeWithoutRoomForCopiesGetsBackWholeFilesOnly) {
  BlobReclaimerOptions options = Options();
  options.leave_free_bytes = uint64_t{1} << 60;
  BlobReclaimer reclaimer(*db_, *db_->DefaultColumnFamily(), folder_, options);
  for (int i = 0; i < kValues * 3 / 4; ++i) ASSERT_TRUE(db_->Delete({}, Key(i)).ok());
  const auto ran = reclaimer.RunOnce();
  ASSERT_TRUE(ran.ok()) << ran.status();
  EXPECT_TRUE(*ran);
  EXPECT_LE(BlobBytes(), (kValues / 4 + 20) * kValueBytes);
}

// If it waited, this test would take an hour and be ended.
TEST_F(BlobReclaimerTest, StopsAtOnce) {
  BlobReclaimerOptions options = Options();
  options.every = std::chrono::hours(1);
  BlobReclaimer reclaimer(*db_, *db_->DefaultColumnFamily(), folder_, options);
}

}  // namespace
}  // namespace sluice::queue
