// Proves that a client authenticates by each mechanism, and believes no server that does not
// prove itself.
#include "services/mail/sasl_client.h"

#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "services/mail/smtp_auth_exchange.h"

namespace sluice::mail {
namespace {

const SaslCredentials kPencil{"user", "pencil"};
constexpr char kNonce[] = "rOprNGfwEbeRWgbNEkqO";
constexpr char kServerFirst[] =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
constexpr char kServerFinal[] = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

// The example of RFC 7677 section 3.
TEST(SaslClient, ScramSha256) {
  auto scram = MakeSaslClient("SCRAM-SHA-256", kPencil, kNonce);
  EXPECT_EQ(scram->InitialResponse(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
  const auto proof = scram->OnChallenge(kServerFirst);
  ASSERT_TRUE(proof.ok()) << proof.status();
  EXPECT_EQ(*proof,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
  EXPECT_FALSE(scram->OnSuccess().ok());  // the server has not shown that it knows the password
  const auto last = scram->OnChallenge(kServerFinal);
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(*last, "");
  EXPECT_TRUE(scram->OnSuccess().ok());
}

TEST(SaslClient, ScramEscapesTheName) {
  auto scram = MakeSaslClient("SCRAM-SHA-256", {"a=b,c", "x"}, kNonce);
  EXPECT_EQ(scram->InitialResponse(), "n,,n=a=3Db=2Cc,r=rOprNGfwEbeRWgbNEkqO");
}

TEST(SaslClient, ScramRefusesLies) {
  for (const char* first : {
           "",
           "x",
           "e=other-error",
           "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",  // nothing added
           "r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
           "m=x,r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
           "r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096",
           "r=rOprNGfwEbeRWgbNEkqOx,s=###,i=4096",
           "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
           "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=2000000000",
           "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999999999",
           "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=",
       }) {
    auto scram = MakeSaslClient("SCRAM-SHA-256", kPencil, kNonce);
    scram->InitialResponse();
    EXPECT_FALSE(scram->OnChallenge(first).ok()) << first;
  }
  for (const char* last :
       {"", "e=invalid-proof", "v=", "v=AAAA", "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="}) {
    auto scram = MakeSaslClient("SCRAM-SHA-256", kPencil, kNonce);
    scram->InitialResponse();
    ASSERT_TRUE(scram->OnChallenge(kServerFirst).ok());
    EXPECT_FALSE(scram->OnChallenge(last).ok()) << last;
    EXPECT_FALSE(scram->OnSuccess().ok());
  }
}

// The example of RFC 2195 section 2.
TEST(SaslClient, CramMd5) {
  auto cram = MakeSaslClient("CRAM-MD5", {"tim", "tanstaaftanstaaf"}, "");
  EXPECT_EQ(cram->InitialResponse(), std::nullopt);
  EXPECT_FALSE(cram->OnSuccess().ok());
  EXPECT_EQ(*cram->OnChallenge("<1896.697170952@postoffice.reston.mci.net>"),
            "tim b913a602c7eda7a495b4e6e7334d3890");
  EXPECT_TRUE(cram->OnSuccess().ok());
  EXPECT_FALSE(cram->OnChallenge("again").ok());
}

TEST(SaslClient, PlainAndLogin) {
  auto plain = MakeSaslClient("PLAIN", {"tim", "pw"}, "");
  EXPECT_EQ(plain->InitialResponse(), std::string("\0tim\0pw", 7));
  EXPECT_TRUE(plain->OnSuccess().ok());
  EXPECT_FALSE(plain->OnChallenge("more").ok());
  auto login = MakeSaslClient("LOGIN", {"tim", "pw"}, "");
  EXPECT_EQ(login->InitialResponse(), std::nullopt);
  EXPECT_EQ(*login->OnChallenge("User Name"), "tim");
  EXPECT_FALSE(login->OnSuccess().ok());
  EXPECT_EQ(*login->OnChallenge("Kennwort:"), "pw");
  EXPECT_TRUE(login->OnSuccess().ok());
  EXPECT_FALSE(login->OnChallenge("more").ok());
}

TEST(SaslClient, ALongChallengeIsRefused) {
  auto cram = MakeSaslClient("CRAM-MD5", {"tim", "pw"}, "");
  EXPECT_FALSE(cram->OnChallenge(std::string(8193, 'x')).ok());
}

// Bound to the connection; the values were computed apart from this code.
TEST(SaslClient, ScramBindsToTheConnection) {
  const struct {
    SaslChannelBindings bindings;
    const char* initial;
    const char* proof;
    const char* last;
  } kCases[] = {
      {{.tls_exporter = "EXPORTED", .tls_server_end_point = "HASH"},
       "p=tls-exporter,,n=user,r=rOprNGfwEbeRWgbNEkqO",
       "c=cD10bHMtZXhwb3J0ZXIsLEVYUE9SVEVE,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p="
       "LbGbK3Bf1O/94WiQHWXwmbWHgGT6Ns7wagCop7O7bI4=",
       "v=1UcVWZvjeYQGkXtsGjjQGxEKpQGr0mgFTMJUM7dKp2E="},
      {{.tls_server_end_point = "HASH"},
       "p=tls-server-end-point,,n=user,r=rOprNGfwEbeRWgbNEkqO",
       "c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsSEFTSA==,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)"
       "hNlF$k0,p=Aa7P3Van6yYX2g6xAwYgRsOgU4ewzs2DRpAkZM7bMCA=",
       "v=n3qWB6U1BO3m53G6HPXOZqeONwN6QoFg3fFE6eC/Ncg="},
  };
  for (const auto& each : kCases) {
    auto scram = MakeSaslClient("SCRAM-SHA-256-PLUS", kPencil, kNonce, each.bindings);
    ASSERT_NE(scram, nullptr);
    EXPECT_EQ(scram->InitialResponse(), each.initial);
    const auto proof = scram->OnChallenge(kServerFirst);
    ASSERT_TRUE(proof.ok()) << proof.status();
    EXPECT_EQ(*proof, each.proof);
    EXPECT_TRUE(scram->OnChallenge(each.last).ok());
    EXPECT_TRUE(scram->OnSuccess().ok());
  }
  EXPECT_EQ(MakeSaslClient("SCRAM-SHA-256-PLUS", kPencil, kNonce), nullptr);
  // It could have bound: a server that offered that knows now that somebody took it out.
  EXPECT_EQ(MakeSaslClient("SCRAM-SHA-256", kPencil, kNonce, {.tls_exporter = "x"})
                ->InitialResponse()
                ->substr(0, 3),
            "y,,");
}

struct ChoiceCase {
  std::vector<std::string> offered;
  bool may_show_password;
  std::string_view chosen;  // empty: none
  SaslChannelBindings bindings = {};
};

// The strongest one; the password is shown only where it may be.
TEST(SaslClient, Choice) {
  for (const ChoiceCase& each : std::vector<ChoiceCase>{
           {{"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"}, true, "SCRAM-SHA-256"},
           {{"PLAIN", "LOGIN", "CRAM-MD5"}, true, "CRAM-MD5"},
           {{"LOGIN", "PLAIN"}, true, "PLAIN"},
           {{"LOGIN"}, true, "LOGIN"},
           {{"LOGIN", "PLAIN"}, false, ""},
           {{"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}, true, "SCRAM-SHA-256"},
           {{"SCRAM-SHA-256-PLUS", "PLAIN"}, true, "PLAIN"},
           {{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"},
            true,
            "SCRAM-SHA-256-PLUS",
            {.tls_exporter = "x"}},
           {{"SCRAM-SHA-256-PLUS"}, false, "SCRAM-SHA-256-PLUS", {.tls_server_end_point = "x"}},
           {{"SCRAM-SHA-256", "CRAM-MD5"}, true, "SCRAM-SHA-256", {.tls_exporter = "x"}},
           {{"CRAM-MD5", "PLAIN"}, true, "CRAM-MD5", {.tls_exporter = "x"}},
           {{"PLAIN", "CRAM-MD5"}, false, "CRAM-MD5"},
           {{"GSSAPI", "EXTERNAL"}, true, ""},
           {{}, true, ""}}) {
    const auto chosen =
        ChooseSaslClient(each.offered, kPencil, each.may_show_password, kNonce, each.bindings);
    EXPECT_EQ(chosen == nullptr ? "" : chosen->name(), each.chosen);
  }
  EXPECT_EQ(MakeSaslClient("EXTERNAL", kPencil, ""), nullptr);
}

SmtpReply Reply(int code, std::string text) {
  SmtpReply reply;
  reply.code = code;
  reply.text = std::move(text);
  return reply;
}

using Step = SmtpAuthExchange::Step;

TEST(SmtpAuthExchange, PlainInOneLine) {
  SmtpAuthExchange auth(MakeSaslClient("PLAIN", {"tim", "pw"}, ""));
  EXPECT_EQ(auth.Command(), "AUTH PLAIN AHRpbQBwdw==\r\n");
  EXPECT_EQ(auth.OnReply(Reply(235, "ok")), Step::kDone);
}

TEST(SmtpAuthExchange, LoginIsAsked) {
  SmtpAuthExchange auth(MakeSaslClient("LOGIN", {"tim", "pw"}, ""));
  EXPECT_EQ(auth.Command(), "AUTH LOGIN\r\n");
  EXPECT_EQ(auth.OnReply(Reply(334, "VXNlcm5hbWU6")), Step::kSend);
  EXPECT_EQ(auth.TakeOutput(), "dGlt\r\n");
  EXPECT_EQ(auth.OnReply(Reply(334, "")), Step::kSend);
  EXPECT_EQ(auth.TakeOutput(), "cHc=\r\n");
  EXPECT_EQ(auth.OnReply(Reply(535, "no")), Step::kFailed);
}

// RFC 4954 section 4: what does not fit into the command line is sent when it is asked for.
TEST(SmtpAuthExchange, ALongPassword) {
  SmtpAuthExchange auth(MakeSaslClient("PLAIN", {"tim", std::string(600, 'p')}, ""));
  EXPECT_EQ(auth.Command(), "AUTH PLAIN\r\n");
  EXPECT_EQ(auth.OnReply(Reply(334, "")), Step::kSend);
  EXPECT_GT(auth.TakeOutput().size(), 800u);
  EXPECT_EQ(auth.OnReply(Reply(235, "")), Step::kDone);
}

TEST(SmtpAuthExchange, NonsenseBreaksItOff) {
  SmtpAuthExchange early(MakeSaslClient("LOGIN", {"tim", "pw"}, ""));
  early.Command();
  EXPECT_EQ(early.OnReply(Reply(235, "so soon")), Step::kBroken);
  EXPECT_EQ(early.problem(), "AUTH: success before the password was given");
  SmtpAuthExchange bad(MakeSaslClient("CRAM-MD5", {"tim", "pw"}, ""));
  bad.Command();
  EXPECT_EQ(bad.OnReply(Reply(334, "***")), Step::kBroken);
  SmtpAuthExchange odd(MakeSaslClient("PLAIN", {"tim", "pw"}, ""));
  odd.Command();
  EXPECT_EQ(odd.OnReply(Reply(354, "go")), Step::kBroken);
  SmtpAuthExchange scram(MakeSaslClient("SCRAM-SHA-256", kPencil, kNonce));
  scram.Command();
  EXPECT_EQ(scram.OnReply(Reply(235, "trust me")), Step::kBroken);
}

}  // namespace
}  // namespace sluice::mail
