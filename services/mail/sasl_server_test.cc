// Proves that the mechanisms let in who knows the password and nobody else, by the examples of
// their RFCs where there are any, and that malformed responses end the exchange.
#include "services/mail/sasl_server.h"

#include <crypt.h>
#include <openssl/evp.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "services/mail/testing/sasl_users.h"

namespace sluice::mail {
namespace {

using Kind = SaslStep::Kind;
using testing::kSesame;

class SaslServerTest : public ::testing::Test {
 protected:
  SaslServerTest() {
    users_.Add("hash", SaslCredential::FromHash(kSesame).value());
    users_.Add("clear", SaslCredential::FromPassword("sesame"));
  }

  void Begin(std::string_view mechanism, std::string nonce = "nonce-of-the-server") {
    server_ = SaslServer::Make(mechanism, {&users_, "mx.test", std::move(nonce), "secret"});
    ASSERT_NE(server_, nullptr);
  }
  // With the work done.
  SaslStep Finish(SaslStep step) {
    if (step.kind != Kind::kWork) return step;
    return server_->OnWorkDone(step.work());
  }
  Kind Plain(const std::string& response) {
    Begin("PLAIN");
    return Finish(server_->Start(response)).kind;
  }

  testing::TestSaslUsers users_;
  std::unique_ptr<SaslServer> server_;
};

std::string Nul(std::string text) {
  for (char& c : text) {
    if (c == '|') c = '\0';
  }
  return text;
}

TEST_F(SaslServerTest, Plain) {
  EXPECT_EQ(Plain(Nul("|hash|sesame")), Kind::kSuccess);
  EXPECT_EQ(server_->user(), "hash");
  EXPECT_EQ(Plain(Nul("hash|hash|sesame")), Kind::kSuccess);
  EXPECT_EQ(Plain(Nul("|clear|sesame")), Kind::kSuccess);
  EXPECT_EQ(Plain(Nul("clear|hash|sesame")), Kind::kFailure);
  EXPECT_EQ(Plain(Nul("|hash|sesam")), Kind::kFailure);
  EXPECT_EQ(Plain(Nul("|clear|sesame2")), Kind::kFailure);
  EXPECT_EQ(Plain(Nul("|nobody|sesame")), Kind::kFailure);
  EXPECT_EQ(Plain(Nul("|hash|sesame|x")), Kind::kFailure);
  EXPECT_EQ(Plain(Nul("|hash|")), Kind::kMalformed);
  EXPECT_EQ(Plain(Nul("||sesame")), Kind::kMalformed);
  EXPECT_EQ(Plain(Nul("|ha\nsh|sesame")), Kind::kMalformed);
  EXPECT_EQ(Plain("sesame"), Kind::kMalformed);
  EXPECT_EQ(Plain(""), Kind::kMalformed);
  EXPECT_EQ(Plain(Nul("|hash|") + std::string(2000, 'x')), Kind::kMalformed);
  Begin("plain");
  const SaslStep step = server_->Start(std::nullopt);
  EXPECT_EQ(step.kind, Kind::kChallenge);
  EXPECT_EQ(step.text, "");
}

TEST_F(SaslServerTest, Login) {
  Begin("LOGIN");
  SaslStep step = server_->Start(std::nullopt);
  EXPECT_EQ(step.text, "Username:");
  step = server_->OnResponse("hash");
  EXPECT_EQ(step.text, "Password:");
  EXPECT_EQ(Finish(server_->OnResponse("sesame")).kind, Kind::kSuccess);
  Begin("LOGIN");
  EXPECT_EQ(server_->Start("hash").text, "Password:");
  EXPECT_EQ(Finish(server_->OnResponse("wrong")).kind, Kind::kFailure);
  Begin("LOGIN");
  EXPECT_EQ(server_->Start("hash").text, "Password:");
  EXPECT_EQ(server_->OnResponse("").kind, Kind::kMalformed);
}

// RFC 2195 2.
TEST_F(SaslServerTest, CramMd5) {
  users_.Add("tim", SaslCredential::FromPassword("tanstaaftanstaaf"));
  const auto answer = [&](std::string_view response) {
    server_ =
        SaslServer::Make("CRAM-MD5", {&users_, "postoffice.reston.mci.net", "1896.697170952", "s"});
    EXPECT_EQ(server_->Start(std::nullopt).text, "<1896.697170952@postoffice.reston.mci.net>");
    return server_->OnResponse(response).kind;
  };
  EXPECT_EQ(answer("tim b913a602c7eda7a495b4e6e7334d3890"), Kind::kSuccess);
  EXPECT_EQ(answer("tim b913a602c7eda7a495b4e6e7334d3891"), Kind::kFailure);
  EXPECT_EQ(answer("nobody b913a602c7eda7a495b4e6e7334d3890"), Kind::kFailure);
  EXPECT_EQ(answer("hash b913a602c7eda7a495b4e6e7334d3890"), Kind::kFailure);
  EXPECT_EQ(answer("tim"), Kind::kMalformed);
  Begin("CRAM-MD5");
  EXPECT_EQ(server_->Start("tim").kind, Kind::kMalformed);
}

// RFC 7677 3.
constexpr char kRfcUser[] =
    "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
    "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
constexpr char kServerNonce[] = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

class ScramTest : public SaslServerTest {
 protected:
  void SetUp() override { users_.Add("user", SaslCredential::FromHash(kRfcUser).value()); }
  Kind Final(std::string_view first, std::string_view final) {
    Begin("SCRAM-SHA-256", kServerNonce);
    EXPECT_EQ(Finish(server_->Start(first)).kind, Kind::kChallenge);
    return server_->OnResponse(final).kind;
  }
};

constexpr char kFirst[] = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
constexpr char kFinal[] =
    "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
    "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

TEST_F(ScramTest, ExampleOfTheRfc) {
  Begin("SCRAM-SHA-256", kServerNonce);
  SaslStep step = server_->Start(kFirst);
  EXPECT_EQ(
      step.text,
      "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
  step = server_->OnResponse(kFinal);
  EXPECT_EQ(step.text, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
  EXPECT_EQ(server_->OnResponse("").kind, Kind::kSuccess);
  EXPECT_EQ(server_->user(), "user");
}

TEST_F(ScramTest, TheVerifierComesFromThePassword) {
  const SaslCredential credential = SaslCredential::FromHash(kRfcUser).value();
  EXPECT_TRUE(PasswordMatches(credential, "pencil"));
  EXPECT_FALSE(PasswordMatches(credential, "pencils"));
  const ScramVerifier made = MakeScramVerifier("pencil", credential.scram->salt, 4096);
  EXPECT_EQ(made.server_key, credential.scram->server_key);
}

TEST_F(ScramTest, WrongProofsAndUsers) {
  std::string wrong = kFinal;
  wrong[wrong.size() - 2] = wrong[wrong.size() - 2] == 'Q' ? 'A' : 'Q';
  wrong[wrong.size() - 5] = 'A';
  EXPECT_EQ(Final(kFirst, wrong), Kind::kFailure);
  // Nobody by that name: a salt comes all the same, and it stays the same.
  Begin("SCRAM-SHA-256", kServerNonce);
  const std::string challenge = server_->Start("n,,n=nobody,r=abc").text;
  Begin("SCRAM-SHA-256", kServerNonce);
  EXPECT_EQ(server_->Start("n,,n=nobody,r=abc").text, challenge);
  EXPECT_NE(challenge.find(",i=4096"), std::string::npos);
  EXPECT_EQ(Final("n,,n=hash,r=rOprNGfwEbeRWgbNEkqO", kFinal), Kind::kFailure);
}

TEST_F(ScramTest, PasswordInClearMakesItsVerifier) {
  Begin("SCRAM-SHA-256", kServerNonce);
  const SaslStep step = Finish(server_->Start("n,,n=clear,r=abc"));
  ASSERT_EQ(step.kind, Kind::kChallenge);
  EXPECT_NE(step.text.find("r=abc%hvY"), std::string::npos);
}

TEST_F(ScramTest, MalformedMessages) {
  for (const char* first : {"", "x", "n", "n,", "n,,", "n,,n=user", "n,,r=abc",
                            "p=tls-unique,,n=user,r=abc", "n,,n=us=er,r=abc", "n,,n=user,r=",
                            "n,,m=ext,n=user,r=abc", "n,,n=,r=abc", "n,,n=a\x01,r=b"}) {
    Begin("SCRAM-SHA-256", kServerNonce);
    const Kind kind = server_->Start(std::nullopt).kind;
    EXPECT_EQ(kind, Kind::kChallenge);
    EXPECT_EQ(Finish(server_->OnResponse(first)).kind, Kind::kMalformed) << first;
    EXPECT_EQ(server_->OnResponse(kFinal).kind, Kind::kMalformed);
  }
  Begin("SCRAM-SHA-256", kServerNonce);
  EXPECT_EQ(server_->Start("n,a=other,n=user,r=x").kind, Kind::kFailure);
  for (const char* final : {"", "c=biws", "c=biws,r=x", "c=eSws,r=x,p=AAAA", "c=biws,r=x,p=?"}) {
    EXPECT_EQ(Final(kFirst, final), Kind::kMalformed) << final;
  }
  EXPECT_EQ(Final(kFirst, "c=biws,r=x,p=AAAA"), Kind::kFailure);
}

// A client that binds its exchange to a connection.
class ScramPlusTest : public ScramTest {
 protected:
  // How the exchange ends whose first message has `flag`, and whose client sees `binding`.
  Kind Run(std::string_view mechanism, const std::string& flag, const std::string& binding) {
    server_ = SaslServer::Make(mechanism, {&users_, "mx.test", kServerNonce, "secret", bindings_});
    if (server_ == nullptr) return Kind::kMalformed;
    const std::string bare = "n=user,r=abc";
    const SaslStep step = Finish(server_->Start(flag + ",," + bare));
    if (step.kind != Kind::kChallenge) return step.kind;
    const std::string without_proof =
        "c=" + absl::Base64Escape(flag + ",," + binding) + ",r=abc" + kServerNonce;
    unsigned char salted[32];
    const std::string salt = SaslCredential::FromHash(kRfcUser)->scram->salt;
    PKCS5_PBKDF2_HMAC("pencil", 6, reinterpret_cast<const unsigned char*>(salt.data()),
                      static_cast<int>(salt.size()), 4096, EVP_sha256(), 32, salted);
    const std::string key =
        HmacSha256({reinterpret_cast<const char*>(salted), sizeof salted}, "Client Key");
    std::string proof = HmacSha256(Sha256(key), bare + "," + step.text + "," + without_proof);
    for (size_t i = 0; i < proof.size(); ++i) proof[i] = static_cast<char>(proof[i] ^ key[i]);
    const SaslStep last = server_->OnResponse(without_proof + ",p=" + absl::Base64Escape(proof));
    return last.kind == Kind::kChallenge ? server_->OnResponse("").kind : last.kind;
  }
  SaslChannelBindings bindings_{"exported", "of the certificate"};
};

TEST_F(ScramPlusTest, BindsToWhatBothEndsSee) {
  const auto plus = [&](const std::string& flag, const std::string& binding) {
    return Run("SCRAM-SHA-256-PLUS", flag, binding);
  };
  EXPECT_EQ(plus("p=tls-exporter", "exported"), Kind::kSuccess);
  EXPECT_EQ(plus("p=tls-server-end-point", "of the certificate"), Kind::kSuccess);
  // Who stands in between has a connection of its own.
  EXPECT_EQ(plus("p=tls-exporter", "another"), Kind::kFailure);
  EXPECT_EQ(plus("p=tls-exporter", "of the certificate"), Kind::kFailure);
  EXPECT_EQ(plus("p=tls-exporter", ""), Kind::kFailure);
  for (const char* flag : {"p=tls-unique", "p=", "p=tls-exporter ", "n", "y", "p"}) {
    EXPECT_EQ(plus(flag, "exported"), Kind::kMalformed) << flag;
  }
  bindings_.tls_server_end_point.clear();
  EXPECT_EQ(plus("p=tls-server-end-point", ""), Kind::kMalformed);
  EXPECT_EQ(plus("p=tls-exporter", "exported"), Kind::kSuccess);
}

TEST_F(ScramPlusTest, AnOfferThatSomebodyTookOutIsNoticed) {
  EXPECT_EQ(Run("SCRAM-SHA-256", "n", ""), Kind::kSuccess);
  EXPECT_EQ(Run("SCRAM-SHA-256", "y", ""), Kind::kFailure);
  EXPECT_EQ(Run("SCRAM-SHA-256", "p=tls-exporter", "exported"), Kind::kMalformed);
  bindings_ = {};
  EXPECT_EQ(Run("SCRAM-SHA-256", "y", ""), Kind::kSuccess);
  EXPECT_EQ(SaslServer::Make("SCRAM-SHA-256-PLUS", {&users_, "h", "n", "s", bindings_}), nullptr);
}

// RFC 4616 2, RFC 5802 5.1.
TEST_F(SaslServerTest, NamesAndPasswordsArePrepared) {
  users_.Add("Zo\xC3\xAB", SaslCredential::FromPassword("caf\xC3\xA9"));
  EXPECT_EQ(Plain(Nul("|Zoe\xCC\x88|cafe\xCC\x81")), Kind::kSuccess);
  EXPECT_EQ(server_->user(), "Zo\xC3\xAB");
  EXPECT_EQ(Plain(Nul("Zo\xC3\xAB|Zoe\xCC\x88|caf\xC3\xA9")), Kind::kSuccess);
  EXPECT_EQ(Plain(Nul("|Zo\xC3\xAB|cafe")), Kind::kFailure);
  EXPECT_EQ(Plain(Nul("|Zo\xC3\xAB|caf\xE9")), Kind::kFailure);  // not UTF-8
  EXPECT_EQ(Plain(Nul("|Zo\xEB|caf\xC3\xA9")), Kind::kMalformed);
  Begin("LOGIN");
  EXPECT_EQ(server_->Start("Zoe\xCC\x88").text, "Password:");
  EXPECT_EQ(Finish(server_->OnResponse("cafe\xCC\x81")).kind, Kind::kSuccess);
  Begin("SCRAM-SHA-256");
  EXPECT_EQ(Finish(server_->Start("n,,n=Zoe\xCC\x88,r=abc")).kind, Kind::kChallenge);
  EXPECT_EQ(server_->user(), "Zo\xC3\xAB");
  // A crypt hash of either form counts: what made it may have prepared nothing.
  for (const char* hashed : {"\xE2\x85\xA8", "IX"}) {
    const auto data = std::make_unique<crypt_data>();
    const char* const hash = crypt_r(hashed, "$6$rounds=1000$abcdefgh$", data.get());
    users_.Add("h", SaslCredential::FromHash(hash).value());
    EXPECT_EQ(Plain(Nul("|h|\xE2\x85\xA8")), Kind::kSuccess) << hashed;
  }
}

TEST(SaslCredentialTest, WhatIsAHash) {
  EXPECT_TRUE(SaslCredential::FromHash(kSesame));
  EXPECT_TRUE(SaslCredential::FromHash(kRfcUser));
  for (const char* text :
       {"", "sesame", "$", "$9$x", "ab12345678901", "SCRAM-SHA-256$",
        "SCRAM-SHA-256$1:AAAA$AAAA:AAAA", "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA", "{SHA}AAAA"}) {
    EXPECT_FALSE(SaslCredential::FromHash(text)) << text;
  }
  const SaslCredential hash = SaslCredential::FromHash(kSesame).value();
  EXPECT_TRUE(PasswordMatches(hash, "sesame"));
  EXPECT_FALSE(PasswordMatches(hash, std::string_view("sesame\0x", 8)));
  EXPECT_FALSE(hash.serves_scram());
  EXPECT_FALSE(hash.serves_cram_md5());
}

TEST(SaslServer, UnknownMechanism) {
  testing::TestSaslUsers users;
  EXPECT_EQ(SaslServer::Make("GSSAPI", {&users, "h", "n", "s"}), nullptr);
  EXPECT_EQ(SaslServer::Make("", {&users, "h", "n", "s"}), nullptr);
}

}  // namespace
}  // namespace sluice::mail
