// No window of the period holds more bytes than the limit, whatever the sizes and however long each
// message takes; and the limit is used.
#include "services/delivery/core/volume_window.h"

#include <deque>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace sluice::delivery {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

MonotonicTime At(Duration time) { return MonotonicTime(std::chrono::hours(50) + time); }

VolumeWindow Limited(uint64_t bytes, Duration period) {
  VolumeWindow window;
  window.Limit(At(seconds(0)), bytes, period);
  return window;
}

struct Sent {
  MonotonicTime when;
  uint64_t bytes;
};

void ExpectNoWindowOver(const std::vector<Sent>& sent, uint64_t most, Duration period) {
  uint64_t sum = 0;
  size_t first = 0;
  for (size_t i = 0; i < sent.size(); ++i) {
    sum += sent[i].bytes;
    while (sent[i].when - sent[first].when >= period) sum -= sent[first++].bytes;
    // One that is larger than the limit goes alone.
    if (first < i) {
      ASSERT_LE(sum, most) << "from message " << first << " to " << i;
    }
  }
}

TEST(VolumeWindow, RandomSizesAndTimes) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    std::mt19937_64 random(seed);
    const auto pick = [&random](uint64_t low, uint64_t high) {
      return std::uniform_int_distribution<uint64_t>(low, high)(random);
    };
    const uint64_t most = pick(1, 100'000);
    const Duration period(pick(1000, 100'000'000));
    const uint64_t largest = std::max<uint64_t>(1, most * pick(1, 120) / 100);
    VolumeWindow window = Limited(most, period);
    struct Flying {
      MonotonicTime ends;
      VolumeWindow::Reserved reserved;
    };
    std::vector<Flying> flying;
    std::vector<Sent> sent;
    MonotonicTime now = At(Duration(pick(0, 1'000'000)));
    for (int i = 0; i < 300; ++i) {
      const uint64_t size = pick(1, largest);
      for (;;) {
        const MonotonicTime next = window.Next(now, size);
        auto soonest = std::min_element(flying.begin(), flying.end(),
                                        [](auto& a, auto& b) { return a.ends < b.ends; });
        if (soonest != flying.end() && soonest->ends <= std::max(now, next)) {
          now = std::max(now, soonest->ends);
          const bool was_sent = pick(0, 9) > 0;
          window.Settle(now, soonest->reserved, was_sent);
          // Its bytes left at the last moment.
          if (was_sent) sent.push_back({now, soonest->reserved.bytes});
          flying.erase(soonest);
          continue;
        }
        now = std::max(now, next);
        if (next <= now && window.Next(now, size) <= now) break;
      }
      flying.push_back({now + Duration(pick(0, 3) * static_cast<uint64_t>(period.count()) / 10),
                        window.Reserve(now, size)});
      if (pick(0, 20) == 0) now += period * static_cast<int64_t>(pick(0, 3));
    }
    ExpectNoWindowOver(sent, most, period);
    ASSERT_GT(sent.size(), 100u) << seed;
  }
}

TEST(VolumeWindow, TheLimitIsUsedAndPaced) {
  VolumeWindow window = Limited(1'000'000, minutes(1));
  MonotonicTime now = At(seconds(0));
  std::vector<Sent> sent;
  while (now < At(minutes(10))) {
    now = window.Next(now, 10'000);
    window.Settle(now, window.Reserve(now, 10'000), true);
    sent.push_back({now, 10'000});
  }
  ExpectNoWindowOver(sent, 1'000'000, minutes(1));
  EXPECT_GE(sent.size(), 950u);  // of 1,000
  EXPECT_LE(sent.size(), 1001u);
  EXPECT_GE(sent[1].when - sent[0].when, milliseconds(600));
}

TEST(VolumeWindow, OneThatIsLargerThanTheLimitGoesAloneAndPaysAfterwards) {
  VolumeWindow window = Limited(1000, seconds(10));
  window.Settle(At(seconds(0)), window.Reserve(At(seconds(0)), 100), true);
  const MonotonicTime alone = window.Next(At(seconds(0)), 3000);
  EXPECT_GE(alone, At(seconds(10)));
  EXPECT_LE(alone, At(seconds(11)));
  window.Settle(alone, window.Reserve(alone, 3000), true);
  EXPECT_GE(window.Next(alone, 1), alone + seconds(30));
  EXPECT_LE(window.Next(alone, 1), alone + seconds(31));
}

TEST(VolumeWindow, WhatWasNotSentGoesBack) {
  VolumeWindow window = Limited(1000, seconds(10));
  const auto reserved = window.Reserve(At(seconds(0)), 900);
  EXPECT_GT(window.Next(At(seconds(1)), 900), At(seconds(10)));
  window.Settle(At(seconds(1)), reserved, false);
  EXPECT_LE(window.Next(At(seconds(1)), 900), At(seconds(1)) + microseconds(10));
}

TEST(VolumeWindow, BytesUnderWayCountUntilTheyAreSettled) {
  VolumeWindow window = Limited(1000, seconds(10));
  const auto slow = window.Reserve(At(seconds(0)), 600);
  EXPECT_GT(window.Next(At(seconds(60)), 600), At(seconds(60)));
  window.Settle(At(seconds(60)), slow, true);
  EXPECT_GE(window.Next(At(seconds(60)), 600), At(seconds(70)));
  EXPECT_LE(window.Next(At(seconds(60)), 600), At(seconds(71)));
}

TEST(VolumeWindow, AReloadForgetsNothing) {
  VolumeWindow window = Limited(1000, seconds(10));
  window.Settle(At(seconds(0)), window.Reserve(At(seconds(0)), 1000), true);
  window.Unlimit();
  EXPECT_EQ(window.Next(At(seconds(1)), 5000), At(seconds(1)));
  window.Limit(At(seconds(2)), 1000, seconds(20));
  EXPECT_GE(window.Next(At(seconds(2)), 500), At(seconds(20)));
  window.Limit(At(seconds(3)), 2000, seconds(20));
  EXPECT_LE(window.Next(At(seconds(3)), 500), At(seconds(11))) << "its debt is half as long";
}

TEST(VolumeWindow, NothingPassesAtZero) {
  EXPECT_EQ(Limited(0, seconds(1)).Next(At(seconds(0)), 1), MonotonicTime::max());
}

TEST(VolumeWindow, AfterExhaustItWaitsAPeriod) {
  VolumeWindow window = Limited(1000, seconds(10));
  window.Exhaust(At(seconds(5)));
  EXPECT_FALSE(window.Rested(At(seconds(14))));
  EXPECT_GE(window.Next(At(seconds(5)), 1), At(seconds(15)));
  EXPECT_TRUE(window.Rested(At(seconds(16))));
}

// As often as it is handed on, at any moment, it stays the same; another period loses nothing.
TEST(VolumeWindow, IsHandedOnAsItIs) {
  constexpr Duration kPeriod = std::chrono::minutes(10);
  VolumeWindow window;
  MonotonicTime now{std::chrono::hours(5)};
  window.Limit(now, 10'000, kPeriod);
  for (int i = 0; i < 20; ++i) {
    now = window.Next(now, 450);
    window.Settle(now + Duration(1000), window.Reserve(now, 450), true);
  }
  VolumeWindow next;
  next.Limit(now, 10'000, kPeriod);
  next.TakeOver(window.RecordOf(now), {});
  for (int i = 0; i < 100; ++i) {
    VolumeWindow again;
    again.Limit(now, 10'000, kPeriod);
    again.TakeOver(next.RecordOf(now), {});
    next = again;
  }
  for (const uint64_t size : {1, 500, 5'000, 10'000}) {
    EXPECT_EQ(next.Next(now, size), window.Next(now, size)) << size;
  }
  EXPECT_FALSE(next.Rested(now));
  EXPECT_TRUE(next.Rested(now + 2 * kPeriod));
  VolumeWindow other;
  other.Limit(now, 10'000, 2 * kPeriod);
  other.TakeOver(window.RecordOf(now), {});
  EXPECT_GE(other.Next(now, 5'000), now + 2 * kPeriod - kPeriod / 8);
  // What is under way counts as sent.
  VolumeWindow busy;
  busy.Limit(now, 10'000, kPeriod);
  busy.Reserve(now, 9'000);
  VolumeWindow after;
  after.Limit(now, 10'000, kPeriod);
  after.TakeOver(busy.RecordOf(now), {});
  EXPECT_GE(after.Next(now, 2'000), now + kPeriod);
}

// Until it goes on, with what was counted.
TEST(VolumeWindow, StandsStill) {
  constexpr Duration kPeriod = std::chrono::minutes(10);
  const MonotonicTime now{std::chrono::hours(5)};
  VolumeWindow window;
  window.Limit(now, 10'000, kPeriod);
  window.Settle(now, window.Reserve(now, 9'000), true);
  const MonotonicTime next = window.Next(now, 2'000);
  window.Stop(true);
  EXPECT_EQ(window.Next(now, 1), MonotonicTime::max());
  window.Stop(false);
  EXPECT_EQ(window.Next(now, 2'000), next);
}

// What was reserved before nothing was allowed any more comes back unsent: no time is due for it.
TEST(VolumeWindow, GivesBackWhatTheLimitOfBeforeAllowed) {
  const MonotonicTime now{std::chrono::hours(5)};
  VolumeWindow window;
  window.Limit(now, 10'000, std::chrono::minutes(10));
  const VolumeWindow::Reserved reserved = window.Reserve(now, 9'000);
  window.Limit(now, 0, std::chrono::minutes(10));
  window.Settle(now, {reserved.bytes, {}}, false);
  EXPECT_EQ(window.Next(now, 1), MonotonicTime::max());
  window.Limit(now, 10'000, std::chrono::minutes(10));
  EXPECT_LE(window.Next(now, 1), now + std::chrono::minutes(10));
  // Nor more of it than time can tell.
  VolumeWindow slow;
  slow.Limit(now, 1, std::chrono::hours(24 * 365 * 30));
  slow.Settle(now, slow.Reserve(now, 100'000'000), false);
  EXPECT_GE(slow.Next(now, 1), now);
}

}  // namespace
}  // namespace sluice::delivery
