// Proves what a start gets of the volumes that an earlier process kept or left, and what a worker
// is told where they cannot be written.
#include "services/node/volumes_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "services/base/net/event_loop.h"
#include "services/base/testing/temp_folder.h"

namespace sluice::node {
namespace {

using delivery::VolumeLedger;
using delivery::v1::VolumeRecords;

class VolumesFileTest : public ::testing::Test {
 protected:
  static VolumeRecords Records(const std::string& key) {
    VolumeRecords records;
    records.set_written_us(1);
    records.add_records()->set_key(key);
    return records;
  }
  VolumeLedger::Kept Keep(VolumesFile& file, VolumeRecords records) {
    std::optional<VolumeLedger::Kept> kept;
    file.Keep(std::move(records), [&kept](VolumeLedger::Kept each) { kept = each; });
    EXPECT_FALSE(kept) << "never within the call";
    while (!kept) loop_.RunOnce(std::chrono::milliseconds(5));
    return *kept;
  }
  VolumeRecords Take() { return VolumesFile(path_, loop_, nullptr).Take(); }

  const sluice::testing::TempFolder temp_{"volumes"};
  const std::string folder_ = temp_.path();
  const std::string path_ = folder_ + "/volumes";
  EventLoop loop_;
};

TEST_F(VolumesFileTest, WhatIsKeptIsThereForTheNextProcess) {
  EXPECT_TRUE(Take().boot().empty()) << "nothing yet";
  VolumesFile file(path_, loop_, nullptr);
  VolumeRecords records = Records("a/v");
  records.set_running(true);
  EXPECT_EQ(Keep(file, records), VolumeLedger::Kept::kYes);
  for (int kill = 0; kill < 3; ++kill) {
    const VolumeRecords taken = Take();
    EXPECT_TRUE(taken.running());
    ASSERT_EQ(taken.records_size(), 1);
    EXPECT_EQ(taken.records(0).key(), "a/v");
  }
}

// Its successor may send: what was left is then that of a running worker.
TEST_F(VolumesFileTest, WhatAnEndedWorkerLeftHoldsOnce) {
  VolumesFile(path_, loop_, nullptr).Leave(Records("a/v"));
  const VolumeRecords first = Take();
  EXPECT_FALSE(first.running());
  EXPECT_EQ(first.records_size(), 1);
  const VolumeRecords second = Take();
  EXPECT_TRUE(second.running());
  EXPECT_EQ(second.records_size(), 1);
}

TEST_F(VolumesFileTest, RecordsOfAnotherBootAndDamagedOnesAreNotUsed) {
  VolumeRecords other = Records("a/v");
  other.set_boot("another one");
  std::ofstream(path_) << other.SerializeAsString();
  EXPECT_TRUE(Take().boot().empty());
  EXPECT_FALSE(std::filesystem::exists(path_));
  std::ofstream(path_) << "\xff\xff garbage";
  EXPECT_TRUE(Take().boot().empty());
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(VolumesFileTest, WhatCannotBeWrittenLeavesNothingBehind) {
  VolumesFile file(path_, loop_, nullptr);
  ASSERT_EQ(Keep(file, Records("a/v")), VolumeLedger::Kept::kYes);
  std::filesystem::create_directories(path_ + ".tmp/in the way");  // of the new file
  EXPECT_EQ(Keep(file, Records("b/v")), VolumeLedger::Kept::kNothing);
  EXPECT_FALSE(std::filesystem::exists(path_));
  std::filesystem::create_directories(path_ + "/in the way");  // and of removing the old one
  EXPECT_EQ(Keep(file, Records("b/v")), VolumeLedger::Kept::kBefore);
}

}  // namespace
}  // namespace sluice::node
