// Proves what a machine that looks after a process gets: readiness with its reason, metrics, and a
// clear refusal of everything else; and that its connections are few and bounded.
#include "services/base/metrics/http_status.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>
#include <vector>

namespace sluice {
namespace {

// A plain blocking client.
class Client {
 public:
  explicit Client(const std::string& address) {
    const auto endpoint = Endpoint::Parse(address);
    sockaddr_storage storage{};
    const socklen_t length = endpoint->ToSockaddr(&storage);
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&storage), length), 0);
  }
  ~Client() { close(fd_); }
  void Send(const std::string& text) {
    EXPECT_EQ(send(fd_, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  void Try(const std::string& text) { (void)send(fd_, text.data(), text.size(), MSG_NOSIGNAL); }
  // All until the server closes.
  std::string Read() {
    std::string all;
    char buffer[4096];
    ssize_t got = 0;
    while ((got = recv(fd_, buffer, sizeof buffer, 0)) > 0) all.append(buffer, got);
    return all;
  }

 private:
  int fd_ = -1;
};

class HttpStatusTest : public testing::Test {
 protected:
  HttpStatusTest() {
    auto opened = HttpStatus::Open(
        loop_, "127.0.0.1:0",
        {[] { return "sluice_up 1\n"; }, [this] { return not_ready_.empty() ? "" : not_ready_; }});
    EXPECT_TRUE(opened.ok()) << opened.status();
    status_ = *std::move(opened);
    address_ = status_->address();
    thread_ = std::thread([this] { loop_.Run(); });
  }
  ~HttpStatusTest() override {
    loop_.Stop();
    thread_.join();
  }
  std::string Ask(const std::string& request) {
    Client client(address_);
    client.Send(request);
    return client.Read();
  }
  // Empty where the connection was refused a place.
  std::string TryHealth() {
    Client client(address_);
    client.Try("GET /healthz HTTP/1.1\r\n\r\n");
    return client.Read();
  }
  std::string Get(const std::string& path) {
    return Ask("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
  }

  EventLoop loop_;
  std::string not_ready_;
  std::unique_ptr<HttpStatus> status_;
  std::string address_;
  std::thread thread_;
};

std::string Body(const std::string& answer) { return answer.substr(answer.find("\r\n\r\n") + 4); }

TEST_F(HttpStatusTest, SaysWhetherItLivesAndIsReady) {
  EXPECT_EQ(Get("/healthz").substr(0, 15), "HTTP/1.1 200 OK");
  EXPECT_EQ(Body(Get("/readyz")), "ready\n");
  not_ready_ = "shard-1: connecting";
  const std::string answer = Get("/readyz?verbose");
  EXPECT_EQ(answer.substr(0, 12), "HTTP/1.1 503");
  EXPECT_EQ(Body(answer), "shard-1: connecting\n");
  EXPECT_EQ(Get("/healthz").substr(0, 15), "HTTP/1.1 200 OK") << "liveness is not readiness";
}

TEST_F(HttpStatusTest, MetricsAreWhole) {
  const std::string answer = Get("/metrics");
  EXPECT_EQ(Body(answer), "sluice_up 1\n");
  EXPECT_NE(answer.find("\r\nContent-Length: 12\r\n"), std::string::npos);
  EXPECT_NE(answer.find("\r\nContent-Type: text/plain; version=0.0.4"), std::string::npos);
}

TEST_F(HttpStatusTest, RefusesWhatItDoesNotServe) {
  EXPECT_EQ(Get("/").substr(0, 12), "HTTP/1.1 404");
  EXPECT_EQ(Get("/metricsx").substr(0, 12), "HTTP/1.1 404");
  EXPECT_EQ(Ask("POST /metrics HTTP/1.1\r\n\r\n").substr(0, 12), "HTTP/1.1 405");
  EXPECT_EQ(Ask("\r\n\r\n").substr(0, 12), "HTTP/1.1 405");
  EXPECT_EQ(Ask("GET /metrics HTTP/1.1\r\nX: " + std::string(8192, 'x')).substr(0, 12),
            "HTTP/1.1 431");
}

TEST_F(HttpStatusTest, ARequestMayComeInPieces) {
  Client client(address_);
  for (const char* piece : {"GET /hea", "lthz HT", "TP/1.0\r", "\n\r", "\n"}) client.Send(piece);
  EXPECT_EQ(Body(client.Read()), "ok\n");
}

TEST_F(HttpStatusTest, TooManyConnectionsAreClosedAndTheRestGoesOn) {
  std::vector<std::unique_ptr<Client>> idle;
  for (int i = 0; i < 64; ++i) idle.push_back(std::make_unique<Client>(address_));
  EXPECT_EQ(Client(address_).Read(), "");
  idle[0]->Send("GET /healthz HTTP/1.1\r\n\r\n");
  EXPECT_EQ(Body(idle[0]->Read()), "ok\n");
  // A place is free once its connection has ended.
  std::string answer;
  for (int i = 0; i < 1000 && answer.empty(); ++i) answer = TryHealth();
  EXPECT_EQ(Body(answer), "ok\n");
}

TEST_F(HttpStatusTest, ABadOrTakenAddressIsNamed) {
  EventLoop loop;
  const HttpStatusHandlers none{[] { return ""; }, [] { return ""; }};
  const auto bad = HttpStatus::Open(loop, "somewhere:80", none);
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(bad.status().ToString().find("somewhere:80"), std::string::npos);
  const auto taken = HttpStatus::Open(loop, address_, none);
  EXPECT_NE(taken.status().ToString().find(address_), std::string::npos) << taken.status();
}

}  // namespace
}  // namespace sluice
