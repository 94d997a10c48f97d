// Proves that each kind of value is read in all its spellings, and nothing else is.
#include "services/config/value.h"

#include "gtest/gtest.h"
#include "services/config/value_lines.h"

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
  for (const char* bad : {"", "s", "5x", "5m30", "-5s", "1.5h", "99999999999999999999s", "200000w",
                          "10m 30m 1h", "30m1h", "5m5m"}) {
    EXPECT_EQ(ParseDurationUs(bad), std::nullopt) << bad;
  }
}

TEST(ValueTest, DurationList) {
  EXPECT_EQ(ParseDurationListUs("10m, 30m,1h"),
            (std::vector<int64_t>{600 * kSecond, 1800 * kSecond, 3600 * kSecond}));
  EXPECT_EQ(ParseDurationListUs("10m,,1h"), std::nullopt);
  EXPECT_EQ(ParseDurationListUs("10m,"), std::nullopt);
  EXPECT_EQ(ParseDurationListUs("10 minutes, 2h30m"),
            (std::vector<int64_t>{600 * kSecond, 9000 * kSecond}));
  // A list whose commas were forgotten, or not.
  for (const char* bad : {"10m 30m 1h", "1h 30m", "10m, 1h 30m", "10 30"}) {
    EXPECT_EQ(ParseDurationListUs(bad), std::nullopt) << bad;
  }
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
  EXPECT_EQ(ParseHostPort("[192.0.2.5]:26"), "192.0.2.5:26");
  for (const char* bad :
       {"[192.0.2.5", "[192.0.2.5]26", "[192.0.2.5]:", "[192.0.2.5]:0", "[]:25", "[a.test]:25"}) {
    EXPECT_EQ(ParseHostPort(bad), std::nullopt) << bad;
  }
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
  EXPECT_EQ(ParseDomainPattern("[10/8]"), "[10.0.0.0/8]");
  EXPECT_EQ(ParseDomainPattern("[192.0.2.1]"), "[192.0.2.1]");
  for (const char* bad : {"", "*.", "a..b", "ex*mple", "[10.0.0.1/8]", "[x]", "[", "a b"}) {
    EXPECT_EQ(ParseDomainPattern(bad), std::nullopt) << bad;
  }
}

TEST(ValueTest, NamesBeyondAscii) {
  EXPECT_EQ(ParseHostName("B\xc3\xbc\x63her.example"), "xn--bcher-kva.example");
  EXPECT_EQ(ParseDomainPattern("*.b\xc3\xbc\x63her.example"), "*.xn--bcher-kva.example");
  EXPECT_FALSE(ParseHostName("\xff\xfe.example"));
  EXPECT_FALSE(ParseHostName(std::string(5000, '\xc3')));
}

TEST(ValueTest, VolumeRate) {
  EXPECT_EQ(ParseVolumeRate("10M/2h")->count(), uint64_t{10} << 20);
  EXPECT_EQ(ParseVolumeRate("512k/s")->period_us(), 1'000'000u);
  EXPECT_TRUE(ParseVolumeRate("unlimited")->unlimited());
  EXPECT_EQ(ParseVolumeRate("0")->count(), 0u);
  for (const char* bad : {"", "10M", "10x/h", "/h", "10M/", "10M/0h"}) {
    EXPECT_FALSE(ParseVolumeRate(bad)) << bad;
  }
}

TEST(ValueTest, MailAddressesHeadersAndUrls) {
  EXPECT_EQ(ParseEmail("Jo@Example.TEST"), "Jo@example.test");
  for (const char* bad : {"", "jo", "@x", "jo@", "a b@x", "<a@x>"}) EXPECT_FALSE(ParseEmail(bad));
  EXPECT_EQ(ParseHeaderName("X-Job:"), "X-Job");
  for (const char* bad : {"", ":", "a b", "a:b"}) EXPECT_FALSE(ParseHeaderName(bad)) << bad;
  EXPECT_TRUE(IsUrl("https://vault.test:8200/v1?x=y"));
  for (const char* bad : {"", "ftp://x", "http://", "http://a..b/", "http://x y"}) {
    EXPECT_FALSE(IsUrl(bad)) << bad;
  }
}

TEST(ValueTest, Schedules) {
  const auto line = ParseScheduleLine("00:00 to 23:59 for 7d max-msg-rate 2000/h");
  ASSERT_TRUE(line);
  EXPECT_EQ(line->to_minute, 23u * 60 + 59);
  EXPECT_EQ(line->until_us, int64_t{7} * 86'400'000'000);
  EXPECT_EQ(line->rate.count(), 2000u);
  EXPECT_EQ(ParseScheduleLine("8:00 to 24:00 for 1d max-msg-rate 5/m")->to_minute, 1440u);
  for (const char* bad :
       {"", "23:00 to 01:00 for 1d max-msg-rate 5/h", "0:60 to 1:00 for 1d",
        "00:00 to 25:00 for 1d max-msg-rate 5/h", "00:00 to 01:00 for 0 max-msg-rate 5/h"}) {
    EXPECT_FALSE(ParseScheduleLine(bad)) << bad;
  }
  EXPECT_EQ(ParseGrowth("10%/day")->percent, 10u);
  EXPECT_EQ(ParseGrowth("10% daily")->period_us, int64_t{86'400'000'000});
  for (const char* bad : {"", "10", "%/day", "10%", "0%/day", "10%/0d"}) {
    EXPECT_FALSE(ParseGrowth(bad)) << bad;
  }
}

TEST(ValueTest, LinesOfSeveralWords) {
  const auto throttle = ParseThrottleOn("10/h on 421,4XX");
  ASSERT_TRUE(throttle);
  EXPECT_EQ(throttle->codes, (std::vector<std::string>{"421", "4xx"}));
  for (const char* bad : {"10/h", "10/h on", "10/h on 250", "fast on 4xx"}) {
    EXPECT_FALSE(ParseThrottleOn(bad)) << bad;
  }
  EXPECT_EQ(ParseIpDomain("192.0.2.1 domain = Example.com;")->domain, "example.com");
  EXPECT_EQ(ParseIpDomain("192.0.2.1 domain=example.com")->ip, "192.0.2.1");
  for (const char* bad : {"192.0.2.1", "x domain = a.test", "192.0.2.1 domain = a..b"}) {
    EXPECT_FALSE(ParseIpDomain(bad)) << bad;
  }
  const auto key = ParseDomainKey("s1, *, /etc/key.pem");
  ASSERT_TRUE(key);
  EXPECT_EQ(key->file, "/etc/key.pem");
  for (const char* bad : {"s1", "s1,*", "s1,*,", ",*,/f", "s1,a..b,/f"}) {
    EXPECT_FALSE(ParseDomainKey(bad)) << bad;
  }
}

TEST(ValueTest, SplitList) {
  EXPECT_EQ(SplitList(" a, b;c  d,"), (std::vector<std::string>{"a", "b", "c", "d"}));
  EXPECT_TRUE(SplitList("").empty());
}

}  // namespace
}  // namespace sluice::config
