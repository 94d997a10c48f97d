#include "services/config/value.h"

#include "gtest/gtest.h"

namespace sluice::config {
namespace {

constexpr int64_t kSecond = 1'000'000;

TEST(ValueTest, Bool) {
  EXPECT_EQ(ParseBool("yes"), true);
  EXPECT_EQ(ParseBool("FALSE"), false);
  EXPECT_EQ(ParseBool("1"), std::nullopt);
}

TEST(ValueTest, Duration) {
  EXPECT_EQ(ParseDurationUs("4d12h"), 108 * 3600 * kSecond);
  EXPECT_EQ(ParseDurationUs("1w2d12h30m5s"), (((9 * 24 + 12) * 60 + 30) * 60 + 5) * kSecond);
  EXPECT_EQ(ParseDurationUs("30"), 30 * kSecond);
  EXPECT_EQ(ParseDurationUs("90 seconds"), 90 * kSecond);
  EXPECT_EQ(ParseDurationUs("250ms"), 250'000);
  EXPECT_EQ(ParseDurationUs("0"), 0);
  for (const char* bad :
       {"", "s", "5x", "5m30", "-5s", "1.5h", "99999999999999999999s", "200000w"}) {
    EXPECT_EQ(ParseDurationUs(bad), std::nullopt) << bad;
  }
}

TEST(ValueTest, DurationList) {
  EXPECT_EQ(ParseDurationListUs("10m, 30m,1h"),
            (std::vector<int64_t>{600 * kSecond, 1800 * kSecond, 3600 * kSecond}));
  EXPECT_EQ(ParseDurationListUs("10m,,1h"), std::nullopt);
  EXPECT_EQ(ParseDurationListUs("10m,"), std::nullopt);
}

TEST(ValueTest, Rate) {
  EXPECT_EQ(ParseRate("100/h")->count(), 100u);
  EXPECT_EQ(ParseRate("100/h")->period_us(), 3'600'000'000u);
  EXPECT_EQ(ParseRate("5/10s")->period_us(), 10'000'000u);
  EXPECT_EQ(ParseRate("5/second")->period_us(), 1'000'000u);
  EXPECT_TRUE(ParseRate("unlimited")->unlimited());
  EXPECT_EQ(ParseRate("0")->count(), 0u);
  EXPECT_FALSE(ParseRate("0")->unlimited());
  for (const char* bad : {"", "5", "5/", "/h", "5/0s", "5/x", "x/h", "5//h"}) {
    EXPECT_FALSE(ParseRate(bad)) << bad;
  }
}

TEST(ValueTest, Size) {
  EXPECT_EQ(ParseSizeBytes("50M"), uint64_t{50} << 20);
  EXPECT_EQ(ParseSizeBytes("512k"), 512u << 10);
  EXPECT_EQ(ParseSizeBytes("2GB"), uint64_t{2} << 30);
  EXPECT_EQ(ParseSizeBytes("100"), 100u);
  EXPECT_EQ(ParseSizeBytes("5x"), std::nullopt);
  EXPECT_EQ(ParseSizeBytes("99999999999T"), std::nullopt);
}

TEST(ValueTest, Addresses) {
  EXPECT_EQ(ParseIpPort("127.0.0.1", 53), "127.0.0.1:53");
  EXPECT_EQ(ParseIpPort("::1", 53), "[::1]:53");
  EXPECT_EQ(ParseIpPort("127.0.0.1:5353", 53), "127.0.0.1:5353");
  EXPECT_EQ(ParseIpPort("127.0.0.1", 0), std::nullopt);
  EXPECT_EQ(ParseHostPort("Relay.Example.:2525"), "relay.example:2525");
  EXPECT_EQ(ParseHostPort("[::1]"), "::1");
  EXPECT_EQ(ParseHostPort("relay:0"), std::nullopt);
  EXPECT_EQ(ParseHostPort("a b"), std::nullopt);
}

TEST(ValueTest, Network) {
  EXPECT_EQ(ParseNetwork("10/8"), "10.0.0.0/8");
  EXPECT_EQ(ParseNetwork("0/0"), "0.0.0.0/0");
  EXPECT_EQ(ParseNetwork("192.168/16"), "192.168.0.0/16");
  EXPECT_EQ(ParseNetwork("127.0.0.1"), "127.0.0.1/32");
  EXPECT_EQ(ParseNetwork("2001:db8::/32"), "2001:db8::/32");
  for (const char* bad : {"", "10", "10.0.0.1/8", "10/33", "x/8", "/8", "1.2.3.4.5/8"}) {
    EXPECT_EQ(ParseNetwork(bad), std::nullopt) << bad;
  }
}

TEST(ValueTest, DomainPattern) {
  EXPECT_EQ(ParseDomainPattern("*"), "*");
  EXPECT_EQ(ParseDomainPattern("*.Example.COM"), "*.example.com");
  EXPECT_EQ(ParseDomainPattern("[*.]example.com"), "[*.]example.com");
  for (const char* bad : {"", "*.", "a..b", "ex*mple", "[10.0.0.0/8]", "a b"}) {
    EXPECT_EQ(ParseDomainPattern(bad), std::nullopt) << bad;
  }
}

TEST(ValueTest, SplitList) {
  EXPECT_EQ(SplitList(" a, b;c  d,"), (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_TRUE(SplitList("").empty());
}

}  // namespace
}  // namespace sluice::config
