// The model forgets exactly what was not synced.
#include "tests/harness/powercut/volatile_fs.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace sluice::powercut {
namespace {

class VolatileFsTest : public testing::Test {
 protected:
  VolatileFs::Node Make(const std::string& path, const std::string& text) {
    VolatileFs::Node node;
    EXPECT_EQ(fs_.Create(path, 0600, &node), 0);
    EXPECT_EQ(fs_.Write(node, 0, text), static_cast<int>(text.size()));
    return node;
  }
  void SyncFolder(const std::string& path) {
    VolatileFs::Node node;
    ASSERT_EQ(fs_.Lookup(path, &node), 0);
    ASSERT_EQ(fs_.Sync(node), 0);
  }
  std::string Content(const std::string& path) {
    VolatileFs::Node node;
    if (fs_.Lookup(path, &node) != 0) return "(none)";
    char buffer[256];
    const int bytes = fs_.Read(node, 0, sizeof(buffer), buffer);
    return bytes < 0 ? "(error)" : std::string(buffer, static_cast<size_t>(bytes));
  }
  void Cut(CutKind kind = CutKind::kForget, uint64_t seed = 1) {
    fs_.Cut(kind, seed);
    fs_.PowerOn();
  }
  VolatileFs fs_;
};

TEST_F(VolatileFsTest, BytesThatWereNotSyncedAreLost) {
  auto node = Make("/log", "safe");
  fs_.Sync(node);
  SyncFolder("/");
  fs_.Write(node, 4, " lost");
  EXPECT_EQ(Content("/log"), "safe lost");
  Cut();
  EXPECT_EQ(Content("/log"), "safe");
}

TEST_F(VolatileFsTest, AnOverwriteAndATruncationThatWereNotSyncedAreUndone) {
  auto node = Make("/log", "0123456789");
  fs_.Sync(node);
  SyncFolder("/");
  fs_.Write(node, 2, "xx");
  fs_.Truncate(node, 5);
  EXPECT_EQ(Content("/log"), "01xx4");
  Cut();
  EXPECT_EQ(Content("/log"), "0123456789");
}

TEST_F(VolatileFsTest, ANewNameNeedsASyncOfItsFolderNotOnlyOfTheFile) {
  fs_.Sync(Make("/new", "text"));
  Cut();
  EXPECT_EQ(Content("/new"), "(none)");
}

TEST_F(VolatileFsTest, ARenameAndARemovalNeedASyncOfTheFolder) {
  fs_.Sync(Make("/CURRENT", "old"));
  fs_.Sync(Make("/gone", "g"));
  SyncFolder("/");
  fs_.Sync(Make("/tmp", "new"));
  ASSERT_EQ(fs_.Rename("/tmp", "/CURRENT", false), 0);
  ASSERT_EQ(fs_.Remove("/gone", false), 0);
  EXPECT_EQ(Content("/CURRENT"), "new");
  Cut();
  EXPECT_EQ(Content("/CURRENT"), "old");
  EXPECT_EQ(Content("/gone"), "g");
  EXPECT_EQ(Content("/tmp"), "(none)");
}

TEST_F(VolatileFsTest, WithoutPowerNothingWorks) {
  auto node = Make("/log", "x");
  fs_.Cut(CutKind::kForget, 1);
  EXPECT_EQ(fs_.Write(node, 0, "y"), -EIO);
  EXPECT_EQ(fs_.Sync(node), -EIO);
  EXPECT_EQ(fs_.MakeFolder("/d", 0700), -EIO);
}

// Whatever a random cut keeps, what was synced is whole and what follows is a beginning of what was
// written, or zeros.
TEST_F(VolatileFsTest, ARandomCutNeverHarmsWhatWasSynced) {
  bool lost_some = false;
  bool kept_some = false;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::string name = "/log" + std::to_string(seed);
    auto node = Make(name, "safe");
    fs_.Sync(node);
    SyncFolder("/");
    fs_.Write(node, 4, std::string(100, 'w'));
    Cut(CutKind::kRandom, seed);
    const std::string left = Content(name);
    ASSERT_EQ(left.substr(0, 4), "safe") << "seed " << seed;
    ASSERT_LE(left.size(), 104U);
    ASSERT_EQ(left.find_first_not_of(std::string("w\0", 2), 4), std::string::npos);
    lost_some |= left.size() < 104;
    kept_some |= left.size() > 4;
  }
  EXPECT_TRUE(lost_some);
  EXPECT_TRUE(kept_some);
}

}  // namespace
}  // namespace sluice::powercut
