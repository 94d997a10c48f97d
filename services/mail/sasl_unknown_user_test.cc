// Proves that a client cannot tell who is a user from what an exchange costs or shows: with a name
// that nobody has, the same hashes are computed as with one of the users, and the challenges have
// the same shape. The work is counted where it is done, in the functions of libcrypt and libcrypto
// themselves, and not timed.
#include <crypt.h>
#include <dlfcn.h>
#include <openssl/hmac.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "services/mail/sasl_server.h"
#include "services/mail/testing/sasl_users.h"

namespace {

// What was computed since the last Reset.
struct Work {
  int crypts = 0;
  std::string crypt_settings;  // method and rounds of the last one
  uint64_t pbkdf2_rounds = 0;
  int hmacs = 0;
  friend bool operator==(const Work&, const Work&) = default;
};
Work& Done() {
  static Work work;
  return work;
}
template <class Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

// Stand before those of the libraries, count, and pass on.
extern "C" {
char* crypt_r(const char* phrase, const char* setting, crypt_data* data) {
  ++Done().crypts;
  Done().crypt_settings = std::string(setting).substr(0, std::string(setting).rfind('$'));
  return Real<char*(const char*, const char*, crypt_data*)>("crypt_r")(phrase, setting, data);
}
int PKCS5_PBKDF2_HMAC(const char* pass, int pass_size, const unsigned char* salt, int salt_size,
                      int rounds, const EVP_MD* digest, int size, unsigned char* out) {
  Done().pbkdf2_rounds += static_cast<uint64_t>(rounds);
  return Real<decltype(PKCS5_PBKDF2_HMAC)>("PKCS5_PBKDF2_HMAC")(pass, pass_size, salt, salt_size,
                                                                rounds, digest, size, out);
}
unsigned char* HMAC(const EVP_MD* digest, const void* key, int key_size, const unsigned char* text,
                    size_t text_size, unsigned char* out, unsigned int* out_size) {
  ++Done().hmacs;
  return Real<decltype(HMAC)>("HMAC")(digest, key, key_size, text, text_size, out, out_size);
}
}

namespace sluice::mail {
namespace {

using Kind = SaslStep::Kind;
using testing::kSesame;

class Users final : public testing::TestSaslUsers {
 public:
  std::shared_ptr<const SaslCredential> AnyLike(Use use, uint64_t number) const override {
    std::vector<std::shared_ptr<const SaslCredential>> able;
    for (const auto& [name, user] : users) {
      if (use == Use::kPassword || (use == Use::kScram && user->serves_scram()) ||
          (use == Use::kCramMd5 && user->serves_cram_md5())) {
        able.push_back(user);
      }
    }
    return able.empty() ? nullptr : able[number % able.size()];
  }
};

SaslCredential Verifier(uint32_t iterations, size_t salt_bytes) {
  SaslCredential credential;
  credential.scram = MakeScramVerifier("sesame", std::string(salt_bytes, 's'), iterations);
  return credential;
}

// What a client sees of an exchange that it fails, and what that cost.
struct Seen {
  Work work;
  std::string shape;  // of the challenges, and how it ended
  friend bool operator==(const Seen&, const Seen&) = default;
  friend bool operator<(const Seen& a, const Seen& b) { return a.shape < b.shape; }
};

class SaslUnknownUserTest : public ::testing::Test {
 protected:
  std::unique_ptr<SaslServer> Make(std::string_view mechanism) const {
    SaslContext context;
    context.users = &users_;
    context.host_name = "mx.test";
    context.nonce = "nonce-of-the-server";
    context.secret = secret_;
    return SaslServer::Make(mechanism, context);
  }
  static SaslStep Finish(SaslServer& server, SaslStep step) {
    return step.kind == Kind::kWork ? server.OnWorkDone(step.work()) : std::move(step);
  }
  Seen Plain(const std::string& user) const {
    auto server = Make("PLAIN");
    Done() = {};
    const bool at_once =
        server->Start(std::string("\0", 1) + user + '\0' + "wrong").kind != Kind::kWork;
    EXPECT_FALSE(at_once);
    server = Make("PLAIN");
    Done() = {};
    const Kind end =
        Finish(*server, server->Start(std::string("\0", 1) + user + '\0' + "wrong")).kind;
    return {Done(), std::to_string(static_cast<int>(end))};
  }
  Seen CramMd5(const std::string& user) const {
    auto server = Make("CRAM-MD5");
    server->Start(std::nullopt);
    Done() = {};
    const Kind end = server->OnResponse(user + " 0123456789abcdef0123456789abcdef").kind;
    return {Done(), std::to_string(static_cast<int>(end))};
  }
  // With a proof of the right size, and wrong.
  Seen Scram(const std::string& user, std::string* salt = nullptr) const {
    auto server = Make("SCRAM-SHA-256");
    Done() = {};
    SaslStep first = server->Start("n,,n=" + user + ",r=abcdefghij");
    std::string shape = first.kind == Kind::kWork ? "slow " : "";
    first = Finish(*server, std::move(first));
    const size_t s = first.text.find(",s=") + 3;
    const size_t i = first.text.find(",i=");
    if (salt != nullptr) *salt = first.text.substr(s, i - s);
    shape += std::to_string(i - s) + first.text.substr(i);
    const std::string nonce = first.text.substr(2, s - 5);
    const SaslStep last =
        server->OnResponse("c=biws,r=" + nonce + ",p=" + absl::Base64Escape(std::string(32, 'x')));
    return {Done(), shape + " " + std::to_string(static_cast<int>(last.kind)) + last.text};
  }

  Users users_;
  std::string secret_ = "secret of the process";
};

// One kind of user alone: there is exactly one way to look.
TEST_F(SaslUnknownUserTest, CostsWhatTheOneUserDoes) {
  const std::vector<std::pair<std::string, SaslCredential>> kinds = {
      {"hash", SaslCredential::FromHash(kSesame).value()},
      {"clear", SaslCredential::FromPassword("sesame")},
      {"verifier", Verifier(10'000, 24)}};
  for (const auto& [name, credential] : kinds) {
    SCOPED_TRACE(name);
    users_.users.clear();
    users_.Add("ann", credential);
    EXPECT_EQ(Plain("ann"), Plain("nobody"));
    EXPECT_EQ(CramMd5("ann"), CramMd5("nobody"));
    EXPECT_EQ(Scram("ann"), Scram("nobody"));
  }
  // And the work was seen at all: the last two were of the verifier.
  EXPECT_GT(Scram("ann").work.hmacs, 0);
  EXPECT_EQ(Plain("ann").work.pbkdf2_rounds, 10'000u);
  users_.users.clear();
  users_.Add("ann", kinds[0].second);
  EXPECT_EQ(Plain("nobody").work.crypts, 1);
  EXPECT_EQ(Plain("nobody").work.crypt_settings, "$6$rounds=1000$abcdefgh");
}

// Users of several kinds: names that nobody has are like one or another of them, and every kind
// is among what is seen of such names.
TEST_F(SaslUnknownUserTest, IsLikeOneOrAnotherOfManyKinds) {
  users_.Add("hash", SaslCredential::FromHash(kSesame).value());
  users_.Add("clear", SaslCredential::FromPassword("sesame"));
  users_.Add("few", Verifier(4096, 16));
  users_.Add("many", Verifier(20'000, 12));
  std::set<Seen> able;
  for (const std::string user : {"clear", "few", "many"}) able.insert(Scram(user));
  EXPECT_EQ(able.size(), 3u);
  std::set<Seen> seen;
  for (int i = 0; i < 64; ++i) {
    const std::string nobody = "nobody" + std::to_string(i);
    const Seen first = Scram(nobody);
    EXPECT_EQ(Scram(nobody), first) << "asked again it looks otherwise";
    EXPECT_TRUE(able.contains(first)) << first.shape;
    seen.insert(first);
  }
  EXPECT_EQ(seen.size(), 3u);
  // One who is there, and has nothing that SCRAM could work with, is like somebody who has.
  EXPECT_TRUE(able.contains(Scram("hash")));
  std::set<uint64_t> rounds;
  for (const std::string user : {"hash", "clear", "few", "many"}) {
    rounds.insert(Plain(user).work.pbkdf2_rounds);
  }
  std::set<uint64_t> rounds_of_nobody;
  for (int i = 0; i < 64; ++i) {
    rounds_of_nobody.insert(Plain("nobody" + std::to_string(i)).work.pbkdf2_rounds);
  }
  EXPECT_EQ(rounds_of_nobody, rounds);
}

// A salt is a name's own, the same whenever it is asked for, and nobody else's: of a name that is
// no user's it depends on the secret.
TEST_F(SaslUnknownUserTest, SaltsAreOfTheNameAndTheSecret) {
  users_.Add("many", Verifier(20'000, 12));
  std::string salt;
  std::string again;
  std::string other;
  Scram("nobody", &salt);
  Scram("nobody", &again);
  Scram("somebody", &other);
  EXPECT_EQ(salt, again);
  EXPECT_NE(salt, other);
  secret_ = "of another process";
  Scram("nobody", &again);
  EXPECT_NE(salt, again);
}

// Looking like somebody lets nobody in, not even with that one's password.
TEST_F(SaslUnknownUserTest, NobodyIsLetIn) {
  users_.Add("ann", SaslCredential::FromPassword("sesame"));
  auto server = Make("PLAIN");
  EXPECT_EQ(Finish(*server, server->Start(std::string("\0nobody\0sesame", 14))).kind,
            Kind::kFailure);
  server = Make("PLAIN");
  EXPECT_EQ(Finish(*server, server->Start(std::string("\0ann\0sesame", 11))).kind, Kind::kSuccess);
  server = Make("CRAM-MD5");
  const std::string challenge = server->Start(std::nullopt).text;
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  ASSERT_NE(HMAC(EVP_md5(), "sesame", 6, reinterpret_cast<const unsigned char*>(challenge.data()),
                 challenge.size(), digest, &size),
            nullptr);
  const std::string hex =
      absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
  EXPECT_EQ(server->OnResponse("nobody " + hex).kind, Kind::kFailure);
  server = Make("CRAM-MD5");
  server->Start(std::nullopt);
  EXPECT_EQ(server->OnResponse("ann " + hex).kind, Kind::kSuccess);
}

}  // namespace
}  // namespace sluice::mail
