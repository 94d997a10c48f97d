// The judge itself: what it must find, it finds.
#include "tests/powercut/ledger.h"

#include <gtest/gtest.h>

namespace sluice::powercut {
namespace {

Ledger After(std::initializer_list<std::pair<uint64_t, const char*>> lines) {
  Ledger ledger;
  for (const auto& [incarnation, line] : lines) ledger.Add(incarnation, line);
  ledger.CheckComplete();
  return ledger;
}

TEST(Ledger, AFullCourseIsFine) {
  EXPECT_TRUE(After({{1, "O"}, {1, "A 7 1"}, {1, "T 7.0"}, {1, "D 7.0"}, {1, "R 7.0"}, {2, "Z"}})
                  .errors()
                  .empty());
}
TEST(Ledger, AcceptedAndNeverDeliveredIsLost) {
  EXPECT_EQ(After({{1, "A 7 2"}, {1, "D 7.1"}, {2, "Z"}}).errors().size(), 1U);
}
TEST(Ledger, DoubledByACutIsFineWithinOneLifeItIsNot) {
  EXPECT_TRUE(After({{1, "A 7 1"}, {1, "D 7.0"}, {2, "D 7.0"}, {2, "Z"}}).errors().empty());
  EXPECT_EQ(After({{1, "A 7 1"}, {1, "D 7.0"}, {1, "D 7.0"}, {2, "Z"}}).errors().size(), 1U);
}
TEST(Ledger, NothingComesAfterItsResultWasAcknowledged) {
  EXPECT_EQ(
      After({{1, "A 7 1"}, {1, "D 7.0"}, {1, "R 7.0"}, {2, "D 7.0"}, {2, "Z"}}).errors().size(),
      1U);
}
TEST(Ledger, ARefusalNeedsItsDsnAndTheSpoolMustGetEmpty) {
  EXPECT_EQ(After({{1, "A 7 1"}, {1, "P 7.0"}, {1, "R 7.0"}, {2, "Z"}}).errors().size(), 1U);
  EXPECT_TRUE(
      After({{1, "A 7 1"}, {1, "P 7.0"}, {1, "R 7.0"}, {2, "N 7.0"}, {2, "Z"}}).errors().empty());
  EXPECT_EQ(After({{1, "O"}}).errors().size(), 1U);
  EXPECT_EQ(After({{1, "X wrong body"}, {2, "Z"}}).errors().size(), 1U);
}

}  // namespace
}  // namespace sluice::powercut
