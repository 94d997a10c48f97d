// Proves that no window holds more than its count, and that full demand gets all of it.
#include "services/delivery/core/rate_pacer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace sluice::delivery {
namespace {

MonotonicTime At(int64_t ticks) { return MonotonicTime(Duration(ticks)); }

TEST(RatePacer, NoWindowEverHoldsMoreThanItsCount) {
  std::mt19937_64 random(20261121);
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 3000; ++round) {
    const uint64_t count = static_cast<uint64_t>(pick(1, pick(0, 1) == 0 ? 8 : 200));
    // Short periods too: there the interval's rounding is coarse.
    const Duration period(pick(1, pick(0, 1) == 0 ? 300 : 60'000'000'000));
    const auto burst = static_cast<uint32_t>(pick(0, static_cast<int64_t>(count) + 3));
    SCOPED_TRACE(testing::Message()
                 << "count " << count << " period " << period.count() << " burst " << burst);
    RatePacer pacer(count, period, burst);
    MonotonicTime now = At(pick(0, 1'000'000'000));
    std::vector<MonotonicTime> passed;
    for (int demand = 0; demand < 400; ++demand) {
      // Mostly demand without a pause, then short and long idle times.
      const int64_t kind = pick(0, 19);
      if (kind >= 17) now += Duration(pick(0, period.count() / static_cast<int64_t>(count) + 1));
      if (kind == 19) now += Duration(pick(0, 3 * period.count()));
      now = pacer.Next(now);
      ASSERT_EQ(pacer.Next(now), now);
      pacer.Charge(now, 1);
      passed.push_back(now);
    }
    // Half-open windows [t, t + period): `count` passes later at least a period went by.
    for (size_t i = 0; i + count < passed.size(); ++i) {
      ASSERT_GE(passed[i + count] - passed[i], period) << "from pass " << i;
    }
    // What was not used does not add up: after a long rest the burst passes at once, and no more.
    now += period * 1000;
    const uint64_t allowed = std::clamp<uint64_t>(burst, 1, count);
    for (uint64_t i = 0; i < allowed; ++i) {
      ASSERT_EQ(pacer.Next(now), now) << i;
      pacer.Charge(now, 1);
    }
    // Besides those that lateness might have held up, or the rounding to microseconds.
    const auto slack = static_cast<uint64_t>(RatePacer::SlackOf(period).count());
    const uint64_t late = (slack + 2) * count / static_cast<uint64_t>(period.count()) + 1;
    for (uint64_t i = 0; i < late && pacer.Next(now) == now; ++i) pacer.Charge(now, 1);
    ASSERT_GT(pacer.Next(now), now);
  }
}

// As the timers of an event loop have it, which do not come at the microsecond.
TEST(RatePacer, LateTimersDoNotLowerAFastRate) {
  for (const uint64_t count : {20u, 100u, 1000u, 16'667u, 100'000u}) {
    RatePacer pacer(count, std::chrono::seconds(1), 1);
    MonotonicTime now = At(1'000'000);
    const MonotonicTime end = now + std::chrono::seconds(60);
    uint64_t passed = 0;
    while (now < end) {
      for (; pacer.Next(now) <= now; ++passed) pacer.Charge(now, 1);
      now = std::max(pacer.Next(now), now) + std::chrono::milliseconds(2);
    }
    EXPECT_GE(passed, count * 60 * 98 / 100) << count;
    EXPECT_LE(passed, count * 61) << count;
  }
}

// Products of long periods and large bursts do not wrap around into "at once".
TEST(RatePacer, CenturiesAndHugeBursts) {
  const Duration century = std::chrono::hours(24 * 36525);
  for (const uint64_t count : {uint64_t{1}, uint64_t{4000}, uint64_t{4'000'000'000}, UINT64_MAX}) {
    for (const Duration period : {century, century * 100, Duration::max(), Duration(-1)}) {
      SCOPED_TRACE(testing::Message() << count << " in " << period.count());
      RatePacer pacer(count, period, UINT32_MAX);
      EXPECT_TRUE(pacer.limited());
      MonotonicTime now = At(1'000'000);
      ASSERT_EQ(pacer.Next(now), now);
      pacer.Charge(now, count);
      EXPECT_FALSE(pacer.Rested(now));
      pacer.Charge(now, UINT64_MAX);
      EXPECT_GT(pacer.Next(now), now);
      RatePacer exhausted(count, period, UINT32_MAX);
      exhausted.Exhaust(now);
      EXPECT_GT(exhausted.Next(now), now);
    }
  }
}

TEST(RatePacer, FullDemandGetsAllOfTheFirstWindow) {
  for (uint32_t burst = 1; burst <= 10; ++burst) {
    RatePacer pacer(10, Duration(10 * 9 * 8 * 7), burst);
    MonotonicTime now = At(5);
    int passed = 0;
    for (; now < At(5 + 10 * 9 * 8 * 7); ++passed) {
      pacer.Charge(now, 1);
      now = pacer.Next(now);
    }
    EXPECT_EQ(passed, 10) << burst;
  }
}

TEST(RatePacer, CountZeroNeverPasses) {
  RatePacer pacer(0, std::chrono::seconds(1), 5);
  EXPECT_TRUE(pacer.limited());
  EXPECT_EQ(pacer.Next(At(0)), MonotonicTime::max());
  pacer.Charge(At(0), 1);
  EXPECT_EQ(pacer.Next(At(0) + std::chrono::hours(1000)), MonotonicTime::max());
}

TEST(RatePacer, WithoutALimitAllPasses) {
  for (RatePacer pacer : {RatePacer(), RatePacer(3, Duration(0), 1)}) {
    EXPECT_FALSE(pacer.limited());
    pacer.Charge(At(7), 1000);
    EXPECT_EQ(pacer.Next(At(7)), At(7));
  }
}

TEST(RatePacer, ANewLimitKeepsWhatWasCharged) {
  RatePacer old(1, std::chrono::seconds(10), 1);
  old.Charge(At(100), 1);
  RatePacer renewed(1, std::chrono::seconds(10), 1);
  renewed.TakeOver(old);
  EXPECT_EQ(renewed.Next(At(100)), At(100) + std::chrono::seconds(10));
}

// A reload that changes `rate-burst` alone let a burst pass on top of what had just been sent.
TEST(RatePacer, NoWindowHoldsMoreThanItsCountWhileTheBurstChanges) {
  std::mt19937_64 random(5);
  const auto pick = [&random](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 3000; ++round) {
    const auto count = static_cast<uint64_t>(pick(1, 8));
    const Duration period(pick(1, 20'000'000));
    SCOPED_TRACE(testing::Message() << "count " << count << " period " << period.count());
    RatePacer pacer(count, period, 1);
    MonotonicTime now = At(pick(0, 1'000'000'000));
    std::vector<MonotonicTime> passed;
    for (int demand = 0; demand < 200; ++demand) {
      if (pick(0, 5) == 0) now += Duration(pick(0, period.count()));
      if (pick(0, 3) == 0) {
        RatePacer changed(count, period, static_cast<uint32_t>(pick(1, 5)));
        changed.TakeOver(pacer);
        pacer = changed;
      }
      now = pacer.Next(now);
      pacer.Charge(now, 1);
      passed.push_back(now);
    }
    for (size_t i = 0; i + count < passed.size(); ++i) {
      ASSERT_GE(passed[i + count] - passed[i], period) << "after " << i;
    }
  }
}

// And the next one begins with what was charged, also after it had stopped.
TEST(RatePacer, Stops) {
  const MonotonicTime now{std::chrono::hours(5)};
  RatePacer pacer(1, std::chrono::minutes(1), 1);
  pacer.Stop();
  EXPECT_EQ(pacer.Next(now), MonotonicTime::max());
  pacer.Exhaust(now);
  RatePacer next(1, std::chrono::minutes(1), 1);
  next.TakeOver(pacer);
  EXPECT_GE(next.Next(now), now + std::chrono::minutes(1));
  EXPECT_LE(next.Next(now), now + std::chrono::seconds(61));
}

}  // namespace
}  // namespace sluice::delivery
