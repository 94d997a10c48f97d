// Proves which headers are taken, that a header is found however it is cut, and that nothing else
// passes for one.
#include "services/mail/proxy_protocol.h"

#include <string>

#include "gtest/gtest.h"

namespace sluice::mail {
namespace {

using Outcome = ProxyHeader::Outcome;

std::string Version2(int command, int family, const std::string& rest) {
  std::string header("\r\n\r\n\0\r\nQUIT\n", 12);
  header += static_cast<char>(0x20 | command);
  header += static_cast<char>(family);
  header += static_cast<char>(rest.size() >> 8);
  header += static_cast<char>(rest.size());
  return header + rest;
}

const std::string kFour("\xc0\x00\x02\x01\x7f\x00\x00\x01\x30\x39\x00\x19", 12);

TEST(ProxyProtocol, Headers) {
  std::string six(32, '\0');
  six[0] = 0x20, six[1] = 0x01, six[15] = 1, six[31] = 2;
  six += std::string("\x00\x01\x00\x19", 4);
  struct Case {
    std::string header;
    Outcome outcome;
    std::string client;
    std::string server;
    int client_port = 0;
  };
  const Case kCases[] = {
      {"PROXY TCP4 192.0.2.1 127.0.0.1 12345 25\r\n", Outcome::kClient, "192.0.2.1", "127.0.0.1",
       12345},
      {"PROXY TCP6 2001:DB8::1 ::1 1 25\r\n", Outcome::kClient, "2001:db8::1", "::1", 1},
      {"PROXY UNKNOWN\r\n", Outcome::kLocal, "", ""},
      {"PROXY UNKNOWN ffff::1 ::2 1 2\r\n", Outcome::kLocal, "", ""},
      {Version2(1, 0x11, kFour), Outcome::kClient, "192.0.2.1", "127.0.0.1", 12345},
      {Version2(1, 0x21, six), Outcome::kClient, "2001::1", "::2", 1},
      {Version2(1, 0x11, kFour + std::string("\x04\x00\x02xx", 5)), Outcome::kClient, "192.0.2.1",
       "127.0.0.1", 12345},
      {Version2(0, 0x00, ""), Outcome::kLocal, "", ""},
      {Version2(0, 0x11, kFour), Outcome::kLocal, "", ""},
      {Version2(1, 0x00, "any"), Outcome::kLocal, "", ""},
  };
  for (const Case& c : kCases) {
    const std::string bytes = c.header + "EHLO x\r\n";
    for (size_t size = 0; size < c.header.size(); ++size) {
      ASSERT_EQ(ReadProxyHeader(bytes.substr(0, size)).outcome, Outcome::kIncomplete) << size;
    }
    const ProxyHeader header = ReadProxyHeader(bytes);
    EXPECT_EQ(header.outcome, c.outcome) << c.header;
    EXPECT_EQ(header.size, c.header.size());
    EXPECT_EQ(header.client_ip, c.client);
    EXPECT_EQ(header.server_ip, c.server);
    EXPECT_EQ(header.client_port, c.client_port);
  }
}

TEST(ProxyProtocol, WhatIsNone) {
  const std::string kCases[] = {
      "EHLO x\r\n",
      "PROXY\r\n",
      "PROXY TCP4 192.0.2.1 127.0.0.1 12345 25\n",
      "PROXY TCP4 192.0.2.1 127.0.0.1 12345\r\n",
      "PROXY TCP4 192.0.2.1 127.0.0.1 12345 25 6\r\n",
      "PROXY TCP4 192.0.2.1  127.0.0.1 12345 25\r\n",
      "PROXY TCP4 192.0.2.256 127.0.0.1 12345 25\r\n",
      "PROXY TCP4 2001:db8::1 ::1 1 25\r\n",
      "PROXY TCP4 192.0.2.1 127.0.0.1 65536 25\r\n",
      "PROXY TCP4 192.0.2.1 127.0.0.1 01 25\r\n",
      "PROXY UDP4 192.0.2.1 127.0.0.1 1 25\r\n",
      "proxy TCP4 192.0.2.1 127.0.0.1 1 25\r\n",
      "PROXY " + std::string(200, 'x'),
      Version2(2, 0x11, kFour),
      Version2(1, 0x12, kFour),
      Version2(1, 0x31, std::string(216, '\0')),
      Version2(1, 0x11, "short"),
      Version2(1, 0x11, std::string(kMaxProxyHeaderBytes, '\0')),
      std::string("\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0", 16),
  };
  for (const std::string& bytes : kCases) {
    EXPECT_EQ(ReadProxyHeader(bytes).outcome, Outcome::kMalformed) << bytes;
  }
}

}  // namespace
}  // namespace sluice::mail
