// What the DNS responder answers, byte for byte where it matters, and that garbage gets no crash.
#include "tools/sink/dns_answer.h"

#include <gtest/gtest.h>

#include <random>

namespace sluice::sink {
namespace {

constexpr uint16_t kA = 1, kCname = 5, kSoa = 6, kMx = 15, kAaaa = 28;

std::string Query(std::string_view name, uint16_t type, uint16_t edns_size = 0) {
  std::string q("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00", 11);
  q.push_back(edns_size != 0 ? 1 : 0);
  while (!name.empty()) {
    size_t dot = std::min(name.find('.'), name.size());
    q.push_back(static_cast<char>(dot));
    q.append(name.substr(0, dot));
    name.remove_prefix(std::min(dot + 1, name.size()));
  }
  q.push_back('\0');
  q += {static_cast<char>(type >> 8), static_cast<char>(type), 0, 1};
  if (edns_size != 0) {
    q += {0, 0, 41, static_cast<char>(edns_size >> 8), static_cast<char>(edns_size)};
    q.append(6, '\0');
  }
  return q;
}

// A reader of its own for the answers: "TYPE name data" lines.
struct Parsed {
  int rcode;
  bool truncated;
  std::vector<std::string> answers;
  int authority;
};

uint16_t U16(std::string_view m, size_t at) {
  return static_cast<uint16_t>(static_cast<uint8_t>(m[at]) << 8 | static_cast<uint8_t>(m[at + 1]));
}

std::string NameAt(std::string_view m, size_t& at) {
  std::string name;
  while (m.at(at) != 0) {
    size_t length = static_cast<uint8_t>(m[at]);
    if (!name.empty()) name += ".";
    name += m.substr(at + 1, length);
    at += 1 + length;
  }
  ++at;
  return name;
}

Parsed Parse(std::string_view m) {
  Parsed parsed{m.at(3) & 15, (m[2] & 2) != 0, {}, U16(m, 8)};
  EXPECT_EQ(U16(m, 0), 0x1234);
  EXPECT_EQ(m[2] & 0x85, static_cast<char>(0x85) & 0x85);  // QR, AA, RD
  size_t at = 12;
  for (int i = 0; i < U16(m, 4); ++i) {
    NameAt(m, at);
    at += 4;
  }
  for (int i = 0; i < U16(m, 6); ++i) {
    std::string name = NameAt(m, at);
    uint16_t type = U16(m, at);
    size_t data = at + 10;
    at = data + U16(m, at + 8);
    std::string text = name + " " + std::to_string(type) + " ";
    if (type == kMx) {
      size_t host = data + 2;
      text += std::to_string(U16(m, data)) + " " + NameAt(m, host);
    } else if (type == kCname) {
      text += NameAt(m, data);
    } else if (type == kA) {
      text +=
          IpAddress::V4(static_cast<uint32_t>(U16(m, data)) << 16 | U16(m, data + 2)).ToString();
    }
    parsed.answers.push_back(text);
  }
  return parsed;
}

struct Harness {
  Parsed Ask(std::string_view name, uint16_t type, bool udp = true, uint16_t edns = 0) {
    std::string answer = AnswerDns(rules, options, Query(name, type, edns), udp);
    EXPECT_FALSE(answer.empty());
    return Parse(answer);
  }
  RuleTable rules;
  DnsOptions options{.addresses = {IpAddress::V4(0x7f000001), IpAddress::V4(0x7f000002)}};
};

using Lines = std::vector<std::string>;

TEST(Dns, AnyDomainHasAnMxThatLeadsToTheSink) {
  Harness h;
  EXPECT_EQ(h.Ask("Example.COM", kMx).answers, Lines{"example.com 15 10 mx1.example.com"});
  EXPECT_EQ(h.Ask("mx1.example.com", kA).answers,
            (Lines{"mx1.example.com 1 127.0.0.1", "mx1.example.com 1 127.0.0.2"}));
  Parsed none = h.Ask("mx1.example.com", kAaaa);
  EXPECT_EQ(none.rcode, 0);
  EXPECT_TRUE(none.answers.empty());
  EXPECT_EQ(none.authority, 1);
}

TEST(Dns, RulesScriptEachDomain) {
  Harness h;
  ASSERT_TRUE(h.rules
                  .AddAll("gone.test dns=nxdomain\nbad.test dns=servfail\nnull.test dns=null-mx\n"
                          "plain.test dns=no-mx\ntwo.test mx-count=2 address=127.0.0.8,127.0.0.9\n"
                          "own.test mx=b.other.test,a.other.test\na.other.test address=127.0.0.7\n"
                          "alias.test cname=two.test\nloop.test cname=loop.test\n"
                          "mute.test dns=timeout\n")
                  .ok());
  EXPECT_EQ(h.Ask("gone.test", kMx).rcode, 3);
  EXPECT_EQ(h.Ask("gone.test", kMx).authority, 1);
  EXPECT_EQ(h.Ask("bad.test", kMx).rcode, 2);
  EXPECT_EQ(h.Ask("null.test", kMx).answers, Lines{"null.test 15 0 "});
  EXPECT_TRUE(h.Ask("plain.test", kMx).answers.empty());
  EXPECT_EQ(h.Ask("plain.test", kA).answers.size(), 2u);
  EXPECT_EQ(h.Ask("two.test", kMx).answers,
            (Lines{"two.test 15 10 mx1.two.test", "two.test 15 20 mx2.two.test"}));
  EXPECT_EQ(h.Ask("mx2.two.test", kA).answers, Lines{"mx2.two.test 1 127.0.0.9"});
  EXPECT_EQ(h.Ask("own.test", kMx).answers,
            (Lines{"own.test 15 10 b.other.test", "own.test 15 20 a.other.test"}));
  EXPECT_EQ(h.Ask("a.other.test", kA).answers, Lines{"a.other.test 1 127.0.0.7"});
  EXPECT_EQ(h.Ask("alias.test", kMx).answers,
            (Lines{"alias.test 5 two.test", "two.test 15 10 mx1.two.test",
                   "two.test 15 20 mx2.two.test"}));
  EXPECT_EQ(h.Ask("loop.test", kMx).answers.size(), 9u);
  EXPECT_EQ(AnswerDns(h.rules, h.options, Query("mute.test", kMx), true), "");
}

TEST(Dns, WhatIsTooBigForUdpIsCutAndWholeByTcp) {
  Harness h;
  ASSERT_TRUE(h.rules.AddAll("many.test mx-count=40\ncut.test dns=truncate").ok());
  Parsed cut = h.Ask("many.test", kMx);
  EXPECT_TRUE(cut.truncated);
  EXPECT_TRUE(cut.answers.empty());
  EXPECT_EQ(h.Ask("many.test", kMx, true, 4096).answers.size(), 40u);
  EXPECT_EQ(h.Ask("many.test", kMx, false).answers.size(), 40u);
  EXPECT_TRUE(h.Ask("cut.test", kMx).truncated);
  EXPECT_EQ(h.Ask("cut.test", kMx, false).answers.size(), 1u);
}

TEST(Dns, GarbageIsRefusedOrIgnored) {
  Harness h;
  EXPECT_EQ(AnswerDns(h.rules, h.options, "short", true), "");
  std::string response = Query("a.test", kMx);
  response[2] = static_cast<char>(response[2] | 0x80);
  EXPECT_EQ(AnswerDns(h.rules, h.options, response, true), "");
  std::string update = Query("a.test", kSoa);
  update[2] = 5 << 3;
  EXPECT_EQ(AnswerDns(h.rules, h.options, update, true)[3] & 15, 4);
  std::mt19937_64 random(3);
  for (int i = 0; i < 20'000; ++i) {
    std::string query = Query("some.name.test", kMx, 1232);
    for (uint64_t n = random() % 5; n > 0; --n) {
      query[random() % query.size()] = static_cast<char>(random());
    }
    query.resize(random() % (query.size() + 1));
    EXPECT_LE(AnswerDns(h.rules, h.options, query, true).size(), 4096u);
  }
}

}  // namespace
}  // namespace sluice::sink
