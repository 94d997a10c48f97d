// Proves that an outage is told after three seconds and then each minute, and that one which ends
// begins anew.
#include "services/base/log/outage_notice.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

using std::chrono::seconds;

TEST(OutageNotice, IsToldAfterAWhileAndNowAndThen) {
  OutageNotice notice;
  MonotonicTime now{seconds(1000)};
  int told = 0;
  for (int second = 0; second < 124; ++second, now += seconds(1)) {
    if (!notice.Failed(now)) continue;
    ++told;
    EXPECT_EQ(second, told == 1 ? 3 : 63 + 60 * (told - 2));
    EXPECT_EQ(notice.seconds(now), second);
  }
  EXPECT_EQ(told, 3);
  notice.Over();
  EXPECT_EQ(notice.seconds(now), 0);
  EXPECT_FALSE(notice.Failed(now));
  EXPECT_FALSE(notice.Failed(now + seconds(2)));
  EXPECT_TRUE(notice.Failed(now + seconds(3)));
}

}  // namespace
}  // namespace sluice
