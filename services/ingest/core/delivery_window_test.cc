// Proves what an X-Schedule field may say.
#include "services/ingest/core/delivery_window.h"

#include <gtest/gtest.h>

#include <string>

namespace sluice::ingest {
namespace {

constexpr int64_t kSecondUs = 1'000'000;
constexpr int64_t kNoonUs = 1'795'262'400 * kSecondUs;  // 2026-11-21 12:00:00 UTC

TEST(DeliveryWindow, TimesWithAnOffset) {
  std::string problem;
  const auto both =
      ParseDeliveryWindows("2026-11-21T12:00:00Z / 2026-11-21 14:30:00 +01:00", problem);
  ASSERT_EQ(both.size(), 1U) << problem;
  EXPECT_EQ(both[0].begin_us, kNoonUs);
  EXPECT_EQ(both[0].end_us, kNoonUs + 5400 * kSecondUs);
  const auto open = ParseDeliveryWindows("2026-11-21T13:00:00+01:00", problem);
  ASSERT_EQ(open.size(), 1U) << problem;
  EXPECT_EQ(open[0].begin_us, kNoonUs);
  EXPECT_EQ(open[0].end_us, 0);
}

TEST(DeliveryWindow, LocalTimesLieAsFarApartAsTheySay) {
  std::string problem;
  const auto windows = ParseDeliveryWindows(" 2026-11-21 17:00:00 / 2026-11-21 17:30 ", problem);
  ASSERT_EQ(windows.size(), 1U) << problem;
  const DeliveryWindow& window = windows[0];
  EXPECT_EQ(window.end_us - window.begin_us, 1800 * kSecondUs);
  EXPECT_LT(std::abs(window.begin_us - kNoonUs - 5 * 3600 * kSecondUs), 15 * 3600 * kSecondUs);
}

TEST(DeliveryWindow, SeveralComeInOrderOfTime) {
  std::string problem;
  const auto windows = ParseDeliveryWindows(
      "2026-11-21T12:00:00Z / 2026-11-21T13:00:00Z, 2026-11-21T13:00:00Z / 2026-11-21T14:00:00Z,"
      "2026-11-22T12:00:00Z",
      problem);
  ASSERT_EQ(windows.size(), 3U) << problem;
  EXPECT_EQ(windows[1].begin_us, kNoonUs + 3600 * kSecondUs);
  EXPECT_EQ(windows[1].end_us, kNoonUs + 7200 * kSecondUs);
  EXPECT_EQ(windows[2].begin_us, kNoonUs + 86'400 * kSecondUs);
  EXPECT_EQ(windows[2].end_us, 0);
}

TEST(DeliveryWindow, WhatItCannotBe) {
  for (const std::string text :
       {"", "soon", "2026-11-21", "2026-11-21 25:00:00", "2026-13-01 10:00:00", "/",
        "2026-11-21 17:00:00 /", "/ 2026-11-21 17:00:00", "2026-11-21 17:00:00 / later",
        "1960-01-01 00:00:00", "infinite-future", "10000-01-02 00:00:00", "300000-01-01 00:00:00",
        "2026-11-21 17:00:00 / 2026-11-21 16:00:00", "2026-11-21 17:00:00 / 2026-11-21 17:00:00",
        "2026-11-21 17:00:00 / 2026-11-21 18:00:00,",
        "2026-11-21 17:00:00 / 2026-11-21 18:00:00, 2026-11-21 17:30:00 / 2026-11-22 18:00:00",
        "2026-11-22 17:00:00 / 2026-11-22 18:00:00, 2026-11-21 17:00:00 / 2026-11-21 18:00:00",
        "2026-11-21 17:00:00, 2026-11-22 17:00:00"}) {
    std::string problem;
    EXPECT_TRUE(ParseDeliveryWindows(text, problem).empty()) << text;
    EXPECT_NE(problem, "") << text;
  }
}

}  // namespace
}  // namespace sluice::ingest
