// Addresses, blocks and endpoints: what parses, what does not, and that text and value agree.
#include "services/base/net/ip_address.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(IpAddress, ParsesAndPrints) {
  struct Case {
    const char* text;
    const char* printed;  // null: refused
  };
  for (const Case& c : {
           Case{"127.0.0.1", "127.0.0.1"},
           Case{"255.255.255.255", "255.255.255.255"},
           Case{"::1", "::1"},
           Case{"2001:DB8:0:0::7", "2001:db8::7"},
           Case{"::ffff:192.0.2.7", "192.0.2.7"},
           Case{"", nullptr},
           Case{"127.1", nullptr},
           Case{"127.0.0.01", nullptr},
           Case{"256.0.0.1", nullptr},
           Case{" 127.0.0.1", nullptr},
           Case{"[::1]", nullptr},
           Case{"fe80::1%eth0", nullptr},
           Case{"1:2:3:4:5:6:7:8:9", nullptr},
       }) {
    auto parsed = IpAddress::Parse(c.text);
    ASSERT_EQ(parsed.has_value(), c.printed != nullptr) << c.text;
    if (parsed) {
      EXPECT_EQ(parsed->ToString(), c.printed);
    }
  }
  EXPECT_FALSE(IpAddress::Parse(std::string_view("127.0.0.1\0", 10)));
}

TEST(IpAddress, ClassesThatWorkersMustKnow) {
  for (const char* text : {"10.1.2.3", "172.31.0.1", "192.168.0.1", "100.64.0.1", "fd00::1"}) {
    EXPECT_TRUE(IpAddress::Parse(text)->IsPrivate()) << text;
  }
  for (const char* text : {"172.32.0.1", "100.128.0.1", "8.8.8.8", "2001:db8::1"}) {
    EXPECT_FALSE(IpAddress::Parse(text)->IsPrivate()) << text;
  }
  EXPECT_TRUE(IpAddress::Parse("169.254.169.254")->IsLinkLocal());
  EXPECT_TRUE(IpAddress::Parse("febf::1")->IsLinkLocal());
  EXPECT_TRUE(IpAddress::Parse("127.9.9.9")->IsLoopback());
  EXPECT_TRUE(IpAddress::Parse("::1")->IsLoopback());
  EXPECT_FALSE(IpAddress::Parse("::2")->IsLoopback());
  EXPECT_TRUE(IpAddress::Parse("::")->IsUnspecified());
}

// What DNS may not lead to, in every form in which an address can be hidden.
TEST(IpAddress, PublicOnesOnly) {
  for (const char* text : {"0.0.0.0",
                           "0.1.2.3",
                           "10.0.0.1",
                           "100.64.0.1",
                           "127.0.0.1",
                           "169.254.169.254",
                           "172.16.0.1",
                           "192.0.0.8",
                           "192.168.1.1",
                           "198.18.0.1",
                           "198.19.255.255",
                           "224.0.0.1",
                           "240.0.0.1",
                           "255.255.255.255",
                           "::",
                           "::1",
                           "::ffff:127.0.0.1",
                           "::ffff:169.254.169.254",
                           "::10.0.0.1",
                           "64:ff9b::7f00:1",
                           "64:ff9b:1::1",
                           "64:ff9b::a9fe:a9fe",
                           "2002:a00:1::1",
                           "2001:0:1::1",
                           "fd00:ec2::254",
                           "fe80::1",
                           "fec0::1",
                           "ff02::1"}) {
    EXPECT_FALSE(IpAddress::Parse(text)->IsPublic()) << text;
  }
  for (const char* text : {"8.8.8.8", "192.0.2.1", "192.0.1.1", "198.20.0.1", "223.255.255.255",
                           "2001:db8::1", "2a00:1450::1b", "64:ff9b::808:808", "2002:808:808::1"}) {
    EXPECT_TRUE(IpAddress::Parse(text)->IsPublic()) << text;
  }
}

TEST(IpAddress, ValuesCompareAndHash) {
  auto a = *IpAddress::Parse("10.0.0.1");
  auto b = *IpAddress::Parse("10.0.0.2");
  auto c = *IpAddress::Parse("::1");
  EXPECT_LT(a, b);
  EXPECT_LT(b, c);
  EXPECT_EQ(a, IpAddress::V4(0x0a000001));
  EXPECT_EQ(absl::Hash<IpAddress>()(a), absl::Hash<IpAddress>()(IpAddress::V4(0x0a000001)));
  EXPECT_EQ(c.ToSmtpLiteral(), "IPv6:::1");
  EXPECT_EQ(a.ToSmtpLiteral(), "10.0.0.1");
}

TEST(Cidr, ContainsExactlyItsBlock) {
  auto block = *Cidr::Parse("192.0.2.129/25");
  EXPECT_EQ(block.ToString(), "192.0.2.128/25");
  EXPECT_TRUE(block.Contains(*IpAddress::Parse("192.0.2.128")));
  EXPECT_TRUE(block.Contains(*IpAddress::Parse("192.0.2.255")));
  EXPECT_FALSE(block.Contains(*IpAddress::Parse("192.0.2.127")));
  EXPECT_FALSE(block.Contains(*IpAddress::Parse("192.0.3.128")));
  EXPECT_FALSE(block.Contains(*IpAddress::Parse("::1")));
  EXPECT_TRUE(Cidr::Parse("0.0.0.0/0")->Contains(*IpAddress::Parse("8.8.8.8")));
  EXPECT_TRUE(Cidr::Parse("2001:db8::/33")->Contains(*IpAddress::Parse("2001:db8:7fff::1")));
  EXPECT_FALSE(Cidr::Parse("2001:db8::/33")->Contains(*IpAddress::Parse("2001:db8:8000::1")));
  EXPECT_EQ(Cidr::Parse("10.0.0.1")->prefix_bits(), 32);
  for (const char* bad :
       {"10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/08", "x/8", "::/129"}) {
    EXPECT_FALSE(Cidr::Parse(bad)) << bad;
  }
}

TEST(Endpoint, RoundTripsThroughTextAndSockaddr) {
  for (const char* text : {"127.0.0.1:25", "[::1]:65535", "0.0.0.0:0"}) {
    auto endpoint = Endpoint::Parse(text);
    ASSERT_TRUE(endpoint) << text;
    EXPECT_EQ(endpoint->ToString(), text);
    sockaddr_storage storage;
    endpoint->ToSockaddr(&storage);
    EXPECT_EQ(Endpoint::FromSockaddr(reinterpret_cast<sockaddr*>(&storage)), endpoint);
  }
  for (const char* bad : {"127.0.0.1", "::1:25", "[127.0.0.1]:25", "127.0.0.1:65536", "a:25", ""}) {
    EXPECT_FALSE(Endpoint::Parse(bad)) << bad;
  }
}

}  // namespace
}  // namespace sluice
