// Proves that the spool that benchmarks fill is one that a shard serves.
#include "tests/bench/spool/spool.h"

#include <gtest/gtest.h>

#include "services/base/testing/temp_folder.h"

namespace sluice::bench {
namespace {

TEST(Spool, EverythingPutInComesOutAgain) {
  const sluice::testing::TempFolder folder("spool");
  FillOptions options;
  options.data_dir = folder.path();
  options.messages = 730;
  const auto filled = Fill(options);
  ASSERT_TRUE(filled.ok()) << filled.status();
  EXPECT_EQ(filled->accepted, 730u);
  const auto emptied = ConsumeHead(options, 100, 4);
  ASSERT_TRUE(emptied.ok()) << emptied.status();
  EXPECT_EQ(emptied->delivered, 730u);
  EXPECT_EQ(emptied->first.count(), 100u);
  EXPECT_EQ(emptied->last.count(), 100u);
}

}  // namespace
}  // namespace sluice::bench
