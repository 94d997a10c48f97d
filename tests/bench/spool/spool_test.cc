#include "tests/bench/spool/spool.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

namespace sluice::bench {
namespace {

TEST(Spool, EverythingPutInComesOutAgain) {
  std::string pattern = testing::TempDir() + "/spoolXXXXXX";
  FillOptions options;
  options.data_dir = mkdtemp(pattern.data());
  options.messages = 730;
  const auto filled = Fill(options);
  ASSERT_TRUE(filled.ok()) << filled.status();
  EXPECT_EQ(filled->accepted, 730u);
  const auto emptied = ConsumeHead(options, 100, 4);
  ASSERT_TRUE(emptied.ok()) << emptied.status();
  EXPECT_EQ(emptied->delivered, 730u);
  EXPECT_EQ(emptied->first.count(), 100u);
  EXPECT_EQ(emptied->last.count(), 100u);
  std::filesystem::remove_all(options.data_dir);
}

}  // namespace
}  // namespace sluice::bench
