// AUTH of the client session: what is sent to whom, and how it ends.
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/mail/smtp_client_session.h"

namespace sluice::mail {
namespace {

class Peer final : public SmtpClientHandler {
 public:
  Peer(const SmtpClientOptions& options, size_t step) : session(*this, options), step_(step) {}
  void Server(std::string_view text) {
    for (; !text.empty(); text.remove_prefix(std::min(step_, text.size()))) {
      session.OnBytes(text.substr(0, step_));
    }
  }
  std::string Wrote() { return std::exchange(output_, {}); }
  void OnOutput(std::string_view text) override { output_ += text; }
  void OnReady() override { ++ready; }
  void OnWantBody(uint64_t) override {}
  bool MayFinish(uint64_t) override { return true; }
  void OnResult(uint64_t, std::vector<RecipientVerdict>) override {}
  void OnEnd(const RecipientVerdict& last) override {
    ++ends;
    end = last;
  }
  int ready = 0;
  int ends = 0;
  RecipientVerdict end;
  SmtpClientSession session;

 private:
  const size_t step_;
  std::string output_;
};

std::string Hello(std::string_view auth) {
  return absl::StrCat("220 mx\r\n250-mx\r\n250-AUTH", auth.data(), "\r\n250 PIPELINING\r\n");
}

class ClientAuth : public ::testing::TestWithParam<size_t> {
 protected:
  ClientAuth() {
    options.auth = SaslCredentials{"tim", "pw"};
    options.encrypted = true;
    options.auth_nonce = "rOprNGfwEbeRWgbNEkqO";
  }
  SmtpClientOptions options;
};

INSTANTIATE_TEST_SUITE_P(Cuts, ClientAuth, ::testing::Values(1, 2, 7, 100'000));

TEST_P(ClientAuth, PlainInTls) {
  Peer peer(options, GetParam());
  peer.Server(Hello(" LOGIN plain"));
  EXPECT_EQ(peer.Wrote(), "EHLO localhost\r\nAUTH PLAIN AHRpbQBwdw==\r\n");
  EXPECT_EQ(peer.session.stage(), SmtpStage::kAuth);
  EXPECT_EQ(peer.ready, 0);
  peer.Server("235 2.7.0 welcome\r\n");
  EXPECT_EQ(peer.ready, 1);
  peer.session.Quit();
  EXPECT_EQ(peer.Wrote(), "QUIT\r\n");
}

TEST_P(ClientAuth, LoginStepByStep) {
  Peer peer(options, GetParam());
  peer.Server(Hello(" LOGIN"));
  EXPECT_EQ(peer.Wrote(), "EHLO localhost\r\nAUTH LOGIN\r\n");
  peer.Server("334 VXNlcm5hbWU6\r\n");
  EXPECT_EQ(peer.Wrote(), "dGlt\r\n");
  peer.Server("334 UGFzc3dvcmQ6\r\n");
  EXPECT_EQ(peer.Wrote(), "cHc=\r\n");
  peer.Server("235 ok\r\n");
  EXPECT_EQ(peer.ready, 1);
}

// The password does not travel in clear text, and no mail goes without AUTH.
TEST_P(ClientAuth, NothingIsShownInClear) {
  options.encrypted = false;
  Peer peer(options, GetParam());
  peer.Server(Hello(" PLAIN LOGIN"));
  EXPECT_EQ(peer.Wrote(), "EHLO localhost\r\n");
  EXPECT_EQ(peer.ready, 0);
  EXPECT_EQ(peer.ends, 1);
  EXPECT_EQ(peer.end.stage, SmtpStage::kAuth);
  EXPECT_EQ(peer.end.verdict, Verdict::kTransient);
  Peer scram(options, GetParam());
  scram.Server(Hello(" PLAIN SCRAM-SHA-256"));
  EXPECT_EQ(scram.Wrote().substr(16, 20), "AUTH SCRAM-SHA-256 b");
  options.auth_in_clear = true;
  Peer allowed(options, GetParam());
  allowed.Server(Hello(" PLAIN"));
  EXPECT_EQ(allowed.Wrote().substr(16, 11), "AUTH PLAIN ");
}

TEST_P(ClientAuth, ARemoteWithoutItGetsNoMail) {
  Peer peer(options, GetParam());
  peer.Server("220 mx\r\n250 mx\r\n");
  EXPECT_EQ(peer.ends, 1);
  EXPECT_EQ(peer.end.reply.text, "the remote offers no AUTH, and auth-username is set");
  Peer old(options, GetParam());
  old.Server("220 mx\r\n502 what?\r\n250 mx\r\n");
  EXPECT_EQ(old.Wrote(), "EHLO localhost\r\nHELO localhost\r\n");
  EXPECT_EQ(old.ends, 1);
  EXPECT_EQ(old.ready, 0);
}

// A wrong password is the operator's business: it never bounces mail.
TEST_P(ClientAuth, ARefusalEndsTheConnection) {
  Peer peer(options, GetParam());
  peer.Server(Hello(" PLAIN"));
  peer.Server("535 5.7.8 authentication failed\r\n");
  EXPECT_EQ(peer.ready, 0);
  EXPECT_EQ(peer.ends, 1);
  EXPECT_EQ(peer.end.stage, SmtpStage::kAuth);
  EXPECT_EQ(peer.end.reply.code, 535);
}

TEST_P(ClientAuth, AServerThatSkipsItsProofIsNotBelieved) {
  Peer peer(options, GetParam());
  peer.Server(Hello(" SCRAM-SHA-256"));
  peer.Server("235 2.7.0 trust me\r\n");
  EXPECT_EQ(peer.ready, 0);
  EXPECT_EQ(peer.ends, 1);
  EXPECT_TRUE(peer.end.local);
  Peer busy(options, GetParam());
  busy.Server(Hello(" PLAIN"));
  busy.Server("421 busy\r\n");
  EXPECT_EQ(busy.ends, 1);
  EXPECT_EQ(busy.end.reply.code, 421);
}

}  // namespace
}  // namespace sluice::mail
