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
      ParseDeliveryWindow("2026-11-21T12:00:00Z / 2026-11-21 14:30:00 +01:00", problem);
  ASSERT_TRUE(both) << problem;
  EXPECT_EQ(both->begin_us, kNoonUs);
  EXPECT_EQ(both->end_us, kNoonUs + 5400 * kSecondUs);
  const auto open = ParseDeliveryWindow("2026-11-21T13:00:00+01:00", problem);
  ASSERT_TRUE(open) << problem;
  EXPECT_EQ(open->begin_us, kNoonUs);
  EXPECT_EQ(open->end_us, 0);
}

TEST(DeliveryWindow, LocalTimesLieAsFarApartAsTheySay) {
  std::string problem;
  const auto window = ParseDeliveryWindow(" 2026-11-21 17:00:00 / 2026-11-21 17:30 ", problem);
  ASSERT_TRUE(window) << problem;
  EXPECT_EQ(window->end_us - window->begin_us, 1800 * kSecondUs);
  EXPECT_LT(std::abs(window->begin_us - kNoonUs - 5 * 3600 * kSecondUs), 15 * 3600 * kSecondUs);
}

TEST(DeliveryWindow, WhatItCannotBe) {
  for (const std::string text :
       {"", "soon", "2026-11-21", "2026-11-21 25:00:00", "2026-13-01 10:00:00", "/",
        "2026-11-21 17:00:00 /", "/ 2026-11-21 17:00:00", "2026-11-21 17:00:00 / later",
        "1960-01-01 00:00:00", "infinite-future", "2026-11-21 17:00:00 / 2026-11-21 16:00:00",
        "2026-11-21 17:00:00 / 2026-11-21 17:00:00",
        "2026-11-21 17:00:00 / 2026-11-21 18:00:00, 2026-11-22 17:00:00 / 2026-11-22 18:00:00"}) {
    std::string problem;
    EXPECT_FALSE(ParseDeliveryWindow(text, problem)) << text;
    EXPECT_NE(problem, "") << text;
  }
}

}  // namespace
}  // namespace sluice::ingest
