// Proves that HTTPS is done with hosts that prove their name, within bounds of size and time.
#include "services/delivery/io/https_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "services/base/net/event_loop.h"
#include "services/base/testing/temp_folder.h"
#include "services/delivery/testing/test_certificate.h"

namespace sluice::delivery {
namespace {

using testing::TestCertificate;

constexpr char kPolicy[] = "version: STSv1\nmode: none\nmax_age: 86400\n";
constexpr char kPolicyHost[] = "mta-sts.example.test";

std::string Response(const std::string& body, const std::string& head = "200 OK",
                     const std::string& type = "text/plain; charset=utf-8") {
  return absl::StrCat("HTTP/1.1 ", head, "\r\nContent-Type: ", type,
                      "\r\nContent-Length: ", body.size(), "\r\n\r\n", body);
}

// A web server for one connection at a time, on a thread of its own.
class WebServer {
 public:
  // Gets the TLS connection (nullptr where the handshake failed) once a request has been read.
  using Serve = std::function<void(SSL*)>;

  WebServer(const TestCertificate& certificate, Serve serve) : serve_(std::move(serve)) {
    context_ = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(context_, certificate.x509());
    SSL_CTX_use_PrivateKey(context_, certificate.key());
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 8), 0);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port = ntohs(address.sin_port);
    thread_ = std::thread([this] { Run(); });
  }
  ~WebServer() {
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
    SSL_CTX_free(context_);
  }

  uint16_t port = 0;
  std::string request;  // of the last connection; read it when the client is done
  std::string sni;

 private:
  static bool Whole(const std::string& request) {
    const size_t end = request.find("\r\n\r\n");
    if (end == std::string::npos) return false;
    constexpr char kLength[] = "Content-Length: ";
    const size_t length = request.find(kLength);
    return length > end ||
           request.size() >= end + 4 + std::stoul(request.substr(length + sizeof(kLength) - 1));
  }

  void Run() {
    signal(SIGPIPE, SIG_IGN);
    for (int fd; (fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
      const timeval limit = {10, 0};
      setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
      SSL* ssl = SSL_new(context_);
      SSL_set_fd(ssl, fd);
      if (SSL_accept(ssl) == 1) {
        if (const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)) sni = name;
        request.clear();
        char buffer[4096];
        while (!Whole(request)) {
          const int got = SSL_read(ssl, buffer, sizeof(buffer));
          if (got <= 0) break;
          request.append(buffer, static_cast<size_t>(got));
        }
        serve_(ssl);
        SSL_shutdown(ssl);
      }
      SSL_free(ssl);
      close(fd);
    }
  }

  Serve serve_;
  SSL_CTX* context_ = nullptr;
  int listener_ = -1;
  std::thread thread_;
};

WebServer::Serve Says(std::string text) {
  return [text = std::move(text)](SSL* ssl) {
    SSL_write(ssl, text.data(), static_cast<int>(text.size()));
  };
}

class LocalDns final : public DnsClient {
 public:
  void Query(const std::string& name, DnsType type, Done done) override {
    DnsAnswer answer;
    answer.status = DnsStatus::kNxDomain;
    if (type == DnsType::kA && name == kPolicyHost) {
      answer.status = DnsStatus::kAnswer;
      answer.records.push_back({60, 0, "127.0.0.1"});
    }
    done(std::move(answer));
  }
};

class HttpsClientTest : public ::testing::Test {
 protected:
  HttpsClientTest() {
    std::ofstream(ca_file_) << authority.Pem();
    options.deadline = std::chrono::seconds(20);
  }

  absl::StatusOr<std::string> Fetch(uint16_t port, const std::string& domain = "example.test") {
    options.ca_file = ca_file_;
    options.port = port;
    auto client = HttpsClient::Create(loop, loop.io(), dns, options);
    EXPECT_TRUE(client.ok()) << client.status();
    HttpsPolicyFetcher fetcher(**client, [this](const std::string&) { return allow_private; });
    absl::StatusOr<std::string> result = absl::UnknownError("no answer");
    fetcher.Fetch(domain, [&](absl::StatusOr<std::string> text) {
      result = std::move(text);
      loop.Stop();
    });
    loop.Run();
    EXPECT_EQ((*client)->under_way(), 0u);
    return result;
  }

  absl::StatusOr<HttpsResponse> Send(uint16_t port, HttpsRequest request) {
    options.ca_file = ca_file_;
    options.port = port;
    auto client = HttpsClient::Create(loop, loop.io(), dns, options);
    EXPECT_TRUE(client.ok()) << client.status();
    absl::StatusOr<HttpsResponse> result = absl::UnknownError("no answer");
    (*client)->Send(std::move(request), [&](absl::StatusOr<HttpsResponse> response) {
      result = std::move(response);
      loop.Stop();
    });
    loop.Run();
    return result;
  }

  TestCertificate authority{{.authority = true}};
  TestCertificate good{{.names = {kPolicyHost}}, &authority};
  EventLoop loop;
  LocalDns dns;
  HttpsOptions options;
  bool allow_private = true;

 private:
  const sluice::testing::TempFolder temp_{"https"};
  const std::string ca_file_ = temp_.File("ca.pem");
};

TEST_F(HttpsClientTest, FetchesAPolicy) {
  WebServer server(good, Says(Response(kPolicy)));
  const auto policy = Fetch(server.port);
  ASSERT_TRUE(policy.ok()) << policy.status();
  EXPECT_EQ(*policy, kPolicy);
  EXPECT_EQ(server.sni, kPolicyHost);
  EXPECT_EQ(server.request.substr(0, 42), "GET /.well-known/mta-sts.txt HTTP/1.1\r\nHos");
  EXPECT_NE(server.request.find("Host: mta-sts.example.test\r\n"), std::string::npos);
}

// Bytes of any value, and an answer without content, as reports on TLS have.
TEST_F(HttpsClientTest, PostsABody) {
  WebServer server(good, Says("HTTP/1.1 204 No Content\r\n\r\n"));
  const std::string body("\x1f\x8b\0\r\n\r\nmore", 11);
  const auto response = Send(server.port, {.host = kPolicyHost,
                                           .target = "/tls?x=1",
                                           .body = body,
                                           .content_type = "application/tlsrpt+gzip",
                                           .allow_private = true});
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->status, 204u);
  EXPECT_EQ(server.request.substr(0, 24), "POST /tls?x=1 HTTP/1.1\r\n");
  for (const char* field : {"Host: mta-sts.example.test\r\n", "Content-Length: 11\r\n",
                            "Content-Type: application/tlsrpt+gzip\r\n"}) {
    EXPECT_NE(server.request.find(field), std::string::npos) << server.request;
  }
  EXPECT_TRUE(server.request.ends_with("\r\n\r\n" + body));
  // A request to a stranger's certificate never leaves.
  const TestCertificate stranger({.names = {kPolicyHost}});
  WebServer other(stranger, Says("HTTP/1.1 204 No Content\r\n\r\n"));
  const auto refused = Send(
      other.port, {.host = kPolicyHost, .body = "x", .content_type = "a/b", .allow_private = true});
  EXPECT_TRUE(absl::IsUnauthenticated(refused.status()));
  EXPECT_EQ(other.request, "");
}

// RFC 8461 section 3.3: the certificate must be good for the policy host.
TEST_F(HttpsClientTest, BadCertificatesAreRefused) {
  const TestCertificate stranger({.authority = true});
  const TestCertificate self_signed({.names = {kPolicyHost}});
  const TestCertificate foreign({.names = {kPolicyHost}}, &stranger);
  const TestCertificate expired({.names = {kPolicyHost}, .valid_to_s = -60}, &authority);
  const TestCertificate early({.names = {kPolicyHost}, .valid_from_s = 3600}, &authority);
  const TestCertificate misnamed({.names = {"example.test", "*.mta-sts.example.test"}}, &authority);
  const TestCertificate nul({.names = {std::string("mta-sts.example.test\0.evil", 26)}},
                            &authority);
  const TestCertificate nameless({}, &authority);
  for (const TestCertificate* each :
       {&self_signed, &foreign, &expired, &early, &misnamed, &nul, &nameless}) {
    WebServer server(*each, Says(Response(kPolicy)));
    const auto policy = Fetch(server.port);
    EXPECT_TRUE(absl::IsUnauthenticated(policy.status())) << policy.status();
  }
  const TestCertificate wildcard({.names = {"*.example.test"}}, &authority);
  WebServer server(wildcard, Says(Response(kPolicy)));
  EXPECT_TRUE(Fetch(server.port).ok());
}

TEST_F(HttpsClientTest, OnlyTextWithStatus200Counts) {
  for (const std::string& response : {
           Response("", "301 Moved\r\nLocation: https://elsewhere.test/"),
           Response("", "302 Found\r\nLocation: https://elsewhere.test/"),
           Response(kPolicy, "404 Not Found"),
           Response(kPolicy, "500 Oops"),
           Response(kPolicy, "200 OK", "text/html"),
           std::string("220 mx ESMTP\r\n"),
           std::string("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\ncut short"),
           std::string(""),
       }) {
    WebServer server(good, Says(response));
    EXPECT_EQ(Fetch(server.port).status().code(), absl::StatusCode::kUnavailable)
        << response.substr(0, 60);
  }
}

// Responses without an end, in the body and in the header.
TEST_F(HttpsClientTest, SizesAreBounded) {
  const auto pour = [](std::string head, std::string each) {
    return [head = std::move(head), each = std::move(each)](SSL* ssl) {
      SSL_write(ssl, head.data(), static_cast<int>(head.size()));
      for (int i = 0; i < 1 << 16; ++i) {
        if (SSL_write(ssl, each.data(), static_cast<int>(each.size())) <= 0) return;
      }
    };
  };
  const std::string text(16 * 1024, 'x');
  {
    WebServer server(good, pour("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", text));
    EXPECT_EQ(Fetch(server.port).status().code(), absl::StatusCode::kResourceExhausted);
  }
  {
    WebServer server(good, pour("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                                "Transfer-Encoding: chunked\r\n\r\n",
                                "4000\r\n" + text + "\r\n"));
    EXPECT_EQ(Fetch(server.port).status().code(), absl::StatusCode::kResourceExhausted);
  }
  {
    WebServer server(good, pour("HTTP/1.1 200 OK\r\n", "X: " + text.substr(0, 1000) + "\r\n"));
    EXPECT_FALSE(Fetch(server.port).ok());
  }
  {
    WebServer server(good, Says("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                                "Content-Length: 99999999999\r\n\r\n"));
    EXPECT_FALSE(Fetch(server.port).ok());
  }
}

// A server that says nothing costs the deadline, and no more.
TEST_F(HttpsClientTest, TimeIsBounded) {
  options.deadline = std::chrono::milliseconds(300);
  WebServer server(good, [](SSL* ssl) {
    char byte;
    SSL_read(ssl, &byte, 1);  // until the client leaves
  });
  EXPECT_EQ(Fetch(server.port).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(HttpsClientTest, UnknownRefusedAndPrivateHosts) {
  EXPECT_EQ(Fetch(1, "unknown.test").status().code(), absl::StatusCode::kUnavailable);
  uint16_t dead = 0;
  { dead = WebServer(good, Says("")).port; }
  EXPECT_EQ(Fetch(dead).status().code(), absl::StatusCode::kUnavailable);
  allow_private = false;
  WebServer server(good, Says(Response(kPolicy)));
  const auto policy = Fetch(server.port);
  EXPECT_EQ(policy.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(policy.status().message().find("private address 127.0.0.1"), absl::string_view::npos);
}

TEST_F(HttpsClientTest, ADestroyedClientCallsNobody) {
  WebServer server(good, Says(Response(kPolicy)));
  options.port = server.port;
  auto client = HttpsClient::Create(loop, loop.io(), dns, options);
  ASSERT_TRUE(client.ok());
  bool called = false;
  (*client)->Send({.host = kPolicyHost, .allow_private = true}, [&](auto) { called = true; });
  loop.RunOnce(Duration::zero());
  client->reset();
  for (int i = 0; i < 20; ++i) loop.RunOnce(std::chrono::milliseconds(5));
  EXPECT_FALSE(called);
}

}  // namespace
}  // namespace sluice::delivery
