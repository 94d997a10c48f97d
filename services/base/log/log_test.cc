// Proves that a record is one line that machines read back, whatever its fields hold, and that a
// noisy event is cut to its rate and says so.
#include "services/base/log/log.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace sluice {
namespace {

struct TestClock final : Clock {
  MonotonicTime Now() const override { return now; }
  WallTime WallNow() const override { return FromUnixMicros(1'700'000'000'123'456); }
  MonotonicTime now{std::chrono::hours(1)};
};

class LogTest : public testing::Test {
 protected:
  LogOptions Options(bool json) {
    LogOptions options;
    options.service = "sluiced";
    options.json = json;
    options.sink = [this](std::string_view line) { lines_.emplace_back(line); };
    return options;
  }
  TestClock clock_;
  std::vector<std::string> lines_;
};

TEST_F(LogTest, PeopleReadKeysAndValues) {
  Log log(Options(false), clock_);
  log.Info("policy_reloaded", "12 sections", {{"version", 7}, {"file", "a b.conf"}, {"ok", true}});
  ASSERT_EQ(lines_.size(), 1U);
  EXPECT_EQ(lines_[0],
            "time=2023-11-14T22:13:20.123456Z level=info service=sluiced event=policy_reloaded "
            "message=\"12 sections\" version=7 file=\"a b.conf\" ok=true");
}

TEST_F(LogTest, MachinesReadEveryRecordBack) {
  Log log(Options(true), clock_);
  const std::string hostile = "a\"b\\c\r\nd\x1b[31m\x7f";
  log.Error("store_failed", hostile, {{"bytes", uint64_t{1} << 40}});
  ASSERT_EQ(lines_.size(), 1U);
  EXPECT_EQ(lines_[0].find('\n'), std::string::npos);
  const auto record = nlohmann::json::parse(lines_[0]);
  EXPECT_EQ(record["message"], hostile);
  EXPECT_EQ(record["level"], "error");
  EXPECT_EQ(record["bytes"], uint64_t{1} << 40);
}

TEST_F(LogTest, BytesThatAreNoTextDoNotSpoilALine) {
  Log log(Options(true), clock_);
  log.Warn("peer_said", "", {{"reply", "caf\xe9 caf\xc3\xa9 \xc3"}});
  ASSERT_EQ(lines_.size(), 1U);
  EXPECT_EQ(nlohmann::json::parse(lines_[0])["reply"], "caf? caf\xc3\xa9 ?");
}

TEST_F(LogTest, PlainRecordsHoldNoControlCharacters) {
  Log log(Options(false), clock_);
  log.Warn("peer_said", "", {{"text", "\x1b]0;x\x07\nlevel=error"}});
  ASSERT_EQ(lines_.size(), 1U);
  for (const char c : lines_[0]) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
}

TEST_F(LogTest, WhatIsLessSevereIsLeftOut) {
  LogOptions options = Options(false);
  options.level = *ParseLogLevel("warn");
  Log log(options, clock_);
  log.Info("a", "");
  log.Warn("b", "");
  ASSERT_EQ(lines_.size(), 1U);
  EXPECT_NE(lines_[0].find("event=b"), std::string::npos);
  EXPECT_FALSE(ParseLogLevel("loud").has_value());
}

TEST_F(LogTest, ANoisyEventIsCutAndCounted) {
  LogOptions options = Options(false);
  options.per_event_per_second = 3;
  Log log(options, clock_);
  for (int i = 0; i < 10; ++i) log.Error("disk", "");
  log.Error("other", "");
  EXPECT_EQ(lines_.size(), 4U);
  clock_.now += std::chrono::seconds(1);
  log.Error("disk", "");
  ASSERT_EQ(lines_.size(), 5U);
  EXPECT_NE(lines_[4].find("suppressed=7"), std::string::npos) << lines_[4];
}

}  // namespace
}  // namespace sluice
