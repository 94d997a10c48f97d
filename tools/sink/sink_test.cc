// The whole sink over loopback: several addresses, log, stored messages, added round trip, DNS and
// HTTP.
#include "tools/sink/sink.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "nlohmann/json.hpp"
#include "services/base/net/connector.h"
#include "services/base/net/tcp_connection.h"
#include "services/base/testing/temp_folder.h"

namespace sluice::sink {
namespace {

struct Client final : TcpHandler {
  Client(EventLoop& loop, const Endpoint& remote, std::optional<IpAddress> source = {})
      : connector(loop, {.remote = remote, .source = source}, [this, &loop](auto fd) {
          ASSERT_TRUE(fd.ok()) << fd.status().message();
          connection.emplace(loop, std::move(*fd));
          connection->Start(this);
        }) {}
  void OnBytes(std::string_view bytes) override { received += bytes; }
  void OnClosed(const absl::Status&) override { closed = true; }

  std::optional<TcpConnection> connection;
  std::string received;
  bool closed = false;
  Connector connector;
};

struct Harness {
  explicit Harness(SinkOptions with = {}) : state(loop.clock(), 1), options(std::move(with)) {
    if (options.listen.empty()) {
      options.listen = {*Endpoint::Parse("127.0.0.1:0"), *Endpoint::Parse("127.0.0.2:0")};
    }
    options.dns = Endpoint::Parse("127.0.0.1:0");
    options.http = Endpoint::Parse("127.0.0.1:0");
    options.log.log_path = dir + "/log";
    options.log.store_dir = dir + "/store";
    auto opened = Sink::Open(loop, state, options);
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    sink = std::move(*opened);
  }

  bool RunUntil(const std::function<bool()>& done) {
    MonotonicTime end = loop.clock().Now() + std::chrono::seconds(10);
    while (!done()) {
      if (loop.clock().Now() > end) return false;
      loop.RunOnce(std::chrono::milliseconds(50));
    }
    return true;
  }
  // Sends `text` once connected, and waits for the end of the connection.
  std::string Exchange(Client& client, std::string_view text) {
    EXPECT_TRUE(RunUntil([&] { return client.connection.has_value(); }));
    client.connection->Write(text);
    EXPECT_TRUE(RunUntil([&] { return client.closed; }));
    return client.received;
  }
  std::string Read(const std::string& name) const {
    std::ifstream file(dir + "/" + name);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  EventLoop loop;
  SinkState state;
  SinkOptions options;
  const sluice::testing::TempFolder temp{"sink"};
  const std::string dir = temp.path();
  std::unique_ptr<Sink> sink;
};

constexpr std::string_view kMessage =
    "EHLO me.test\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nRCPT TO:<\"q\\\\\"@y.test>\r\n"
    "DATA\r\nMessage-ID: <1@x>\r\nx-test-id:  T7\r\n\r\n123456789\r\n..\xff\r\n.\r\nQUIT\r\n";

TEST(Sink, LogsAndStoresWhatItTakes) {
  Harness h;
  Client client(h.loop, h.sink->smtp_addresses()[1], IpAddress::Parse("127.0.0.3"));
  std::string replies = h.Exchange(client, kMessage);
  EXPECT_NE(replies.find("250 2.0.0 taken\r\n221 "), std::string::npos) << replies;
  std::istringstream log(h.Read("log"));
  std::string line;
  std::vector<nlohmann::json> lines;
  while (std::getline(log, line)) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["to"], "b@y.test");
  EXPECT_EQ(lines[1]["to"], "\"q\\\\\"@y.test");
  EXPECT_EQ(lines[0]["from"], "a@x.test");
  EXPECT_EQ(lines[0]["client"], "127.0.0.3");
  EXPECT_EQ(lines[0]["local"], "127.0.0.2");
  EXPECT_EQ(lines[0]["ehlo"], "me.test");
  EXPECT_EQ(lines[0]["message_id"], "<1@x>");
  EXPECT_EQ(lines[0]["test_id"], "T7");
  EXPECT_EQ(lines[0]["file"], "1.eml");
  std::string stored = h.Read("store/1.eml");
  EXPECT_EQ(stored, "Message-ID: <1@x>\r\nx-test-id:  T7\r\n\r\n123456789\r\n.\xff\r\n");
  EXPECT_EQ(lines[0]["size"], stored.size());
  EXPECT_EQ(lines[0]["body_hash"].get<std::string>().size(), 8u);
}

TEST(Sink, TheHashesAreTheOnesTheirNamesSay) {
  SinkOptions options;
  for (auto [hash, expected] :
       {std::pair(MessageLog::Hash::kCrc32c, "e3069283"),
        std::pair(MessageLog::Hash::kSha256,
                  "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225")}) {
    Harness h;
    MessageLog log(h.loop);
    ASSERT_TRUE(log.Open({.log_path = h.dir + "/hashes", .store_dir = {}, .hash = hash}).ok());
    std::vector<std::string> to = {"a@b"};
    log.OnMessage({.recipients = &to, .text = "A: b\r\n\r\n123456789"});
    log.Flush();
    EXPECT_EQ(nlohmann::json::parse(h.Read("hashes"))["body_hash"], expected);
  }
}

TEST(Sink, AnAddedRoundTripDelaysRepliesAndKeepsTheirOrder) {
  SinkOptions options;
  options.round_trip = std::chrono::milliseconds(20);
  Harness h(options);
  ASSERT_TRUE(h.state.rules().Add("y.test delay=15ms delay-at=rcpt").ok());
  MonotonicTime start = h.loop.clock().Now();
  Client client(h.loop, h.sink->smtp_addresses()[0]);
  std::string replies = h.Exchange(client, kMessage);
  // One round trip for what came in one write, and two scripted delays.
  EXPECT_GE(h.loop.clock().Now() - start, std::chrono::milliseconds(50));
  EXPECT_TRUE(replies.starts_with("220 ")) << replies;
  EXPECT_TRUE(replies.ends_with("taken\r\n221 2.0.0 bye\r\n")) << replies;
}

// The sink stays up whatever a client says of itself.
TEST(Sink, CountersOfAClientWithoutUtf8) {
  Harness h;
  Client smtp(h.loop, h.sink->smtp_addresses()[0], IpAddress::Parse("127.0.0.4"));
  h.Exchange(smtp, "EHLO \xff.test\r\nQUIT\r\n");
  Client get(h.loop, *h.sink->http_address());
  const std::string answer = h.Exchange(get, "GET /counters HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto counters = nlohmann::json::parse(answer.substr(answer.find("\r\n\r\n") + 4));
  EXPECT_EQ(counters["sources"]["127.0.0.4"]["ehlo"], "\xEF\xBF\xBD.test");
}

TEST(Sink, CountersAndRulesByHttp) {
  Harness h;
  Client smtp(h.loop, h.sink->smtp_addresses()[0], IpAddress::Parse("127.0.0.4"));
  h.Exchange(smtp, kMessage);
  Client get(h.loop, *h.sink->http_address());
  std::string answer = h.Exchange(get, "GET /counters HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\n")) << answer;
  auto counters = nlohmann::json::parse(answer.substr(answer.find("\r\n\r\n") + 4));
  EXPECT_EQ(counters["messages"], 1);
  EXPECT_EQ(counters["recipients"], 2);
  EXPECT_EQ(counters["domains"]["y.test"]["accepted"], 2);
  EXPECT_EQ(counters["sources"]["127.0.0.4"]["ehlo"], "me.test");
  EXPECT_EQ(counters["open"], 0);

  Client post(h.loop, *h.sink->http_address());
  h.Exchange(post, "POST /rules HTTP/1.1\r\ncontent-length: 18\r\n\r\ny.test reject=100%");
  Client again(h.loop, h.sink->smtp_addresses()[0]);
  EXPECT_NE(h.Exchange(again, kMessage).find("550 5.1.1"), std::string::npos);
  Client bad(h.loop, *h.sink->http_address());
  EXPECT_TRUE(h.Exchange(bad, "POST /rules HTTP/1.1\r\nContent-Length: 8\r\n\r\ny.test x")
                  .starts_with("HTTP/1.1 400 "));
  Client reset(h.loop, *h.sink->http_address());
  h.Exchange(reset, "POST /reset HTTP/1.1\r\n\r\n");
  EXPECT_EQ(h.state.counters().messages, 0u);
}

constexpr std::string_view kMxQuery(
    "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01y\x04test\x00\x00\x0f\x00\x01", 24);

TEST(Sink, DnsByUdpAndTcp) {
  Harness h;
  UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_storage storage;
  socklen_t length = h.sink->dns_address()->ToSockaddr(&storage);
  ASSERT_EQ(::connect(udp.get(), reinterpret_cast<sockaddr*>(&storage), length), 0);
  ASSERT_EQ(::send(udp.get(), kMxQuery.data(), kMxQuery.size(), 0),
            static_cast<ssize_t>(kMxQuery.size()));
  char answer[512];
  ssize_t got = -1;
  ASSERT_TRUE(h.RunUntil([&] {
    got = ::recv(udp.get(), answer, sizeof(answer), 0);
    return got > 0;
  }));
  std::string by_udp(answer, static_cast<size_t>(got));
  EXPECT_NE(by_udp.find("\x03mx1"), std::string::npos);

  Client tcp(h.loop, *h.sink->dns_address());
  ASSERT_TRUE(h.RunUntil([&] { return tcp.connection.has_value(); }));
  std::string framed(1, '\0');
  framed.push_back(static_cast<char>(kMxQuery.size()));
  framed.append(kMxQuery);
  tcp.connection->Write(framed.substr(0, 7));
  ASSERT_TRUE(h.RunUntil([&] { return tcp.connection->unsent_bytes() == 0; }));
  tcp.connection->Write(framed.substr(7) + framed);
  ASSERT_TRUE(h.RunUntil([&] { return tcp.received.size() >= 2 * (by_udp.size() + 2); }));
  EXPECT_EQ(tcp.received.substr(2, by_udp.size()), by_udp);
  EXPECT_EQ(h.state.counters().dns_queries, 3u);
}

TEST(Sink, APortInUseIsAClearError) {
  Harness h;
  SinkOptions options;
  options.listen = {h.sink->smtp_addresses()[0]};
  SinkState state(h.loop.clock(), 1);
  auto second = Sink::Open(h.loop, state, options);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
}

}  // namespace
}  // namespace sluice::sink
