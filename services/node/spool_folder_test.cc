// disk-queue puts the spool elsewhere, and never leaves mail behind.
#include "services/node/spool_folder.h"

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "services/base/testing/temp_folder.h"

namespace sluice::node {
namespace {

class SpoolFolderTest : public ::testing::Test {
 protected:
  void PutSpool(const std::string& name) const {
    std::filesystem::create_directories(folder_ + "/" + name);
    std::ofstream(folder_ + "/" + name + "/CURRENT") << "MANIFEST-000001\n";
  }

  const sluice::testing::TempFolder temp_{"spool"};
  const std::string folder_ = temp_.path();
};

TEST_F(SpoolFolderTest, TheFlagGoesBeforeDiskQueueBeforeTheDataFolder) {
  EXPECT_EQ(*SpoolFolder(folder_, "", ""), folder_ + "/spool");
  EXPECT_EQ(*SpoolFolder(folder_, "", "/big/disk//"), "/big/disk/sluice-spool");
  EXPECT_EQ(*SpoolFolder(folder_, "/flag", "/big/disk"), "/flag");
  EXPECT_TRUE(absl::IsInvalidArgument(SpoolFolder(folder_, "", "disk").status()));
}

TEST_F(SpoolFolderTest, MailIsNotLeftBehind) {
  PutSpool("spool");
  const auto elsewhere = SpoolFolder(folder_, "", folder_ + "/big");
  ASSERT_TRUE(absl::IsFailedPrecondition(elsewhere.status()));
  EXPECT_NE(elsewhere.status().message().find("--spool-dir"), std::string::npos);
  EXPECT_EQ(*SpoolFolder(folder_, folder_ + "/spool", folder_ + "/big"), folder_ + "/spool");
  // Moved, as the message says.
  std::filesystem::create_directories(folder_ + "/big");
  std::filesystem::rename(folder_ + "/spool", folder_ + "/big/sluice-spool");
  EXPECT_EQ(*SpoolFolder(folder_, "", folder_ + "/big"), folder_ + "/big/sluice-spool");
}

}  // namespace
}  // namespace sluice::node
