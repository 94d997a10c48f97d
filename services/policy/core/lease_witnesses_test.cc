// When no worker can find enough shards that vouch for an old table.
#include "services/policy/core/lease_witnesses.h"

#include "gtest/gtest.h"
#include "services/config/owners.h"

namespace sluice::policy {
namespace {

MonotonicTime At(int64_t us) { return MonotonicTime(Duration(us)); }

TEST(LeaseWitnesses, VouchesAndFencesCannotBothBeEnough) {
  for (size_t shards = 1; shards < 20; ++shards) {
    EXPECT_EQ(config::Owners::VouchesNeeded(shards) + config::Owners::FencesNeeded(shards),
              shards + 1);
    EXPECT_GE(config::Owners::FencesNeeded(shards), 1u);
  }
}

TEST(LeaseWitnesses, HalfOfTheShardsMustKeepToTheLaterTableForSoLong) {
  const std::vector<std::string> three = {"a", "b", "c"};
  LeaseWitnesses witnesses;
  EXPECT_TRUE(witnesses.Fenced({}, 5, At(0)));
  EXPECT_FALSE(witnesses.Fenced(three, 5, At(100)));
  witnesses.OnReport("a", 5, At(10));
  witnesses.OnReport("other", 9, At(10));
  EXPECT_FALSE(witnesses.Fenced(three, 5, At(100))) << "b and c would do for a worker";
  witnesses.OnReport("b", 6, At(20));
  EXPECT_TRUE(witnesses.Fenced(three, 5, At(20)));
  EXPECT_FALSE(witnesses.Fenced(three, 5, At(19)));
  EXPECT_FALSE(witnesses.Fenced(three, 6, At(100)));
  witnesses.OnReport("b", 7, At(30));
  EXPECT_TRUE(witnesses.Fenced(three, 5, At(20))) << "since 6, which is later too";
  EXPECT_TRUE(witnesses.Fenced({"a"}, 5, At(10)));
}

// It vouches for nothing, so it is no reason to wait; unless it is not known what its disk has.
TEST(LeaseWitnesses, AShardOfTheReleaseBefore) {
  LeaseWitnesses witnesses;
  witnesses.OnOldRelease("a", At(10));
  EXPECT_TRUE(witnesses.IsOld("a"));
  EXPECT_FALSE(witnesses.Fenced({"a"}, 5, At(9)));
  EXPECT_TRUE(witnesses.Fenced({"a"}, 5, At(10)));
  witnesses.OnOldRelease("a", At(50));
  EXPECT_TRUE(witnesses.Fenced({"a"}, 5, At(10))) << "still the same";
  witnesses.OnGone("a");
  EXPECT_FALSE(witnesses.Fenced({"a"}, 5, At(100))) << "what comes there next is not known";
  witnesses.OnOldRelease("a", At(110));
  witnesses.OnReport("a", 4, At(120));  // upgraded
  EXPECT_FALSE(witnesses.IsOld("a"));
  EXPECT_FALSE(witnesses.Fenced({"a"}, 5, At(200)));
  witnesses.OnOldRelease("a", At(210));  // and back: it may come again with what it has kept
  EXPECT_FALSE(witnesses.Fenced({"a"}, 5, At(1000)));
}

TEST(LeaseWitnesses, AShardThatLostItsDiskPromisesNothing) {
  LeaseWitnesses witnesses;
  witnesses.OnReport("a", 5, At(10));
  witnesses.OnReport("a", 0, At(20));
  EXPECT_FALSE(witnesses.Fenced({"a"}, 5, At(100)));
  witnesses.OnReport("a", 5, At(30));
  EXPECT_FALSE(witnesses.Fenced({"a"}, 5, At(29)));
  EXPECT_TRUE(witnesses.Fenced({"a"}, 5, At(30)));
}

}  // namespace
}  // namespace sluice::policy
