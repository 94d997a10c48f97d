// Egress through real proxies of Debian's: haproxy (PROXY protocol), Dante and microsocks (SOCKS5).
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "services/base/net/egress_connector.h"
#include "services/base/net/listener.h"
#include "services/base/net/tcp_connection.h"
#include "services/base/testing/temp_folder.h"
#include "services/delivery/testing/child_process.h"

namespace sluice::delivery {
namespace {

using testing::ChildProcess;
using testing::FindProgram;
using testing::FreePort;

class Greeter final : public TcpHandler {
 public:
  void OnBytes(std::string_view bytes) override { received += bytes; }
  void OnClosed(const absl::Status&) override {}
  std::string received;
};

class EgressProxies : public ::testing::Test {
 protected:
  EgressProxies() {
    // The remote greets at once, as SMTP servers do.
    auto opened = Listener::Open(loop_, {.addresses = {{*IpAddress::Parse("127.0.0.1"), 0}}},
                                 [&](UniqueFd fd, const Endpoint&, const Endpoint&) {
                                   server_ = std::make_unique<TcpConnection>(loop_, std::move(fd));
                                   server_->Start(&at_server_);
                                   server_->Write("220 remote\r\n");
                                 });
    EXPECT_TRUE(opened.ok());
    listener_ = *std::move(opened);
    remote_ = listener_->addresses()[0];
  }

  bool RunUntil(const std::function<bool()>& done) {
    const MonotonicTime end = loop_.clock().Now() + std::chrono::seconds(20);
    while (!done()) {
      if (loop_.clock().Now() > end) return false;
      loop_.RunOnce(std::chrono::milliseconds(20));
    }
    return true;
  }

  absl::Status Connect(const EgressProxy& proxy, const Endpoint& remote) {
    std::optional<absl::Status> status;
    EgressConnector connector(loop_, proxy, {.remote = remote}, [&](absl::StatusOr<UniqueFd> fd) {
      status = fd.status();
      if (!fd.ok()) return;
      client_ = std::make_unique<TcpConnection>(loop_, *std::move(fd));
      client_->Start(&at_client_);
      client_->Write("EHLO client\r\n");
    });
    EXPECT_TRUE(RunUntil([&] { return status.has_value(); }));
    return *status;
  }

  // Greeting and answer pass through the proxy.
  void ExpectConversation(const EgressProxy& proxy) {
    const absl::Status status = Connect(proxy, remote_);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(RunUntil([&] {
      return at_client_.received == "220 remote\r\n" && at_server_.received == "EHLO client\r\n";
    })) << at_client_.received
        << at_server_.received;
  }

  EgressProxy Proxy(EgressProxy::Protocol protocol, uint16_t port) const {
    EgressProxy proxy;
    proxy.protocol = protocol;
    proxy.server = {*IpAddress::Parse("127.0.0.1"), port};
    proxy.client.ip = *IpAddress::Parse("127.0.0.1");
    return proxy;
  }

  std::string WriteConfig(const std::string& name, const std::string& text) const {
    const std::string path = temp_.File(name);
    std::ofstream(path) << text;
    return path;
  }

  const sluice::testing::TempFolder temp_{"proxies"};
  EventLoop loop_;
  std::unique_ptr<Listener> listener_;
  Endpoint remote_;
  std::unique_ptr<TcpConnection> server_;
  std::unique_ptr<TcpConnection> client_;
  Greeter at_server_;
  Greeter at_client_;
};

using Protocol = EgressProxy::Protocol;

class Haproxy : public EgressProxies, public ::testing::WithParamInterface<Protocol> {};

INSTANTIATE_TEST_SUITE_P(Versions, Haproxy,
                         ::testing::Values(Protocol::kProxyV1, Protocol::kProxyV2));

// haproxy connects to the destination that our PROXY header names.
TEST_P(Haproxy, GoesWhereTheHeaderSays) {
  const std::string program = FindProgram("haproxy");
  if (program.empty()) GTEST_SKIP() << "haproxy (tools/packages_test.txt) is not installed";
  const uint16_t port = FreePort();
  const std::string config =
      WriteConfig("haproxy.cfg",
                  absl::StrCat("defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n"
                               "  timeout server 20s\nlisten egress\n  bind 127.0.0.1:",
                               port, " accept-proxy\n  server remote 0.0.0.0\n"));
  ChildProcess haproxy({program, "-db", "-f", config});
  ASSERT_TRUE(testing::WaitForPort(port)) << haproxy.output();
  ExpectConversation(Proxy(GetParam(), port));
}

TEST_F(EgressProxies, Dante) {
  const std::string program = FindProgram("danted");
  if (program.empty()) GTEST_SKIP() << "dante-server (tools/packages_test.txt) is not installed";
  const uint16_t port = FreePort();
  const std::string config = WriteConfig(
      "danted.conf", absl::StrCat("logoutput: stderr\ninternal: 127.0.0.1 port = ", port,
                                  "\nexternal: 127.0.0.1\nclientmethod: none\nsocksmethod: none\n"
                                  "client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n"
                                  "socks block { from: 0.0.0.0/0 to: 127.0.0.2/32 }\n"
                                  "socks pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }\n"));
  ChildProcess dante({program, "-f", config});
  ASSERT_TRUE(testing::WaitForPort(port)) << dante.output();
  ExpectConversation(Proxy(Protocol::kSocks5, port));
  // Not allowed: the proxy's own refusal, which says nothing against the remote.
  const absl::Status blocked =
      Connect(Proxy(Protocol::kSocks5, port), {*IpAddress::Parse("127.0.0.2"), remote_.port});
  // What concerns this remote alone.
  EXPECT_EQ(blocked.code(), absl::StatusCode::kUnavailable) << blocked;
  // Nobody listens there: the remote's fault.
  const absl::Status refused =
      Connect(Proxy(Protocol::kSocks5, port), {*IpAddress::Parse("127.0.0.1"), FreePort()});
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable) << refused;
}

TEST_F(EgressProxies, MicrosocksWithPassword) {
  const std::string program = FindProgram("microsocks");
  if (program.empty()) GTEST_SKIP() << "microsocks (tools/packages_test.txt) is not installed";
  const uint16_t port = FreePort();
  ChildProcess microsocks(
      {program, "-i", "127.0.0.1", "-p", absl::StrCat(port), "-u", "me", "-P", "secret"});
  ASSERT_TRUE(testing::WaitForPort(port)) << microsocks.output();
  EgressProxy proxy = Proxy(Protocol::kSocks5, port);
  EXPECT_EQ(Connect(proxy, remote_).code(), absl::StatusCode::kFailedPrecondition);
  proxy.credentials = Socks5Credentials{"me", "wrong"};
  EXPECT_EQ(Connect(proxy, remote_).code(), absl::StatusCode::kFailedPrecondition);
  proxy.credentials->password = "secret";
  ExpectConversation(proxy);
}

}  // namespace
}  // namespace sluice::delivery
