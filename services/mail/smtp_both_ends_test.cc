// Proves that our client and our server understand each other, each mechanism of AUTH and each way
// of sending a text, however the network cuts what either of them says.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "services/mail/sasl_server.h"
#include "services/mail/smtp_client_session.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::mail {
namespace {

constexpr MonotonicTime kNow{std::chrono::seconds(5)};

class Users final : public SaslUsers {
 public:
  std::shared_ptr<const SaslCredential> Find(std::string_view name) const override {
    if (name != "tim") return nullptr;
    return std::make_shared<SaslCredential>(SaslCredential::FromPassword("open sesame"));
  }
};

struct Taken {
  MailCommand mail;
  std::vector<RcptCommand> rcpts;
  std::string body;
};

class Server final : public SmtpServerHandler {
 public:
  Server(std::string mechanisms, bool chunking) : mechanisms_(std::move(mechanisms)) {
    options_.extensions.chunking = options_.extensions.binary_mime = chunking;
    options_.extensions.smtp_utf8 = options_.extensions.dsn = true;
    session.Start(kNow);
  }
  void OnHello(std::string_view, bool) override {}
  std::optional<ServerReply> OnMail(const MailCommand& mail) override {
    if (!mechanisms_.empty() && user.empty()) return ServerReply{530, {5, 7, 0}, "AUTH first"};
    now_ = {mail, {}, ""};
    return ServerReply{250, {2, 1, 0}, "ok"};
  }
  std::optional<ServerReply> OnRcpt(const RcptCommand& rcpt) override {
    if (rcpt.to.starts_with("no")) return ServerReply{550, {5, 1, 1}, "no such\nuser"};
    now_.rcpts.push_back(rcpt);
    return ServerReply{250, {2, 1, 5}, "ok"};
  }
  std::optional<ServerReply> OnData() override { return ServerReply{354, {}, "go"}; }
  void OnBody(std::string_view text) override { now_.body += text; }
  std::optional<ServerReply> OnMessageEnd(const MessageFacts&) override {
    taken.push_back(std::exchange(now_, {}));
    return ServerReply{250, {2, 0, 0}, "queued"};
  }
  void OnReset() override { now_ = {}; }
  std::string AuthMechanisms() override { return mechanisms_; }
  std::optional<ServerReply> OnAuth(std::string_view mechanism,
                                    std::optional<std::string_view> initial) override {
    sasl_ = SaslServer::Make(mechanism, {&users_, "mx.test", "nonce-of-the-server-1", "secret"});
    return Take(sasl_->Start(initial));
  }
  std::optional<ServerReply> OnAuthResponse(std::string_view response) override {
    return Take(sasl_->OnResponse(response));
  }

  std::vector<Taken> taken;
  std::string user;

 private:
  std::optional<ServerReply> Take(SaslStep step) {
    if (step.kind == SaslStep::Kind::kWork) return Take(sasl_->OnWorkDone(step.work()));
    if (step.kind == SaslStep::Kind::kChallenge) return ServerReply{334, {}, step.text};
    if (step.kind != SaslStep::Kind::kSuccess) return ServerReply{535, {5, 7, 8}, "no"};
    user = sasl_->user();
    return ServerReply{235, {2, 7, 0}, "in"};
  }
  const std::string mechanisms_;
  const Users users_;
  std::unique_ptr<SaslServer> sasl_;
  Taken now_;
  SmtpServerOptions options_;

 public:
  SmtpServerSession session{*this, options_};
};

class Client final : public SmtpClientHandler {
 public:
  explicit Client(const SmtpClientOptions& options) : session(*this, options) {}
  void OnOutput(std::string_view text) override { output += text; }
  void OnReady() override { ready = true; }
  void OnWantBody(uint64_t) override {
    session.SendBody(body, true, [this](std::string_view text) { output += text; });
  }
  bool MayFinish(uint64_t) override { return true; }
  void OnResult(uint64_t, std::vector<RecipientVerdict> all) override {
    for (RecipientVerdict& each : all) results.push_back(std::move(each));
  }
  void OnEnd(const RecipientVerdict& last) override { end = last; }

  std::string body;
  std::string output;
  bool ready = false;
  std::vector<RecipientVerdict> results;
  std::optional<RecipientVerdict> end;
  SmtpClientSession session;
};

// Moves bytes in pieces of `step` until both have said everything.
void Exchange(Client& client, Server& server, size_t step) {
  while (true) {
    if (!server.session.output().empty() && !client.end) {
      const std::string piece(server.session.output().substr(0, step));
      server.session.Sent(kNow, piece.size());
      client.session.OnBytes(piece);
    } else if (!client.output.empty() && server.session.wants_read()) {
      const std::string piece = client.output.substr(0, step);
      client.output.erase(0, piece.size());
      server.session.OnBytes(kNow, piece);
    } else {
      return;
    }
  }
}

struct Case {
  const char* name;
  const char* mechanism;  // or nothing
  bool pipelining;
  bool chunking;
  bool binary;
};

constexpr Case kCases[] = {
    {"Pipelined", "", true, false, false},
    {"StepByStep", "", false, false, false},
    {"Chunks", "", true, true, false},
    {"BinaryChunks", "", true, true, true},
    {"BinaryChunksStepByStep", "", false, true, true},
    {"Plain", "PLAIN", true, false, false},
    {"Login", "LOGIN", true, false, false},
    {"CramMd5", "CRAM-MD5", true, false, false},
    {"ScramSha256", "SCRAM-SHA-256", true, false, false},
};

class BothEnds : public ::testing::TestWithParam<Case> {};

TEST_P(BothEnds, AMessageArrivesHoweverItIsCut) {
  const Case& c = GetParam();
  SmtpClientOptions options;
  options.use_pipelining = c.pipelining;
  options.auth_in_clear = true;
  options.auth_nonce = "nonce-of-the-client-1";
  if (*c.mechanism != '\0') options.auth = SaslCredentials{"tim", "open sesame"};
  for (size_t step = 1; step < 40; ++step) {
    SCOPED_TRACE(::testing::Message() << "pieces of " << step);
    Server server(c.mechanism, c.chunking);
    Client client(options);
    client.body = "Subject: x\r\n\r\n.\r\n..dots\r\n";
    if (c.binary) client.body += std::string("\0\n.\r\n.", 6);
    Exchange(client, server, step);
    ASSERT_TRUE(client.ready);
    EXPECT_EQ(server.user, options.auth ? "tim" : "");
    ClientTransaction transaction;
    transaction.id = 1;
    transaction.mail_from = "\xc3\xa4@x.test";
    transaction.recipients = {"u@y.test", "no@y.test", "v@y.test"};
    transaction.dsn = {{2, "rfc822;u+1@y.test"}, {}, {1, ""}};
    transaction.envid = "e=1";
    transaction.binary = c.binary;
    client.session.Begin(std::move(transaction));
    Exchange(client, server, step);
    client.session.Quit();
    Exchange(client, server, step);
    ASSERT_EQ(server.taken.size(), 1u);
    const Taken& taken = server.taken[0];
    EXPECT_EQ(taken.body, client.body);
    EXPECT_EQ(taken.mail.from, "\xc3\xa4@x.test");
    EXPECT_EQ(taken.mail.envid, "e=1");
    ASSERT_EQ(taken.rcpts.size(), 2u);
    EXPECT_EQ(taken.rcpts[0].orcpt, "rfc822;u+1@y.test");
    EXPECT_EQ(taken.rcpts[1].notify, 1u);
    ASSERT_EQ(client.results.size(), 3u);
    EXPECT_EQ(client.results[0].verdict, Verdict::kDelivered);
    EXPECT_EQ(client.results[1].verdict, Verdict::kPermanent);
    EXPECT_EQ(client.results[1].reply.text, "no such\nuser");
    EXPECT_EQ(client.results[2].verdict, Verdict::kDelivered);
    EXPECT_TRUE(client.end.has_value());
    EXPECT_TRUE(server.session.closing());
  }
}

TEST_P(BothEnds, AWrongPasswordGetsNowhere) {
  const Case& c = GetParam();
  if (*c.mechanism == '\0') return;
  SmtpClientOptions options;
  options.auth_in_clear = true;
  options.auth_nonce = "nonce-of-the-client-1";
  for (const SaslCredentials& wrong : {SaslCredentials{"tim", "open"}, {"tom", "open sesame"}}) {
    options.auth = wrong;
    for (size_t step = 1; step < 40; ++step) {
      Server server(c.mechanism, false);
      Client client(options);
      Exchange(client, server, step);
      EXPECT_FALSE(client.ready);
      EXPECT_EQ(server.user, "");
      ASSERT_TRUE(client.end.has_value());
      EXPECT_EQ(client.end->reply.code, 535);
      EXPECT_EQ(client.end->verdict, Verdict::kPermanent);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, BothEnds, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace sluice::mail
