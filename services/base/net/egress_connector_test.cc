// Connections through a proxy that the test plays.
#include "services/base/net/egress_connector.h"

#include <gtest/gtest.h>

#include "services/base/net/listener.h"
#include "services/base/net/tcp_connection.h"

namespace sluice {
namespace {

const IpAddress kLoopback = IpAddress::V4(0x7f000001);

template <typename Condition>
bool RunUntil(EventLoop& loop, Condition done) {
  const MonotonicTime end = loop.clock().Now() + std::chrono::seconds(10);
  while (!done()) {
    if (loop.clock().Now() > end) return false;
    loop.RunOnce(std::chrono::milliseconds(50));
  }
  return true;
}

struct Reader final : TcpHandler {
  void OnBytes(std::string_view bytes) override { received += bytes; }
  void OnClosed(const absl::Status&) override { closed = true; }
  std::string received;
  bool closed = false;
};

// A proxy under the test's hand.
class EgressConnectorTest : public ::testing::Test {
 protected:
  EgressConnectorTest() {
    auto opened = Listener::Open(loop_, {.addresses = {{kLoopback, 0}}},
                                 [&](UniqueFd fd, const Endpoint&, const Endpoint&) {
                                   proxy_ = std::make_unique<TcpConnection>(loop_, std::move(fd));
                                   proxy_->Start(&at_proxy_);
                                 });
    EXPECT_TRUE(opened.ok());
    listener_ = *std::move(opened);
    spec_.server = listener_->addresses()[0];
    options_.remote = *Endpoint::Parse("192.0.2.7:25");
    options_.timeout = std::chrono::seconds(10);
  }
  void Connect() {
    connector_.emplace(loop_, spec_, options_, [this](absl::StatusOr<UniqueFd> fd) {
      ++calls_;
      status_ = fd.status();
      if (fd.ok()) {
        connection_ = std::make_unique<TcpConnection>(loop_, *std::move(fd));
        connection_->Start(&at_client_);
      }
    });
  }
  bool ProxyGot(size_t bytes) {
    return RunUntil(loop_, [&] { return at_proxy_.received.size() >= bytes; });
  }
  bool Called() {
    return RunUntil(loop_, [&] { return calls_ > 0; });
  }

  EventLoop loop_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<TcpConnection> proxy_;
  Reader at_proxy_;
  EgressProxy spec_;
  ConnectOptions options_;
  std::optional<EgressConnector> connector_;
  int calls_ = 0;
  absl::Status status_;
  std::unique_ptr<TcpConnection> connection_;
  Reader at_client_;
};

TEST_F(EgressConnectorTest, ProxyProtocolGoesFirst) {
  spec_.client = *Endpoint::Parse("198.51.100.9:4000");
  Connect();
  ASSERT_TRUE(Called());
  ASSERT_TRUE(status_.ok()) << status_;
  connection_->Write("EHLO\r\n");
  const std::string want = "PROXY TCP4 198.51.100.9 192.0.2.7 4000 25\r\nEHLO\r\n";
  ASSERT_TRUE(ProxyGot(want.size()));
  EXPECT_EQ(at_proxy_.received, want);
}

TEST_F(EgressConnectorTest, ProxyProtocolTellsOurPort) {
  spec_.client.ip = *IpAddress::Parse("198.51.100.9");
  Connect();
  ASSERT_TRUE(Called());
  EXPECT_TRUE(RunUntil(loop_, [&] { return at_proxy_.received.ends_with("\r\n"); }));
  EXPECT_EQ(at_proxy_.received, "PROXY TCP4 198.51.100.9 192.0.2.7 " +
                                    std::to_string(connection_->local().port) + " 25\r\n");
}

// What the remote said right behind the proxy's answer is not lost.
TEST_F(EgressConnectorTest, Socks5LeavesTheRemotesBytes) {
  spec_.protocol = EgressProxy::Protocol::kSocks5;
  Connect();
  ASSERT_TRUE(ProxyGot(3));
  proxy_->Write(std::string_view("\5\0", 2));
  ASSERT_TRUE(ProxyGot(13));
  proxy_->Write(std::string_view("\5\0\0\1\0\0\0\0\0\0", 10));
  proxy_->Write("220 remote\r\n");
  ASSERT_TRUE(Called());
  ASSERT_TRUE(status_.ok()) << status_;
  EXPECT_TRUE(RunUntil(loop_, [&] { return at_client_.received == "220 remote\r\n"; }));
}

TEST_F(EgressConnectorTest, WhoseFaultItIs) {
  spec_.protocol = EgressProxy::Protocol::kSocks5;
  Connect();
  ASSERT_TRUE(ProxyGot(3));
  proxy_->Write(std::string_view("\5\0\5\5\0\1\0\0\0\0\0\0", 12));
  ASSERT_TRUE(Called());
  EXPECT_EQ(status_.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status_.message().find("connection refused"), absl::string_view::npos);

  calls_ = 0;
  at_proxy_.received.clear();
  Connect();
  ASSERT_TRUE(ProxyGot(3));
  proxy_->Close();
  ASSERT_TRUE(Called());
  EXPECT_EQ(status_.code(), absl::StatusCode::kFailedPrecondition);

  calls_ = 0;
  listener_.reset();
  Connect();
  ASSERT_TRUE(Called());
  EXPECT_EQ(status_.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status_.message().find("through proxy 127.0.0.1:"), absl::string_view::npos);
}

// Silence and hanging up are the proxy's fault until it was asked for the remote; then they may be
// the remote's, and must not have all mail of the source wait.
TEST_F(EgressConnectorTest, SilenceIsTheProxysUntilItWasAsked) {
  spec_.protocol = EgressProxy::Protocol::kSocks5;
  options_.timeout = std::chrono::milliseconds(100);
  Connect();
  ASSERT_TRUE(Called());
  EXPECT_EQ(status_.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status_.message().find("the proxy does not answer"), absl::string_view::npos);

  options_.timeout = std::chrono::seconds(1);
  for (const bool hangs_up : {false, true}) {
    calls_ = 0;
    at_proxy_.received.clear();
    Connect();
    ASSERT_TRUE(ProxyGot(3));
    proxy_->Write(std::string_view("\5\0", 2));
    ASSERT_TRUE(ProxyGot(13));
    if (hangs_up) proxy_->Close();
    ASSERT_TRUE(Called());
    EXPECT_EQ(status_.code(),
              hangs_up ? absl::StatusCode::kUnavailable : absl::StatusCode::kDeadlineExceeded);
  }
}

TEST_F(EgressConnectorTest, DestroyedItCallsNobody) {
  spec_.protocol = EgressProxy::Protocol::kSocks5;
  Connect();
  ASSERT_TRUE(ProxyGot(3));
  connector_.reset();
  EXPECT_TRUE(RunUntil(loop_, [&] { return at_proxy_.closed; }));
  EXPECT_EQ(calls_, 0);
}

}  // namespace
}  // namespace sluice
