// TLS of the SMTP listener over real sockets: STARTTLS and from the first byte, what the record
// and the Received field say, and clients that mean harm.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/escaping.h"
#include "services/base/log/log.h"
#include "services/base/net/connector.h"
#include "services/base/net/tcp_connection.h"
#include "services/base/net/tls_certificate.h"
#include "services/base/net/tls_client_context.h"
#include "services/base/net/tls_self_signed.h"
#include "services/base/net/tls_session.h"
#include "services/base/testing/temp_folder.h"
#include "services/ingest/io/smtp_listener.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"
#include "services/mail/sasl_client.h"

namespace sluice::ingest {
namespace {

using testing::FakePolicy;
using testing::FakeShard;

class SmtpListenerTlsTest : public ::testing::Test, protected TcpHandler {
 protected:
  SmtpListenerTlsTest() {
    std::ofstream(path_) << ToPem(MakeCertificate({.names = {"mx.test"}}));
    context_ = *TlsServerContext::Load(
        {.certificates = {{path_, ""}}, .ask_client_certificate = true}, Clock::Real());
    client_context_ = *TlsClientContext::Load({.certificate = {path_, ""}});
    policy_->loopback->set_allow_starttls(true);
    options_.smtp.tls_timeout = std::chrono::milliseconds(200);
  }
  ~SmtpListenerTlsTest() override {
    connection_.reset();
    listener_.reset();
    ingest_.reset();
  }

  void Start() {
    ingest_ = std::make_unique<Ingest>(
        loop_, options_, std::vector<ShardEndpoint>{{"s", &shard_.enqueue(), &shard_.upload()}},
        policy_);
    ingest_->Start();
    ASSERT_TRUE(RunUntil([&] { return ingest_->ready(); }));
    auto opened = SmtpListener::Open(
        loop_,
        {.addresses = {*Endpoint::Parse("127.0.0.1:0"), *Endpoint::Parse("127.0.0.1:0"),
                       *Endpoint::Parse("127.0.0.1:0")},
         .tls = {{context_, false}, {context_, true}}},
        {{&loop_, ingest_.get()}});
    ASSERT_TRUE(opened.ok()) << opened.status();
    listener_ = *std::move(opened);
  }
  bool RunUntil(const std::function<bool()>& done) {
    const MonotonicTime end = loop_.clock().Now() + std::chrono::seconds(10);
    while (!done()) {
      if (loop_.clock().Now() > end) return false;
      loop_.RunOnce(std::chrono::milliseconds(20));
    }
    return true;
  }
  void Connect(size_t listener) {
    connection_.reset();
    received_.clear();
    ready_ = false;
    closed_ = false;
    Connector connector(loop_, {.remote = listener_->addresses()[listener]},
                        [&](absl::StatusOr<UniqueFd> fd) {
                          ASSERT_TRUE(fd.ok());
                          connection_ = std::make_unique<TcpConnection>(loop_, *std::move(fd));
                        });
    ASSERT_TRUE(RunUntil([&] { return connection_ != nullptr; }));
    connection_->Start(this);
  }
  void Encrypt() {
    connection_->StartTls(client_context_->NewSession({.session_key = "k"}));
    ASSERT_TRUE(RunUntil([&] { return ready_; }));
  }
  // The reply, whole.
  std::string Say(std::string_view text) {
    received_.clear();
    connection_->Write(text);
    return Reply();
  }
  std::string Reply() {
    EXPECT_TRUE(RunUntil([&] {
      if (closed_) return true;
      const size_t last =
          received_.size() < 2 ? 0 : received_.rfind('\n', received_.size() - 2) + 1;
      return received_.ends_with("\r\n") && received_.size() > last + 3 &&
             received_[last + 3] != '-';
    })) << received_;
    return std::exchange(received_, {});
  }
  // A client's answer to "334 challenge".
  static std::string Answer(mail::SaslClient& client, const std::string& reply) {
    EXPECT_EQ(reply.substr(0, 4), "334 ");
    std::string challenge;
    EXPECT_TRUE(absl::Base64Unescape(reply.substr(4, reply.size() - 6), &challenge));
    const auto answer = client.OnChallenge(challenge);
    EXPECT_TRUE(answer.ok()) << answer.status();
    return absl::Base64Escape(answer.value_or("")) + "\r\n";
  }
  void SendMessage() {
    EXPECT_EQ(Say("MAIL FROM:<a@b.test>\r\n").substr(0, 3), "250");
    EXPECT_EQ(Say("RCPT TO:<c@d.test>\r\n").substr(0, 3), "250");
    EXPECT_EQ(Say("DATA\r\n").substr(0, 3), "354");
    EXPECT_EQ(Say("Subject: x\r\n\r\ntext\r\n.\r\n").substr(0, 3), "250");
  }

  void OnBytes(std::string_view bytes) override { received_ += bytes; }
  void OnTlsReady() override { ready_ = true; }
  void OnClosed(const absl::Status&) override { closed_ = true; }

  EventLoop loop_;
  const sluice::testing::TempFolder temp_{"listener-tls"};
  const std::string path_ = temp_.File("server.pem");
  std::shared_ptr<TlsServerContext> context_;
  std::unique_ptr<TlsClientContext> client_context_;
  FakeShard shard_;
  std::shared_ptr<FakePolicy> policy_ = std::make_shared<FakePolicy>();
  IngestOptions options_;
  std::unique_ptr<Ingest> ingest_;
  std::unique_ptr<SmtpListener> listener_;
  std::unique_ptr<TcpConnection> connection_;
  std::string received_;
  bool ready_ = false;
  bool closed_ = false;
};

TEST_F(SmtpListenerTlsTest, StartTlsAndTheRecord) {
  Start();
  Connect(0);
  EXPECT_EQ(Reply().substr(0, 3), "220");
  EXPECT_NE(Say("EHLO c.test\r\n").find("STARTTLS"), std::string::npos);
  EXPECT_EQ(Say("STARTTLS\r\n").substr(0, 3), "220");
  Encrypt();
  EXPECT_EQ(Say("MAIL FROM:<a@b.test>\r\n").substr(0, 3), "503");
  EXPECT_EQ(Say("EHLO c.test\r\n").find("STARTTLS"), std::string::npos);
  SendMessage();
  ASSERT_EQ(shard_.taken.size(), 1u);
  const auto& message = shard_.taken[0].message.message();
  EXPECT_EQ(message.client_tls().version(), "TLSv1.3");
  EXPECT_EQ(message.client_tls().verdict(), "opportunistic");
  EXPECT_EQ(message.client_tls().peer_subject(), "CN=localhost");
  const std::string text = shard_.taken[0].body;
  EXPECT_NE(text.find("with ESMTPS (TLSv1.3 " + message.client_tls().cipher() + ") id "),
            std::string::npos)
      << text;
  EXPECT_EQ(ingest_->counters().tls_connections, 1u);
  EXPECT_EQ(Say("QUIT\r\n").substr(0, 3), "221");
}

TEST_F(SmtpListenerTlsTest, AKnownCertificateIsTheUser) {
  policy_->loopback->set_require_auth(true);
  Start();
  auto users = std::make_shared<CertificateUsers>();
  const auto certificate = ReadCertificate(path_);
  users->emplace(CertificateFingerprint(certificate->get()), "tim");
  for (const bool known : {true, false}) {
    listener_->SetTls({{context_, true, known ? users : nullptr}});
    Connect(0);
    Encrypt();
    Reply();
    Say("EHLO c.test\r\n");
    EXPECT_EQ(Say("MAIL FROM:<a@b.test>\r\n").substr(0, 3), known ? "250" : "530");
    if (!known) continue;
    Say("RSET\r\n");
    SendMessage();
    EXPECT_EQ(shard_.taken.back().message.message().user(), "tim");
    EXPECT_NE(shard_.taken.back().body.find("with ESMTPSA "), std::string::npos);
  }
}

// Over STARTTLS and from the first byte, and with what a man in the middle would have.
TEST_F(SmtpListenerTlsTest, ScramBindsToTheConnection) {
  auto& user = policy_->users.emplace_back();
  user.set_name("u");
  user.set_password("sesame");
  Start();
  for (const bool immediate : {false, true}) {
    for (const bool same : {true, false}) {
      Connect(immediate ? 1 : 0);
      if (immediate) {
        Encrypt();
        Reply();
      } else {
        Reply();
        EXPECT_EQ(Say("EHLO c.test\r\n").find("-PLUS"), std::string::npos);
        Say("STARTTLS\r\n");
        Encrypt();
      }
      EXPECT_NE(Say("EHLO c.test\r\n").find("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 "),
                std::string::npos);
      std::string binding = connection_->tls()->ExporterBinding();
      if (!same) binding[0] = static_cast<char>(binding[0] + 1);
      const auto client = mail::MakeSaslClient("SCRAM-SHA-256-PLUS", {"u", "sesame"},
                                               "abcdefghijklmnopqrst", {.tls_exporter = binding});
      const std::string challenge =
          Say("AUTH SCRAM-SHA-256-PLUS " + absl::Base64Escape(*client->InitialResponse()) + "\r\n");
      const std::string proof = Say(Answer(*client, challenge));
      if (!same) {
        EXPECT_EQ(proof.substr(0, 9), "535 5.7.8");
        continue;
      }
      EXPECT_EQ(Say(Answer(*client, proof)).substr(0, 9), "235 2.7.0");
      EXPECT_TRUE(client->OnSuccess().ok());
    }
  }
}

// The client that a proxy speaks for has another connection, to the proxy.
TEST_F(SmtpListenerTlsTest, NothingBindsToTheConnectionOfAProxy) {
  auto& user = policy_->users.emplace_back();
  user.set_name("u");
  user.set_password("sesame");
  policy_->loopback->set_allow_xclient(true);
  Start();
  Connect(1);
  Encrypt();
  Reply();
  EXPECT_NE(Say("EHLO c.test\r\n").find("SCRAM-SHA-256-PLUS"), std::string::npos);
  EXPECT_EQ(Say("XCLIENT ADDR=127.0.0.9 HELO=d.test\r\n").substr(0, 3), "220");
  EXPECT_NE(Say("EHLO d.test\r\n").find("AUTH SCRAM-SHA-256 "), std::string::npos);
  EXPECT_EQ(Say("AUTH SCRAM-SHA-256 " + absl::Base64Escape("y,,n=u,r=abcdefghijkl") + "\r\n")
                .substr(0, 3),
            "334");
}

TEST_F(SmtpListenerTlsTest, TlsFromTheFirstByteAndResumed) {
  Start();
  for (const uint64_t resumed : {0u, 1u}) {
    Connect(1);
    Encrypt();
    EXPECT_EQ(Reply().substr(0, 3), "220");
    EXPECT_EQ(Say("EHLO c.test\r\n").find("STARTTLS"), std::string::npos);
    SendMessage();
    EXPECT_EQ(ingest_->counters().tls_resumed, resumed);
  }
  EXPECT_EQ(shard_.taken.size(), 2u);
}

TEST_F(SmtpListenerTlsTest, NotOfferedWithoutCertificateOrPermission) {
  Start();
  Connect(2);
  EXPECT_EQ(Reply().substr(0, 3), "220");
  EXPECT_EQ(Say("EHLO c.test\r\n").find("STARTTLS"), std::string::npos);
  EXPECT_EQ(Say("STARTTLS\r\n").substr(0, 3), "502");
  SendMessage();
  EXPECT_FALSE(shard_.taken[0].message.message().has_client_tls());
}

TEST_F(SmtpListenerTlsTest, InjectedClearTextIsDroppedAndCounted) {
  Start();
  Connect(0);
  EXPECT_EQ(Reply().substr(0, 3), "220");
  Say("EHLO c.test\r\n");
  connection_->Write("STARTTLS\r\nEHLO evil.test\r\nMAIL FROM:<evil@e.test>\r\n");
  EXPECT_EQ(Reply(), "220 2.0.0 Ready to start TLS\r\n");
  Encrypt();
  // Only the answer to what came encrypted.
  EXPECT_EQ(Say("NOOP\r\n"), "250 2.0.0 OK\r\n");
  EXPECT_EQ(Say("RCPT TO:<c@d.test>\r\n").substr(0, 3), "503");
  EXPECT_EQ(ingest_->counters().starttls_injections, 1u);
}

TEST_F(SmtpListenerTlsTest, SlowAndFalseHandshakesEnd) {
  Start();
  for (const size_t listener : {0u, 1u}) {
    for (const std::string_view bytes : {"", "\x16\x03\x01\x02", "EHLO c.test\r\nNOOP\r\n"}) {
      Connect(listener);
      if (listener == 0) {
        Reply();
        Say("EHLO c.test\r\n");
        EXPECT_EQ(Say("STARTTLS\r\n").substr(0, 3), "220");
      }
      received_.clear();
      connection_->Write(bytes);
      EXPECT_TRUE(RunUntil([&] { return closed_; }));
      EXPECT_EQ(received_.find("250"), std::string::npos);
    }
  }
  EXPECT_EQ(ingest_->counters().tls_failures, 6u);
  EXPECT_EQ(ingest_->counters().tls_connections, 0u);
}

// A client of OpenSSL's own, on a thread of its own: with what it shows, into the listener that
// begins with TLS. Ends when the server ends it.
std::thread ShowCertificates(uint16_t port, const KeyAndChain& shown, std::atomic<bool>& over) {
  return std::thread([port, &shown, &over] {
    sigset_t pipe;
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, nullptr);
    const SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_use_certificate(context.get(), shown.certificate.get());
    SSL_CTX_use_PrivateKey(context.get(), shown.key.get());
    for (const X509Ptr& each : shown.chain) SSL_CTX_add1_chain_cert(context.get(), each.get());
    const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    SSL* const ssl = SSL_new(context.get());
    SSL_set_fd(ssl, fd);
    char text[1024];
    // What is too large may be noticed by either.
    if (SSL_connect(ssl) == 1 && SSL_read(ssl, text, sizeof text) > 0) {
      SSL_write(ssl, "QUIT\r\n", 6);
      while (SSL_read(ssl, text, sizeof text) > 0) {
      }
    }
    SSL_free(ssl);
    ::close(fd);
    over = true;
  });
}

TEST_F(SmtpListenerTlsTest, AChainOfTenMegabytesEndsTheHandshake) {
  KeyAndChain large = MakeCertificate({.common_name = "large"});
  for (int i = 0; i < 11; ++i) {
    large.chain.push_back(
        MakeCertificate({.common_name = "x", .extra_bytes = 900'000}).certificate);
  }
  options_.smtp.tls_timeout = std::chrono::minutes(10);  // not what ends it
  Start();
  for (uint64_t i = 1; i <= 3; ++i) {
    std::atomic<bool> over{false};
    std::thread client = ShowCertificates(listener_->addresses()[1].port, large, over);
    EXPECT_TRUE(RunUntil([&] { return ingest_->counters().tls_failures == i && over; }));
    client.join();
  }
  EXPECT_EQ(ingest_->counters().connections_open, 0u);
  EXPECT_EQ(ingest_->counters().tls_connections, 0u);
  Connect(1);
  Encrypt();
  EXPECT_EQ(Reply().substr(0, 3), "220");
}

TEST_F(SmtpListenerTlsTest, ANulInACertificateMakesNobodyElse) {
  policy_->loopback->set_log_tls(true);
  std::vector<std::string> lines;
  LogOptions log_options;
  log_options.sink = [&lines](std::string_view line) { lines.emplace_back(line); };
  Log log(log_options, Clock::Real());
  options_.log = &log;
  const KeyAndChain tim = MakeCertificate({.common_name = "tim", .names = {"tim.test"}});
  const KeyAndChain false_tim =
      MakeCertificate({.common_name = std::string("tim\0\r\nX: y", 9),
                       .names = {std::string("tim.test\0.evil.test", 19)}});
  Start();
  auto users = std::make_shared<CertificateUsers>();
  users->emplace(CertificateFingerprint(tim.certificate.get()), "tim");
  listener_->SetTls({{context_, true, users}, {context_, true, users}});
  for (const bool is_tim : {false, true}) {
    std::atomic<bool> over{false};
    std::thread client =
        ShowCertificates(listener_->addresses()[1].port, is_tim ? tim : false_tim, over);
    EXPECT_TRUE(RunUntil([&] { return over.load(); }));
    client.join();
    EXPECT_EQ(ingest_->counters().auth_succeeded, is_tim ? 1u : 0u);
  }
  EXPECT_EQ(ingest_->counters().tls_connections, 2u);
  for (const std::string& line : lines) {
    EXPECT_EQ(line.find_first_of(std::string_view("\0\r\n", 3)), line.npos) << line;
  }
}

// A handshake for each client above a limit would cost what the limit is there for.
TEST_F(SmtpListenerTlsTest, AboveALimitThereIsNoHandshake) {
  policy_->loopback->set_max_smtp_in(1);
  Start();
  Connect(1);
  Encrypt();
  Reply();
  const auto first = std::move(connection_);
  Connect(1);
  connection_->StartTls(client_context_->NewSession({}));
  EXPECT_TRUE(RunUntil([&] { return closed_; }));
  EXPECT_FALSE(ready_);
  EXPECT_EQ(ingest_->counters().connections_refused, 1u);
  EXPECT_EQ(ingest_->counters().tls_connections, 1u);
  EXPECT_EQ(ingest_->counters().tls_failures, 0u);
}

TEST_F(SmtpListenerTlsTest, HalfClosedClientsGetTheirAnswers) {
  Start();
  Connect(1);
  Encrypt();
  Reply();
  Say("EHLO c.test\r\n");
  connection_->Write("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n");
  Reply();
  connection_->Write("Subject: x\r\n\r\ntext\r\n.\r\n");
  connection_->ShutdownWrite();
  EXPECT_TRUE(RunUntil([&] { return closed_; }));
  EXPECT_NE(received_.find("250"), std::string::npos);
  EXPECT_EQ(shard_.taken.size(), 1u);
}

TEST_F(SmtpListenerTlsTest, ReplacedContextsHoldForNewConnections) {
  Start();
  listener_->SetTls({});
  Connect(0);
  Reply();
  EXPECT_EQ(Say("EHLO c.test\r\n").find("STARTTLS"), std::string::npos);
}

}  // namespace
}  // namespace sluice::ingest
