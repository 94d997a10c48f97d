// Proves what is posted, what answers mean, and that bad receivers end in a verdict.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "services/delivery/local/http_post.h"
#include "services/delivery/local/local_fixture.h"

namespace sluice::delivery {
namespace {

using queue::v1::RECIPIENT_OUTCOME_DELIVERED;
using queue::v1::RECIPIENT_OUTCOME_PERMANENT;
using queue::v1::RECIPIENT_OUTCOME_TRANSIENT;

// Takes one connection, reads until `until` has come, answers and closes.
class Server {
 public:
  Server(std::string answer, std::string until, bool keep_open = false)
      : answer_(std::move(answer)), until_(std::move(until)), keep_open_(keep_open) {
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(fd_, 1), 0);
    socklen_t size = sizeof address;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~Server() {
    shutdown(fd_, SHUT_RDWR);
    close(fd_);
    if (thread_.joinable()) thread_.join();
  }
  std::string Url() const { return "http://127.0.0.1:" + std::to_string(port) + "/in?x=1"; }
  std::string Request() {
    thread_.join();
    return request_;
  }

  int port = 0;

 private:
  void Serve() {
    const int client = accept(fd_, nullptr, nullptr);
    if (client < 0) return;
    char buffer[4096];
    while (request_.find(until_) == std::string::npos) {
      const ssize_t got = recv(client, buffer, sizeof buffer, 0);
      if (got <= 0) break;
      request_.append(buffer, static_cast<size_t>(got));
    }
    send(client, answer_.data(), answer_.size(), MSG_NOSIGNAL);
    if (keep_open_) {
      while (recv(client, buffer, sizeof buffer, 0) > 0) {
      }
    }
    close(client);
  }
  const std::string answer_;
  const std::string until_;
  const bool keep_open_;
  int fd_ = -1;
  std::string request_;
  std::thread thread_;
};

class HttpEndTest : public testing::LocalFixture {
 protected:
  HttpEndTest() {
    settings_->set_type("http-delivery");
    AddRcpt("a@b.test");
    AddRcpt("c@b.test");
  }
  LocalVerdict Post(const std::string& answer) {
    Server server(answer, "body\r\n");
    settings_->set_http_delivery_url(server.Url());
    return RunLocalJob(Job())[1];
  }
};

TEST_F(HttpEndTest, TheMessageIsPostedWithItsEnvelope) {
  Server server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstored", "body\r\n", true);
  settings_->set_http_delivery_url(server.Url());
  settings_->mutable_http_delivery_headers()->add_values("Authorization: Bearer x");
  const auto verdicts = RunLocalJob(Job());
  ASSERT_EQ(verdicts.size(), 2u);
  EXPECT_EQ(verdicts[1].outcome, RECIPIENT_OUTCOME_DELIVERED);
  EXPECT_EQ(verdicts[1].reply.text().substr(0, 11), "HTTP 200 OK");
  EXPECT_EQ(server.Request(),
            "POST /in?x=1 HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(server.port) +
                "\r\nConnection: close\r\nContent-Length: 20\r\nContent-Type: message/rfc822\r\n"
                "User-Agent: Sluice\r\nX-Envelope-From: <from@a.test>\r\n"
                "X-Envelope-To: <a@b.test>\r\nX-Envelope-To: <c@b.test>\r\n"
                "X-Message-Id: 01040G2081040G2081040G2081\r\nAuthorization: Bearer x\r\n\r\n"
                "Subject: s\r\n\r\nbody\r\n");
}

TEST_F(HttpEndTest, AnswersDecide) {
  EXPECT_EQ(Post("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n").outcome,
            RECIPIENT_OUTCOME_DELIVERED);
  EXPECT_EQ(Post("HTTP/1.0 204\r\n\r\n").outcome, RECIPIENT_OUTCOME_DELIVERED);
  EXPECT_EQ(Post("HTTP/1.1 422 No\r\n\r\nbad\x01header").reply.text(), "HTTP 422 No: bad header");
  EXPECT_EQ(Post("HTTP/1.1 422 No\r\n\r\n").outcome, RECIPIENT_OUTCOME_PERMANENT);
  for (const char* answer :
       {"HTTP/1.1 429 Slow\r\n\r\n", "HTTP/1.1 503 Later\r\n\r\n", "HTTP/1.1 302 There\r\n\r\n",
        "HTTP/1.1 404 No\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\nX:", "",
        "HTTP/1.1 2000 OK\r\n\r\n"}) {
    EXPECT_EQ(Post(answer).outcome, RECIPIENT_OUTCOME_TRANSIENT) << answer;
  }
  EXPECT_EQ(Post("HTTP/1.1 200 OK\r\nX: " + std::string(1 << 20, 'x')).outcome,
            RECIPIENT_OUTCOME_TRANSIENT);
}

TEST_F(HttpEndTest, NobodyThereOrTooSlow) {
  settings_->set_http_delivery_url("http://127.0.0.1:1/");
  EXPECT_EQ(RunLocalJob(Job())[0].reply.text(), "Connection refused");
  settings_->set_smtp_data_termination_timeout_us(200'000);
  Server server("", "never", true);
  settings_->set_http_delivery_url(server.Url());
  EXPECT_EQ(RunLocalJob(Job())[0].reply.text(), "the receiver took too long");
  settings_->set_http_delivery_url("ftp://x");
  EXPECT_EQ(RunLocalJob(Job())[0].reply.enhanced(), "4.3.5");
}

TEST_F(HttpEndTest, ATlsReceiverThatSpeaksNoneIsAnError) {
  Server server("HTTP/1.1 200 OK\r\n\r\n", "never");
  settings_->set_http_delivery_url("https" + server.Url().substr(4));
  settings_->set_smtp_data_termination_timeout_us(300'000);
  EXPECT_EQ(RunLocalJob(Job())[0].outcome, RECIPIENT_OUTCOME_TRANSIENT);
}

// REQUIRETLS (RFC 8689) holds for the last hop, too: nothing is sent in clear.
TEST_F(HttpEndTest, MailThatRequiresTlsIsNotPostedInClear) {
  lease_->mutable_message()->set_require_tls(true);
  settings_->set_http_delivery_url("http://127.0.0.1:1/");
  const LocalVerdict clear = RunLocalJob(Job())[0];
  EXPECT_EQ(clear.outcome, RECIPIENT_OUTCOME_PERMANENT);
  EXPECT_EQ(clear.reply.enhanced(), "5.7.10");
  settings_->set_http_delivery_url("https://127.0.0.1:1/");
  EXPECT_EQ(RunLocalJob(Job())[0].reply.text(), "Connection refused");
}

TEST(HttpUrl, IsReadWhole) {
  const auto url = ParseHttpUrl("https://[::1]:8443/a/b?c");
  ASSERT_TRUE(url);
  EXPECT_TRUE(url->tls);
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, "8443");
  EXPECT_EQ(url->authority, "[::1]:8443");
  EXPECT_EQ(url->path, "/a/b?c");
  EXPECT_EQ(ParseHttpUrl("http://h")->path, "/");
  EXPECT_EQ(ParseHttpUrl("http://h")->port, "80");
  for (const char* bad : {"", "h", "http://", "http:///x", "http://u@h/", "http://h:0/",
                          "http://h:99999/", "http://h:x/", "http://h/ x", "http://h/#f",
                          "http://h\r\nX: 1", "http://[::1/", "gopher://h/"}) {
    EXPECT_FALSE(ParseHttpUrl(bad)) << bad;
  }
}

}  // namespace
}  // namespace sluice::delivery
