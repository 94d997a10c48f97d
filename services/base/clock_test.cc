// Proves that the real clock's two faces agree with the system's, and that wall times survive their
// stored form.
#include "services/base/clock.h"

#include <ctime>

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(ClockTest, MonotonicNeverGoesBack) {
  MonotonicTime last = Clock::Real().Now();
  for (int i = 0; i < 1000; ++i) {
    const MonotonicTime now = Clock::Real().Now();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(ClockTest, WallTimeIsTheSystemsUnixTime) {
  const int64_t before = std::time(nullptr);
  const int64_t wall_s = ToUnixMicros(Clock::Real().WallNow()) / 1'000'000;
  const int64_t after = std::time(nullptr);
  EXPECT_GE(wall_s, before);
  EXPECT_LE(wall_s, after);
}

TEST(ClockTest, UnixMicrosRoundTrip) {
  for (int64_t us : {int64_t{0}, int64_t{1}, int64_t{-1}, int64_t{1'795'225'813'472'511}}) {
    EXPECT_EQ(ToUnixMicros(FromUnixMicros(us)), us);
  }
}

}  // namespace
}  // namespace sluice
