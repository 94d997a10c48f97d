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
