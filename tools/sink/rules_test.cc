// Rules say what they mean, and a wrong word is refused by name.
#include "tools/sink/rules.h"

#include <gtest/gtest.h>

#include "tools/sink/latency_histogram.h"

namespace sluice::sink {
namespace {

TEST(RuleTable, TheClosestPatternWins) {
  RuleTable table;
  ASSERT_TRUE(table
                  .AddAll("# comment\n\n* defer=1%\n*.example.com defer=0.02\n"
                          "A.example.com defer=3% reject=50%\r\n@127.0.0.5 close=connect\n")
                  .ok());
  EXPECT_DOUBLE_EQ(table.ForDomain("other.test").defer_share, 0.01);
  EXPECT_DOUBLE_EQ(table.ForDomain("b.example.com").defer_share, 0.02);
  EXPECT_DOUBLE_EQ(table.ForDomain("x.y.example.com").defer_share, 0.02);
  EXPECT_DOUBLE_EQ(table.ForDomain("example.com").defer_share, 0.01);
  EXPECT_DOUBLE_EQ(table.ForDomain("a.example.com").defer_share, 0.03);
  EXPECT_DOUBLE_EQ(table.ForDomain("a.example.com").reject_share, 0.5);
  EXPECT_EQ(table.ForAddress(*IpAddress::Parse("127.0.0.5")).close_at, Stage::kConnect);
  EXPECT_EQ(table.ForAddress(*IpAddress::Parse("127.0.0.6")).close_at, std::nullopt);
}

TEST(RuleTable, EveryKey) {
  RuleTable table;
  absl::Status status = table.Add(
      "a.test defer=1 reject=0 fail-at=dot defer-reply=421_4.7.0_busy delay=250ms delay-at=rcpt "
      "close=text close-share=0.5 connections=3 rate=600/m greylist=5m dns=truncate mx-count=4 "
      "address=127.0.0.1,::1 reject-reply=554_no");
  ASSERT_TRUE(status.ok()) << status.message();
  const Rule& rule = table.ForDomain("a.test");
  EXPECT_EQ(rule.fail_at, Stage::kDot);
  EXPECT_EQ(rule.defer_reply, "421 4.7.0 busy");
  EXPECT_EQ(rule.reject_reply, "554 no");
  EXPECT_EQ(rule.delay, std::chrono::milliseconds(250));
  EXPECT_EQ(rule.delay_at, Stage::kRcpt);
  EXPECT_EQ(rule.close_at, Stage::kText);
  EXPECT_EQ(rule.connections_max, 3u);
  EXPECT_EQ(rule.rate_max, 600u);
  EXPECT_EQ(rule.rate_period, std::chrono::minutes(1));
  EXPECT_EQ(rule.greylist, std::chrono::minutes(5));
  EXPECT_EQ(rule.dns, DnsMode::kTruncate);
  EXPECT_EQ(rule.mx_count, 4u);
  EXPECT_EQ(rule.addresses.size(), 2u);
}

TEST(RuleTable, WrongWordsAreNamedAndChangeNothing) {
  RuleTable table;
  ASSERT_TRUE(table.Add("a.test defer=50%").ok());
  for (const char* word :
       {"defer=2", "defer=x", "colour=red", "delay=5", "close=never", "rate=5", "rate=5/0s",
        "connections=-1", "defer-reply=550_no", "fail-at=ehlo", "mx-count=0", "address=host"}) {
    absl::Status status = table.AddAll("b.test defer=1\na.test " + std::string(word));
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << word;
    EXPECT_NE(std::string(status.message()).find(word), std::string::npos);
  }
  EXPECT_FALSE(table.Add("@nohost close=ehlo").ok());
  EXPECT_FALSE(table.Add("  ").ok());
  EXPECT_DOUBLE_EQ(table.ForDomain("a.test").defer_share, 0.5);
  EXPECT_FALSE(table.HasExact("b.test"));
}

TEST(LatencyHistogram, PercentilesAreWithinTwoPercent) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.PercentileUs(0.5), 0u);
  for (int64_t i = 1; i <= 100'000; ++i) histogram.Record(i);
  EXPECT_NEAR(static_cast<double>(histogram.PercentileUs(0.5)), 50'000, 1'000);
  EXPECT_NEAR(static_cast<double>(histogram.PercentileUs(0.99)), 99'000, 1'980);
  EXPECT_EQ(histogram.PercentileUs(1), 100'000u);
  histogram.Record(-5);
  EXPECT_EQ(histogram.PercentileUs(0), 0u);
  LatencyHistogram other;
  other.Record(INT64_MAX);
  histogram.Merge(other);
  EXPECT_EQ(histogram.count(), 100'002u);
  EXPECT_EQ(histogram.max_us(), static_cast<uint64_t>(INT64_MAX));
}

}  // namespace
}  // namespace sluice::sink
