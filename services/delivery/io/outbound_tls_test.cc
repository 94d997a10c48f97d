// TLS of outbound connections over loopback sockets: wanted and required, resumed, refused, failed
// and tried again in clear, and servers that mean harm.
#include "services/delivery/io/outbound_tls.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/base/net/listener.h"
#include "services/base/net/tcp_connection.h"
#include "services/base/net/tls_self_signed.h"
#include "services/base/net/tls_server_context.h"
#include "services/base/net/tls_session.h"
#include "services/base/testing/temp_folder.h"
#include "services/delivery/io/outbound_connection.h"

namespace sluice::delivery {
namespace {

using std::chrono::seconds;

// Takes mail; how it does with STARTTLS is the test's to say.
class Server {
 public:
  enum class Mode { kTls, kNotOffered, kRefuses, kRubbish, kCloses, kSilent, kInjects, kImplicit };

  Server(EventLoop& loop, TlsServerContext& context) : loop_(loop), context_(context) {
    listener_ =
        *Listener::Open(loop, {.addresses = {*Endpoint::Parse("127.0.0.1:0")}},
                        [this](UniqueFd fd, const Endpoint&, const Endpoint&) {
                          clients_.push_back(std::make_unique<Client>(*this, std::move(fd)));
                        });
  }
  uint16_t port() const { return listener_->addresses()[0].port; }
  size_t connections() const { return clients_.size(); }

  Mode mode = Mode::kTls;
  std::vector<std::string> commands;  // "tls:" before those that came encrypted
  std::vector<std::string> subjects;  // of client certificates

 private:
  struct Client final : TcpHandler {
    Client(Server& server, UniqueFd fd) : server(server), tcp(server.loop_, std::move(fd)) {
      tcp.Start(this);
      if (server.mode == Mode::kImplicit) tcp.StartTls(server.context_.NewSession());
      tcp.Write("220 mx.test\r\n");
    }
    void OnBytes(std::string_view bytes) override {
      if (rubbish) {  // the client's first message of the handshake
        tcp.Write("500 what is that?\r\n");
        return;
      }
      input += bytes;
      for (size_t end; (end = input.find("\r\n")) != std::string::npos;) {
        const std::string line = input.substr(0, end);
        input.erase(0, end + 2);
        OnLine(line);
      }
    }
    void OnTlsReady() override { server.subjects.push_back(tcp.tls()->facts().peer_subject); }
    void OnLine(const std::string& line) {
      if (in_text) {
        if (line != ".") return;
        in_text = false;
        tcp.Write("250 2.0.0 taken\r\n");
        return;
      }
      server.commands.push_back((tcp.tls() != nullptr ? "tls:" : "") + line.substr(0, 4));
      if (line.starts_with("EHLO")) {
        const bool offer = tcp.tls() == nullptr && server.mode != Mode::kNotOffered;
        tcp.Write(offer ? "250-mx.test\r\n250 STARTTLS\r\n" : "250-mx.test\r\n250 REQUIRETLS\r\n");
      } else if (line == "STARTTLS") {
        StartTls();
      } else if (line == "DATA") {
        in_text = true;
        tcp.Write("354 go\r\n");
      } else {
        tcp.Write("250 ok\r\n");
      }
    }
    void StartTls() {
      switch (server.mode) {
        case Mode::kRefuses:
          tcp.Write("454 no\r\n");
          return;
        case Mode::kRubbish:
          tcp.Write("220 go\r\n");
          rubbish = true;
          return;
        case Mode::kCloses:
          tcp.Write("220 go\r\n");
          tcp.CloseAfterFlush();
          return;
        case Mode::kSilent:
          tcp.Write("220 go\r\n");
          return;
        case Mode::kInjects:
          tcp.Write("220 go\r\n250-mx.test\r\n250 AUTH PLAIN\r\n");
          tcp.StartTls(server.context_.NewSession());
          return;
        default:
          tcp.Write("220 go\r\n");
          tcp.StartTls(server.context_.NewSession());
      }
    }
    void OnClosed(const absl::Status&) override {}

    Server& server;
    TcpConnection tcp;
    std::string input;
    bool in_text = false;
    bool rubbish = false;
  };

  EventLoop& loop_;
  TlsServerContext& context_;
  std::unique_ptr<Listener> listener_;
  std::vector<std::unique_ptr<Client>> clients_;
};

struct Recorder final : ConnectionHandler {
  void OnReady() override { ready = true; }
  void OnResult(queue::v1::GroupResult given) override { result = std::move(given); }
  bool MayFinish(uint64_t) override { return true; }
  void OnClosed(ConnectionEnd given) override { end = std::move(given); }

  bool ready = false;
  std::optional<queue::v1::GroupResult> result;
  std::optional<ConnectionEnd> end;
};

struct DaneLike final : TlsPeerCheck {
  absl::Status Check(const TlsFacts& facts, const std::vector<std::string>& chain) const override {
    EXPECT_FALSE(facts.version.empty());
    EXPECT_FALSE(chain.empty());
    return content ? absl::OkStatus() : absl::UnauthenticatedError("no TLSA record matches");
  }
  std::string session_scope() const override { return scope; }
  std::string_view verdict() const override { return "dane"; }
  bool content = true;
  std::string scope = "dane";
};

class OutboundTlsTest : public ::testing::Test {
 protected:
  OutboundTlsTest() {
    std::ofstream(path_) << ToPem(MakeCertificate({.common_name = "mx.test"}));
    context_ = *TlsServerContext::Load(
        {.certificates = {{path_, ""}}, .ask_client_certificate = true}, Clock::Real());
    server_ = std::make_unique<Server>(loop_, *context_);
    settings_->set_connect_timeout_us(5'000'000);
    settings_->set_smtp_greeting_timeout_us(5'000'000);
    settings_->set_smtp_command_reply_timeout_us(5'000'000);
    settings_->set_data_send_timeout_us(5'000'000);
    settings_->set_smtp_data_termination_timeout_us(5'000'000);
    settings_->set_use_starttls(true);
    settings_->set_reuse_ssl_session(true);
    target_.address = "127.0.0.1";
    target_.port = server_->port();
    target_.host = "mx.test";
    target_.settings = settings_;
  }
  ~OutboundTlsTest() override {
    connection_.reset();
    server_.reset();
  }
  // True where a message was delivered; what there is to know is in recorder_.
  bool Deliver() {
    recorder_ = Recorder();
    connection_ = factory_.Connect(target_, &recorder_);
    RunUntil([&] { return recorder_.ready || recorder_.end; });
    if (!recorder_.ready) return false;
    auto lease = std::make_shared<queue::v1::Lease>();
    lease->set_lease_id(1);
    lease->mutable_message()->set_mail_from("a@b.test");
    lease->mutable_message()->set_require_tls(require_tls_);
    lease->add_deliveries()->set_rcpt("c@d.test");
    connection_->Send({lease, Body(std::string("Subject: x\r\n\r\ntext\r\n")), nullptr});
    RunUntil([&] { return recorder_.result || recorder_.end; });
    return recorder_.result &&
           recorder_.result->outcome() == queue::v1::RECIPIENT_OUTCOME_DELIVERED;
  }
  const common::v1::TlsInfo& tls() const { return recorder_.result->attempt().tls(); }
  void RunUntil(const std::function<bool()>& done) {
    const MonotonicTime end = loop_.clock().Now() + seconds(10);
    while (!done()) {
      ASSERT_LT(loop_.clock().Now(), end);
      loop_.RunOnce(std::chrono::milliseconds(20));
    }
  }

  EventLoop loop_;
  const sluice::testing::TempFolder temp_{"outbound-tls"};
  const std::string path_ = temp_.File("server.pem");
  std::unique_ptr<TlsServerContext> context_;
  std::unique_ptr<Server> server_;
  std::shared_ptr<policy::v1::QueueSettings> settings_ =
      std::make_shared<policy::v1::QueueSettings>();
  ConnectTarget target_;
  OutboundConnections factory_{loop_};
  Recorder recorder_;
  std::unique_ptr<Connection> connection_;
  bool require_tls_ = false;
};

TEST_F(OutboundTlsTest, EncryptsWhatIsOfferedAndResumes) {
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(tls().version(), "TLSv1.3");
  EXPECT_EQ(tls().verdict(), "opportunistic");
  EXPECT_EQ(tls().peer_subject(), "CN=mx.test");
  EXPECT_EQ(server_->commands, (std::vector<std::string>{"EHLO", "STAR", "tls:EHLO", "tls:MAIL",
                                                         "tls:RCPT", "tls:DATA"}));
  EXPECT_EQ(factory_.tls_stats().resumed, 0u);
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(factory_.tls_stats().resumed, 1u);
  settings_->set_reuse_ssl_session(false);
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(factory_.tls_stats().resumed, 1u);
  EXPECT_EQ(factory_.tls_stats().handshakes, 3u);
  settings_->set_use_starttls(false);
  ASSERT_TRUE(Deliver());
  EXPECT_FALSE(recorder_.result->attempt().has_tls());
  EXPECT_EQ(factory_.tls_stats().handshakes, 3u);
}

TEST_F(OutboundTlsTest, OpportunisticGoesInClearWhereItMust) {
  settings_->set_tls_handshake_timeout_us(100'000);
  struct Case {
    Server::Mode mode;
    size_t connections;
  };
  for (const auto& [mode, connections] :
       {Case{Server::Mode::kNotOffered, 1}, Case{Server::Mode::kRefuses, 1},
        Case{Server::Mode::kRubbish, 2}, Case{Server::Mode::kCloses, 2},
        Case{Server::Mode::kSilent, 2}}) {
    server_->mode = mode;
    target_.host = "mx" + std::to_string(static_cast<int>(mode)) + ".test";
    const size_t before = server_->connections();
    ASSERT_TRUE(Deliver()) << static_cast<int>(mode);
    EXPECT_FALSE(recorder_.result->attempt().has_tls());
    EXPECT_EQ(server_->connections() - before, connections) << static_cast<int>(mode);
  }
  EXPECT_EQ(factory_.tls_stats().fallbacks, 3u);
  settings_->set_tls_fallback(false);
  server_->mode = Server::Mode::kRubbish;
  EXPECT_FALSE(Deliver());
  EXPECT_EQ(recorder_.end->reply.stage(), common::v1::STAGE_STARTTLS);
}

TEST_F(OutboundTlsTest, RequiredNeverGoesInClear) {
  settings_->set_tls_handshake_timeout_us(100'000);
  for (const bool by_demand : {false, true}) {
    settings_->set_require_starttls(!by_demand);
    target_.tls.required = by_demand;
    server_->mode = Server::Mode::kTls;
    ASSERT_TRUE(Deliver());
    for (const Server::Mode mode :
         {Server::Mode::kNotOffered, Server::Mode::kRefuses, Server::Mode::kRubbish,
          Server::Mode::kCloses, Server::Mode::kSilent, Server::Mode::kInjects}) {
      server_->mode = mode;
      server_->commands.clear();
      const size_t before = server_->connections();
      EXPECT_FALSE(Deliver()) << static_cast<int>(mode);
      EXPECT_EQ(server_->connections() - before, 1u);
      EXPECT_FALSE(recorder_.end->ready);
      EXPECT_EQ(recorder_.end->reply.stage(), common::v1::STAGE_STARTTLS);
      for (const std::string& command : server_->commands) EXPECT_NE(command, "MAIL");
    }
  }
}

TEST_F(OutboundTlsTest, AHostWhoseHandshakeFailedIsNotAskedAgainSoon) {
  server_->mode = Server::Mode::kRubbish;
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(server_->connections(), 2u);
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(server_->connections(), 3u);
  EXPECT_EQ(factory_.tls_stats().failures, 1u);
  // Who insists on TLS is not given clear text for what happened to others.
  server_->mode = Server::Mode::kTls;
  settings_->set_require_starttls(true);
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(tls().version(), "TLSv1.3");
}

TEST_F(OutboundTlsTest, RemembersFailuresForATime) {
  OutboundTls tls;
  const MonotonicTime now = loop_.clock().Now();
  using mail::StartTls;
  tls.RememberFailure(target_, now);
  EXPECT_EQ(tls.Wanted(target_, now), StartTls::kNever);
  EXPECT_EQ(tls.Wanted(target_, now + OutboundTls::kRememberFailure - seconds(1)),
            StartTls::kNever);
  EXPECT_EQ(tls.Wanted(target_, now + OutboundTls::kRememberFailure), StartTls::kOpportunistic);

  ConnectTarget other = target_;
  other.address = "127.0.0.2";
  EXPECT_EQ(tls.Wanted(other, now), StartTls::kOpportunistic);
  other = target_;
  other.tls.required = true;
  EXPECT_EQ(tls.Wanted(other, now), StartTls::kRequired);
  other = target_;
  other.tls.check = std::make_shared<DaneLike>();  // has every handshake counted
  EXPECT_EQ(tls.Wanted(other, now), StartTls::kOpportunistic);
  other = target_;
  auto settings = std::make_shared<policy::v1::QueueSettings>(*settings_);
  settings->set_tls_fallback(false);
  other.settings = settings;
  EXPECT_EQ(tls.Wanted(other, now), StartTls::kOpportunistic);
  settings->set_tls_fallback(true);
  settings->set_smtp_tls_allow_tlsv1(true);  // with which it may do
  EXPECT_EQ(tls.Wanted(other, now), StartTls::kOpportunistic);
}

TEST_F(OutboundTlsTest, RemembersABoundedNumberOfHosts) {
  OutboundTls tls;
  const MonotonicTime now = loop_.clock().Now();
  for (size_t i = 0; i <= OutboundTls::kMaxFailures; ++i) {
    target_.host = "mx" + std::to_string(i) + ".test";
    tls.RememberFailure(target_, now);
  }
  EXPECT_EQ(tls.Wanted(target_, now), mail::StartTls::kOpportunistic);
  const MonotonicTime later = now + OutboundTls::kRememberFailure;
  tls.RememberFailure(target_, later);
  EXPECT_EQ(tls.Wanted(target_, later), mail::StartTls::kNever);
}

TEST_F(OutboundTlsTest, ImplicitTlsIsNeverInClear) {
  settings_->set_tls_handshake_timeout_us(100'000);
  settings_->set_use_starttls(false);
  target_.tls.implicit = true;
  server_->mode = Server::Mode::kImplicit;
  for (int resumed = 0; resumed < 2; ++resumed) {
    server_->commands.clear();
    ASSERT_TRUE(Deliver());
    EXPECT_EQ(tls().version(), "TLSv1.3");
    EXPECT_EQ(server_->commands,
              (std::vector<std::string>{"tls:EHLO", "tls:MAIL", "tls:RCPT", "tls:DATA"}));
  }
  EXPECT_EQ(factory_.tls_stats().resumed, 1u);
  server_->mode = Server::Mode::kTls;  // greets in clear
  server_->commands.clear();
  const size_t before = server_->connections();
  EXPECT_FALSE(Deliver());
  EXPECT_EQ(recorder_.end->reply.stage(), common::v1::STAGE_STARTTLS);
  EXPECT_EQ(server_->connections() - before, 1u);
  EXPECT_EQ(server_->commands, std::vector<std::string>());
}

TEST_F(OutboundTlsTest, InjectedClearTextGetsNoMail) {
  server_->mode = Server::Mode::kInjects;
  EXPECT_FALSE(Deliver());
  EXPECT_EQ(recorder_.end->reply.enhanced(), "4.7.0");
  EXPECT_EQ(server_->connections(), 1u);
  EXPECT_EQ(factory_.fault_stats().injections, 1u);
}

TEST_F(OutboundTlsTest, VerifiesForThePolicy) {
  target_.tls.required = true;
  target_.tls.verify_names = {"mx.test"};
  EXPECT_FALSE(Deliver());  // signed by itself
  EXPECT_EQ(recorder_.end->reply.stage(), common::v1::STAGE_STARTTLS);
  settings_->set_smtp_tls_ca_file(path_);
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(tls().verdict(), "verified");
  target_.tls.verify_names = {"other.test"};
  EXPECT_FALSE(Deliver());

  target_.tls.verify_names.clear();
  auto check = std::make_shared<DaneLike>();
  target_.tls.check = check;
  for (int resumed = 0; resumed < 2; ++resumed) {  // asked again of a resumed session
    check->content = true;
    ASSERT_TRUE(Deliver());
    EXPECT_EQ(tls().verdict(), "dane");
    check->content = false;
    EXPECT_FALSE(Deliver());
  }
}

// A session is resumed only by connections that demand what it was let through by.
TEST_F(OutboundTlsTest, SessionsAreNotResumedAcrossDemands) {
  int step = 0;
  const auto deliver = [this, &step](bool resumes) {
    SCOPED_TRACE(++step);
    const uint64_t before = factory_.tls_stats().resumed;
    ASSERT_TRUE(Deliver());
    EXPECT_EQ(factory_.tls_stats().resumed - before, resumes ? 1u : 0u);
  };
  for (const bool resumes : {false, true, true}) deliver(resumes);
  // None of what a policy demands finds the session of a connection that was held to none.
  for (const char* scope : {"encrypted", "tested", "mta-sts", "dane mx.test\n3 1 1 AB",
                            "dane mx.test\n3 1 1 CD", "dane other.test\n3 1 1 CD"}) {
    SCOPED_TRACE(scope);
    auto check = std::make_shared<DaneLike>();
    check->scope = scope;
    target_.tls.check = check;
    target_.tls.required = true;
    for (const bool resumes : {false, true}) deliver(resumes);
  }
  target_.tls.check = nullptr;
  target_.tls.required = false;
  deliver(true);
  // The same of names that are verified here, of SNI, and of authorities.
  target_.tls.server_name = "base.test";
  for (const bool resumes : {false, true}) deliver(resumes);
  target_.tls.server_name.clear();
  settings_->set_smtp_tls_ca_file(path_);
  for (const bool resumes : {false, true}) deliver(resumes);
  target_.tls.verify_names = {"mx.test"};
  for (const bool resumes : {false, true}) deliver(resumes);
  // What the server is shown.
  settings_->mutable_smtp_client_certificate()->set_file(path_);
  for (const bool resumes : {false, true}) deliver(resumes);
}

TEST_F(OutboundTlsTest, AFileOfCertificatesMakesTheVerdict) {
  settings_->set_smtp_tls_ca_file(path_);
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(tls().verdict(), "verified");
  target_.host = "other.test";
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(tls().verdict(), "opportunistic");
}

// REQUIRETLS (RFC 8689 section 4.2.1): the certificate is good, and so is what says that the host
// is the domain's.
TEST_F(OutboundTlsTest, RequireTlsWantsAHostThatIsVerified) {
  require_tls_ = true;
  const auto refused = [this] {
    EXPECT_FALSE(Deliver());
    ASSERT_TRUE(recorder_.result);
    EXPECT_EQ(recorder_.result->outcome(), queue::v1::RECIPIENT_OUTCOME_PERMANENT);
    EXPECT_EQ(recorder_.result->reply().enhanced(), "5.7.10");
  };
  refused();  // any certificate, of a host that any DNS server may have named
  settings_->set_smtp_tls_ca_file(path_);
  refused();  // a good one
  target_.route.authenticated = true;
  EXPECT_TRUE(Deliver());
  target_.route = {"d.test", false, false};  // the operator's word
  EXPECT_TRUE(Deliver());
  settings_->clear_smtp_tls_ca_file();
  refused();
  target_.route = {"d.test", true, false};
  auto check = std::make_shared<DaneLike>();
  target_.tls.check = check;
  EXPECT_TRUE(Deliver());
  server_->mode = Server::Mode::kNotOffered;
  refused();
}

// One that broke says little of the next one.
TEST_F(OutboundTlsTest, RequireTlsWaitsWhereAHandshakeFailed) {
  settings_->set_smtp_tls_ca_file(path_);
  target_.route.authenticated = true;
  server_->mode = Server::Mode::kRubbish;
  ASSERT_TRUE(Deliver());  // in clear, which is remembered
  EXPECT_FALSE(recorder_.result->attempt().has_tls());
  require_tls_ = true;
  server_->mode = Server::Mode::kTls;
  for (const bool taken : {false, true}) {
    EXPECT_EQ(Deliver(), taken);
    ASSERT_TRUE(recorder_.result);
    if (taken) continue;
    EXPECT_EQ(recorder_.result->outcome(), queue::v1::RECIPIENT_OUTCOME_TRANSIENT);
    EXPECT_EQ(recorder_.result->reply().enhanced(), "4.7.10");
  }
  EXPECT_TRUE(recorder_.result->attempt().has_tls());
}

TEST_F(OutboundTlsTest, ShowsItsCertificateAndTakesOnlyItsVersions) {
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(server_->subjects.back(), "");
  settings_->mutable_smtp_client_certificate()->set_file(path_);
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(server_->subjects.back(), "CN=mx.test");
  settings_->set_smtp_tls_allow_tlsv1_3(false);
  settings_->set_smtp_tls_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384");
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(tls().version(), "TLSv1.2");
  EXPECT_EQ(tls().cipher(), "ECDHE-ECDSA-AES256-GCM-SHA384");
  settings_->set_smtp_tls_allow_tlsv1_3(true);
  settings_->set_smtp_tls_allow_tlsv1_2(false);
  settings_->set_smtp_tls_allow_tlsv1_1(false);
  settings_->set_smtp_tls_allow_tlsv1(false);
  settings_->set_smtp_tls_tlsv1_3_ciphersuites("TLS_CHACHA20_POLY1305_SHA256");
  ASSERT_TRUE(Deliver());
  EXPECT_EQ(tls().version(), "TLSv1.3");
  EXPECT_EQ(tls().cipher(), "TLS_CHACHA20_POLY1305_SHA256");
  // A file that is not there: no mail where TLS is required.
  settings_->mutable_smtp_client_certificate()->set_file(path_ + ".none");
  settings_->set_require_starttls(true);
  EXPECT_FALSE(Deliver());
  EXPECT_NE(recorder_.end->reply.text().find(".none"), std::string::npos);
}

}  // namespace
}  // namespace sluice::delivery
