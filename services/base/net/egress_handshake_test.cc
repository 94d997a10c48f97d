// Proves that SOCKS5 and the PROXY protocol are spoken to the byte, and that a proxy's refusals
// and nonsense fail.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "services/base/net/proxy_preamble.h"
#include "services/base/net/socks5_handshake.h"

namespace sluice {
namespace {

std::string B(std::initializer_list<int> bytes) {
  std::string text;
  for (int each : bytes) text.push_back(static_cast<char>(each));
  return text;
}

const Endpoint kRemote = *Endpoint::Parse("192.0.2.7:25");
const Endpoint kRemote6 = *Endpoint::Parse("[2001:db8::7]:25");

// RFC 1928 sections 3 to 6, the proxy's bytes whole and one by one.
TEST(Socks5, WithoutPassword) {
  const std::string proxy =
      B({5, 0}) + B({5, 0, 0, 1, 10, 0, 0, 1, 0x12, 0x34}) + "220 the remote's\r\n";
  for (size_t step : {size_t{1}, size_t{3}, proxy.size()}) {
    Socks5Handshake socks(kRemote);
    EXPECT_EQ(socks.Begin(), B({5, 1, 0}));
    std::string out;
    std::string left;
    for (size_t at = 0; at < proxy.size(); at += step) {
      const std::string_view piece = std::string_view(proxy).substr(at, step);
      const auto used = socks.OnBytes(piece, &out);
      ASSERT_TRUE(used.ok()) << used.status();
      left += piece.substr(*used);
    }
    EXPECT_TRUE(socks.done());
    EXPECT_EQ(out, B({5, 1, 0, 1, 192, 0, 2, 7, 0, 25}));
    EXPECT_EQ(left, "220 the remote's\r\n");
  }
}

TEST(Socks5, WithPasswordOverIpv6) {
  Socks5Handshake socks(kRemote6, Socks5Credentials{"me", "secret"});
  EXPECT_EQ(socks.Begin(), B({5, 1, 2}));
  std::string out;
  ASSERT_TRUE(socks.OnBytes(B({5, 2}), &out).ok());
  EXPECT_EQ(out, B({1, 2}) + "me" + B({6}) + "secret");
  out.clear();
  ASSERT_TRUE(socks.OnBytes(B({1, 0}), &out).ok());
  EXPECT_EQ(out, B({5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 25}));
  EXPECT_FALSE(socks.done());
  ASSERT_TRUE(socks.OnBytes(B({5, 0, 0, 3, 2}) + "ab" + B({0, 1}), &out).ok());
  EXPECT_TRUE(socks.done());
}

struct Failure {
  std::string bytes;
  absl::StatusCode code;
};

TEST(Socks5, Failures) {
  using enum absl::StatusCode;
  for (const Failure& each :
       std::vector<Failure>{{"HTTP/1.1 400", kInvalidArgument},
                            {"220 smtp", kInvalidArgument},
                            {B({4, 0}), kInvalidArgument},
                            {B({5, 2}), kInvalidArgument},  // not offered
                            {B({5, 0xff}), kFailedPrecondition},
                            {B({5, 0, 5, 1, 0, 1}), kUnavailable},
                            {B({5, 0, 5, 2, 0, 1}), kUnavailable},
                            {B({5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0}), kUnavailable},
                            {B({5, 0, 5, 200, 0, 1, 0, 0, 0, 0, 0, 0}), kUnavailable},
                            {B({5, 0, 5, 0, 0, 9, 0, 0, 0, 0, 0, 0}), kInvalidArgument}}) {
    Socks5Handshake socks(kRemote);
    std::string out;
    // A failure's address is not waited for by every proxy, but it is part of the message.
    const auto used = socks.OnBytes(each.bytes + std::string(10, '\0'), &out);
    EXPECT_EQ(used.status().code(), each.code) << each.bytes;
    EXPECT_FALSE(socks.done());
    EXPECT_FALSE(socks.OnBytes("x", &out).ok());
  }
  Socks5Handshake socks(kRemote, Socks5Credentials{"me", "wrong"});
  std::string out;
  EXPECT_EQ(socks.OnBytes(B({5, 2, 1, 1}), &out).status().code(), kFailedPrecondition);
  Socks5Handshake without(kRemote, Socks5Credentials{"me", ""});
  EXPECT_EQ(without.OnBytes(B({5, 2}), &out).status().code(), kFailedPrecondition);
}

TEST(ProxyPreamble, Version1) {
  EXPECT_EQ(ProxyPreambleV1(*Endpoint::Parse("10.0.0.1:40000"), kRemote),
            "PROXY TCP4 10.0.0.1 192.0.2.7 40000 25\r\n");
  EXPECT_EQ(ProxyPreambleV1(*Endpoint::Parse("[::1]:1"), kRemote6),
            "PROXY TCP6 ::1 2001:db8::7 1 25\r\n");
  EXPECT_EQ(ProxyPreambleV1(*Endpoint::Parse("[::1]:1"), kRemote), "PROXY UNKNOWN\r\n");
}

// Section 2.2 of the protocol's specification.
TEST(ProxyPreamble, Version2) {
  const std::string head = B({13, 10, 13, 10, 0, 13, 10}) + "QUIT\n";
  EXPECT_EQ(ProxyPreambleV2(*Endpoint::Parse("10.0.0.1:258"), kRemote),
            head + B({0x21, 0x11, 0, 12, 10, 0, 0, 1, 192, 0, 2, 7, 1, 2, 0, 25}));
  const std::string v6 = ProxyPreambleV2(*Endpoint::Parse("[::1]:1"), kRemote6);
  EXPECT_EQ(v6.size(), 16u + 36u);
  EXPECT_EQ(v6.substr(12, 4), B({0x21, 0x21, 0, 36}));
  EXPECT_EQ(ProxyPreambleV2(*Endpoint::Parse("[::1]:1"), kRemote), head + B({0x21, 0, 0, 0}));
  ProxyPreamble preamble(2, *Endpoint::Parse("[::1]:1"), kRemote6);
  EXPECT_TRUE(preamble.done());
  EXPECT_EQ(preamble.Begin(), v6);
}

}  // namespace
}  // namespace sluice
