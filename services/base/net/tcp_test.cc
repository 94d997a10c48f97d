// Listener, Connector and TcpConnection against each other on loopback.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "services/base/net/connector.h"
#include "services/base/net/listener.h"
#include "services/base/net/tcp_connection.h"

namespace sluice {
namespace {

const IpAddress kLoopback = IpAddress::V4(0x7f000001);

// Runs the loop until `done` holds; false after ten seconds.
template <typename Condition>
bool RunUntil(EventLoop& loop, Condition done) {
  MonotonicTime end = loop.clock().Now() + std::chrono::seconds(10);
  while (!done()) {
    if (loop.clock().Now() > end) return false;
    loop.RunOnce(std::chrono::milliseconds(50));
  }
  return true;
}

struct Recorder final : TcpHandler {
  void OnBytes(std::string_view bytes) override {
    received += bytes;
    most_at_once = std::max(most_at_once, bytes.size());
    if (on_bytes) on_bytes();
  }
  void OnWritable() override { ++writable; }
  bool OnPeerFinished() override {
    finished = true;
    return keep_after_finish;
  }
  void OnClosed(const absl::Status& status) override {
    ++closed;
    close_status = status;
  }

  std::string received;
  size_t most_at_once = 0;
  std::function<void()> on_bytes;
  bool keep_after_finish = false;
  bool finished = false;
  int writable = 0;
  int closed = 0;
  absl::Status close_status;
};

// Two ends of one real TCP connection on one loop.
struct Pair {
  explicit Pair(const TcpConnectionOptions& options = {}) {
    ListenerOptions listen{.addresses = {{kLoopback, 0}}};
    auto opened = Listener::Open(loop, listen, [&](UniqueFd fd, const Endpoint&, const Endpoint&) {
      server = std::make_unique<TcpConnection>(loop, std::move(fd), options);
    });
    EXPECT_TRUE(opened.ok());
    listener = std::move(*opened);
    Connector connector(loop, {.remote = listener->addresses()[0]},
                        [&](absl::StatusOr<UniqueFd> fd) {
                          ASSERT_TRUE(fd.ok());
                          client = std::make_unique<TcpConnection>(loop, std::move(*fd), options);
                        });
    EXPECT_TRUE(RunUntil(loop, [&] { return client && server; }));
    server->Start(&at_server);
    client->Start(&at_client);
  }

  EventLoop loop;
  std::unique_ptr<Listener> listener;
  Recorder at_client;
  Recorder at_server;
  std::unique_ptr<TcpConnection> client;
  std::unique_ptr<TcpConnection> server;
};

TEST(Tcp, MixedCopiesAndBodiesArriveInOrder) {
  Pair pair;
  std::string expected;
  std::string big(3'000'000, 'x');
  for (size_t i = 0; i < big.size(); ++i) big[i] = static_cast<char>('a' + i % 23);
  Body body(big);
  for (int i = 0; i < 200; ++i) {
    std::string text = "line " + std::to_string(i) + "\r\n";
    pair.client->Write(text);
    expected += text;
    size_t offset = static_cast<size_t>(i) * 1000;
    pair.client->Write(body, offset, 700);
    expected += big.substr(offset, 700);
  }
  pair.client->Write(body);
  expected += big;
  pair.client->Write("end");
  expected += "end";
  ASSERT_TRUE(
      RunUntil(pair.loop, [&] { return pair.at_server.received.size() >= expected.size(); }));
  EXPECT_EQ(pair.at_server.received, expected);
  EXPECT_EQ(pair.client->unsent_bytes(), 0u);
}

TEST(Tcp, AStreamThatNeverDrainsKeepsItsOrderAndMemory) {
  Pair pair;
  std::string expected;
  // The sender stays ahead of the receiver throughout, by at most a megabyte.
  for (int i = 0; expected.size() < 12'000'000; ++i) {
    std::string text(1 + (i * 7919) % 5000, static_cast<char>('a' + i % 26));
    pair.client->Write(text);
    expected += text;
    if (i % 3 == 0) {
      Body body(std::string(1000, 'B'));
      pair.client->Write(body);
      expected += body.view();
    }
    while (pair.client->unsent_bytes() > 1'000'000) pair.loop.RunOnce(Duration(1000));
  }
  ASSERT_TRUE(
      RunUntil(pair.loop, [&] { return pair.at_server.received.size() >= expected.size(); }));
  EXPECT_TRUE(pair.at_server.received == expected);
}

TEST(Tcp, ReadsAreAsSmallAsTheOwnerWants) {
  Pair pair;
  pair.server->LimitReads(1000);
  pair.client->Write(std::string(50'000, 'x'));
  ASSERT_TRUE(RunUntil(pair.loop, [&] { return pair.at_server.received.size() == 50'000; }));
  EXPECT_LE(pair.at_server.most_at_once, 1000u);
}

TEST(Tcp, CongestionIsSeenAndEnds) {
  Pair pair({.output_high_bytes = 100'000, .output_low_bytes = 10'000});
  pair.server->PauseReading();
  while (!pair.client->congested()) {
    pair.client->Write(std::string(50'000, 'y'));
    pair.loop.RunOnce(Duration(0));
  }
  EXPECT_TRUE(pair.at_server.received.empty());
  EXPECT_EQ(pair.at_client.writable, 0);
  pair.server->ResumeReading();
  ASSERT_TRUE(RunUntil(pair.loop, [&] { return pair.at_client.writable == 1; }));
  EXPECT_FALSE(pair.client->congested());
}

TEST(Tcp, HalfCloseLetsTheOtherSideAnswer) {
  Pair pair;
  pair.at_server.keep_after_finish = true;
  pair.client->Write("question");
  pair.client->ShutdownWrite();
  pair.client->Write("dropped");
  ASSERT_TRUE(RunUntil(pair.loop, [&] { return pair.at_server.finished; }));
  EXPECT_EQ(pair.at_server.received, "question");
  pair.server->Write("answer");
  pair.server->CloseAfterFlush();
  ASSERT_TRUE(RunUntil(pair.loop, [&] { return pair.at_client.closed && pair.at_server.closed; }));
  EXPECT_EQ(pair.at_client.received, "answer");
  EXPECT_TRUE(pair.at_client.close_status.ok());
  EXPECT_TRUE(pair.at_server.close_status.ok());
  EXPECT_FALSE(pair.client->is_open());
}

TEST(Tcp, CloseAfterFlushDeliversEverythingFirst) {
  Pair pair;
  std::string big(5'000'000, 'z');
  pair.client->Write(big);
  pair.client->CloseAfterFlush();
  ASSERT_TRUE(RunUntil(pair.loop, [&] { return pair.at_server.closed == 1; }));
  EXPECT_EQ(pair.at_server.received.size(), big.size());
  EXPECT_EQ(pair.at_client.closed, 1);
}

TEST(Tcp, AResetIsReportedAsBroken) {
  Pair pair;
  linger reset{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(pair.client->fd(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  pair.client->Close();
  ASSERT_TRUE(RunUntil(pair.loop, [&] { return pair.at_server.closed == 1; }));
  EXPECT_EQ(pair.at_server.close_status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(pair.at_client.closed, 0);  // its owner closed it
}

TEST(Tcp, AResetIsSeenWhileReadingIsPaused) {
  Pair pair;
  pair.server->PauseReading();
  linger reset{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(pair.client->fd(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  pair.client->Close();
  ASSERT_TRUE(RunUntil(pair.loop, [&] { return pair.at_server.closed == 1; }));
}

TEST(Tcp, MayBeDestroyedInItsOwnCallback) {
  Pair pair;
  pair.at_server.on_bytes = [&] { pair.server.reset(); };
  pair.client->Write("bye");
  ASSERT_TRUE(RunUntil(pair.loop, [&] { return pair.at_client.closed == 1; }));
  EXPECT_EQ(pair.at_server.closed, 0);
}

TEST(Listener, SaysWhichPortIsInUse) {
  EventLoop loop;
  auto ignore = [](UniqueFd, const Endpoint&, const Endpoint&) {};
  auto first = Listener::Open(loop, {.addresses = {{kLoopback, 0}}}, ignore);
  ASSERT_TRUE(first.ok());
  Endpoint taken = (*first)->addresses()[0];
  auto second = Listener::Open(loop, {.addresses = {taken}}, ignore);
  ASSERT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_NE(std::string(second.status().message()).find(taken.ToString()), std::string::npos);
  auto foreign = Listener::Open(loop, {.addresses = {*Endpoint::Parse("192.0.2.1:0")}}, ignore);
  EXPECT_EQ(foreign.status().code(), absl::StatusCode::kFailedPrecondition);
}

// Clients beyond what the process may have open wait in the kernel, and cost it no turns.
TEST(Listener, WithoutDescriptorsItRestsAndGoesOn) {
  EventLoop loop;
  int accepted = 0;
  auto listener = Listener::Open(loop, {.addresses = {{kLoopback, 0}}},
                                 [&](UniqueFd, const Endpoint&, const Endpoint&) { ++accepted; });
  ASSERT_TRUE(listener.ok());
  const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit usual{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &usual), 0);
  rlimit few = usual;
  few.rlim_cur = 64;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<UniqueFd> taken;
  for (int fd; (fd = ::dup(client.get())) >= 0;) taken.emplace_back(fd);
  EXPECT_EQ(errno, EMFILE);
  sockaddr_storage storage;
  const socklen_t length = (*listener)->addresses()[0].ToSockaddr(&storage);
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<sockaddr*>(&storage), length), 0);
  int turns = 0;
  const MonotonicTime until = loop.clock().Now() + std::chrono::milliseconds(250);
  while (loop.clock().Now() < until) {
    loop.RunOnce(std::chrono::milliseconds(50));
    ++turns;
  }
  EXPECT_EQ(accepted, 0);
  EXPECT_LT(turns, 100);
  taken.clear();
  EXPECT_TRUE(RunUntil(loop, [&] { return accepted == 1; }));
  ::setrlimit(RLIMIT_NOFILE, &usual);
}

TEST(Listener, SeveralAddressesTellTheirPeersAndPauseHoldsConnectionsBack) {
  EventLoop loop;
  std::vector<std::pair<Endpoint, Endpoint>> accepted;
  auto listener = Listener::Open(
      loop, {.addresses = {*Endpoint::Parse("127.0.0.2:0"), *Endpoint::Parse("0.0.0.0:0")}},
      [&](UniqueFd, const Endpoint& local, const Endpoint& peer) {
        accepted.emplace_back(local, peer);
      });
  ASSERT_TRUE(listener.ok());
  (*listener)->Pause();
  int connected = 0;
  auto count = [&](absl::StatusOr<UniqueFd> fd) { connected += fd.ok(); };
  Endpoint wildcard{*IpAddress::Parse("127.0.0.9"), (*listener)->addresses()[1].port};
  Connector first(loop,
                  {.remote = (*listener)->addresses()[0], .source = IpAddress::Parse("127.0.0.7")},
                  count);
  Connector second(loop, {.remote = wildcard, .source = IpAddress::Parse("127.0.0.8")}, count);
  ASSERT_TRUE(RunUntil(loop, [&] { return connected == 2; }));
  EXPECT_TRUE(accepted.empty());
  (*listener)->Resume();
  ASSERT_TRUE(RunUntil(loop, [&] { return accepted.size() == 2; }));
  std::sort(accepted.begin(), accepted.end());
  EXPECT_EQ(accepted[0].first, (*listener)->addresses()[0]);
  EXPECT_EQ(accepted[0].second.ip.ToString(), "127.0.0.7");
  EXPECT_EQ(accepted[1].first, wildcard);
  EXPECT_EQ(accepted[1].second.ip.ToString(), "127.0.0.8");
}

TEST(Connector, TellsFailuresApart) {
  EventLoop loop;
  auto attempt = [&](const ConnectOptions& options) {
    std::optional<absl::Status> status;
    Connector connector(loop, options, [&](absl::StatusOr<UniqueFd> fd) { status = fd.status(); });
    EXPECT_FALSE(status);
    EXPECT_TRUE(RunUntil(loop, [&] { return status.has_value(); }));
    return status.value_or(absl::OkStatus());
  };
  Endpoint closed;
  {
    auto listener = Listener::Open(loop, {.addresses = {{kLoopback, 0}}},
                                   [](UniqueFd, const Endpoint&, const Endpoint&) {});
    closed = (*listener)->addresses()[0];
  }
  EXPECT_EQ(attempt({.remote = closed}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(attempt({.remote = closed, .source = IpAddress::Parse("192.0.2.1")}).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(attempt({.remote = closed, .source = IpAddress::Parse("::1")}).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(Connector, TimesOutAndCanBeCancelled) {
  EventLoop loop;
  // A listener with a full backlog does not answer.
  UniqueFd deaf(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_storage storage;
  socklen_t length = Endpoint{kLoopback, 0}.ToSockaddr(&storage);
  auto* name = reinterpret_cast<sockaddr*>(&storage);
  ASSERT_EQ(::bind(deaf.get(), name, length), 0);
  ASSERT_EQ(::listen(deaf.get(), 0), 0);
  length = sizeof(storage);
  ::getsockname(deaf.get(), name, &length);
  Endpoint remote = *Endpoint::FromSockaddr(name);
  std::vector<std::unique_ptr<Connector>> connectors;
  int connected = 0;
  int timed_out = 0;
  for (int i = 0; i < 4; ++i) {
    connectors.push_back(std::make_unique<Connector>(
        loop, ConnectOptions{.remote = remote, .timeout = std::chrono::milliseconds(30)},
        [&](absl::StatusOr<UniqueFd> fd) {
          if (fd.ok()) ++connected;
          if (fd.status().code() == absl::StatusCode::kDeadlineExceeded) ++timed_out;
        }));
  }
  Connector* cancelled = new Connector(loop, {.remote = remote, .timeout = Duration(1)},
                                       [](absl::StatusOr<UniqueFd>) { FAIL(); });
  delete cancelled;
  ASSERT_TRUE(RunUntil(loop, [&] { return connected + timed_out == 4; }));
  EXPECT_GE(timed_out, 1);
}

}  // namespace
}  // namespace sluice
