#include "services/mail/sasl_server.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "services/mail/sasl_prep.h"
#include "services/mail/sasl_scram.h"

namespace sluice::mail {
namespace {

using Kind = SaslStep::Kind;

// The slow part of PLAIN and LOGIN. A user that is not there costs as much as a wrong password: the
// credential of somebody who is there is checked in its place, and what comes out is not heeded.
SaslStep CheckPassword(const SaslContext& context, const std::string& user,
                       std::string_view password) {
  static constexpr std::string_view kNobody =
      "$6$rounds=5000$nobodynobody$"
      "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000/";
  SaslStep step;
  step.kind = Kind::kWork;
  step.work = [found = FindSaslUser(context, SaslUsers::Use::kPassword, user),
               text = std::string(password)] {
    if (found.credential != nullptr) {
      const bool matches = PasswordMatches(*found.credential, text);
      return matches && found.known;
    }
    SaslCredential nobody;
    nobody.crypt_hash = kNobody;
    PasswordMatches(nobody, text);
    return false;
  };
  return step;
}

class PlainServer final : public SaslServer {
 public:
  explicit PlainServer(SaslContext context) : context_(std::move(context)) {}

  SaslStep Start(std::optional<std::string_view> initial) override {
    if (initial) return OnResponse(*initial);
    return {Kind::kChallenge, "", nullptr};
  }

  SaslStep OnResponse(std::string_view response) override {
    const size_t first = response.find('\0');
    if (first == std::string_view::npos) return {};
    const size_t second = response.find('\0', first + 1);
    if (second == std::string_view::npos) return {};
    const std::string_view acts_as = response.substr(0, first);
    const auto user = AcceptableSaslUser(response.substr(first + 1, second - first - 1));
    const std::string_view password = response.substr(second + 1);
    if (!user || password.empty() || password.size() > kMaxPasswordBytes) return {};
    user_ = *user;
    // Nobody may act as another user.
    if (!acts_as.empty() && SaslPrep(acts_as) != user) return {Kind::kFailure, "", nullptr};
    return CheckPassword(context_, user_, password);
  }

  SaslStep OnWorkDone(bool ok) override {
    return {ok ? Kind::kSuccess : Kind::kFailure, "", nullptr};
  }

 private:
  const SaslContext context_;
};

// Never a standard (draft-murchison-sasl-login), and what old clients speak.
class LoginServer final : public SaslServer {
 public:
  explicit LoginServer(SaslContext context) : context_(std::move(context)) {}

  SaslStep Start(std::optional<std::string_view> initial) override {
    if (initial && !initial->empty()) return OnResponse(*initial);
    return {Kind::kChallenge, "Username:", nullptr};
  }

  SaslStep OnResponse(std::string_view response) override {
    if (user_.empty()) {
      std::optional<std::string> user = AcceptableSaslUser(response);
      if (!user) return {};
      user_ = *std::move(user);
      return {Kind::kChallenge, "Password:", nullptr};
    }
    if (response.empty() || response.size() > kMaxPasswordBytes) return {};
    return CheckPassword(context_, user_, response);
  }

  SaslStep OnWorkDone(bool ok) override {
    return {ok ? Kind::kSuccess : Kind::kFailure, "", nullptr};
  }

 private:
  const SaslContext context_;
};

class CramMd5Server final : public SaslServer {
 public:
  explicit CramMd5Server(SaslContext context)
      : context_(std::move(context)),
        challenge_("<" + context_.nonce + "@" + context_.host_name + ">") {}

  SaslStep Start(std::optional<std::string_view> initial) override {
    if (initial) return {};
    return {Kind::kChallenge, challenge_, nullptr};
  }

  SaslStep OnResponse(std::string_view response) override {
    const size_t blank = response.rfind(' ');
    if (blank == std::string_view::npos) return {};
    std::optional<std::string> user = AcceptableSaslUser(response.substr(0, blank));
    if (!user) return {};
    user_ = *std::move(user);
    const SaslFound found = FindSaslUser(context_, SaslUsers::Use::kCramMd5, user_);
    const std::string key = found.credential != nullptr
                                ? found.credential->password
                                : SaslSecretBytes(context_, "password", user_, 16);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    if (HMAC(EVP_md5(), key.data(), static_cast<int>(key.size()),
             reinterpret_cast<const unsigned char*>(challenge_.data()), challenge_.size(), digest,
             &size) == nullptr) {
      return {Kind::kFailure, "", nullptr};
    }
    const std::string expected =
        absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(digest), size));
    const bool equal = SecretsEqual(expected, response.substr(blank + 1));
    return {equal && found.known ? Kind::kSuccess : Kind::kFailure, "", nullptr};
  }

  SaslStep OnWorkDone(bool) override { return {}; }

 private:
  const SaslContext context_;
  const std::string challenge_;
};

}  // namespace

std::optional<std::string> AcceptableSaslUser(std::string_view name) {
  if (name.size() > 256) return std::nullopt;
  return SaslPrep(name);
}

std::string SaslSecretBytes(const SaslContext& context, std::string_view what,
                            const std::string& user, size_t size) {
  std::string bytes;
  std::string label(what);
  label.push_back('\0');
  label += user;
  while (bytes.size() < size) bytes += HmacSha256(context.secret, label + '\0' + bytes);
  bytes.resize(size);
  return bytes;
}

SaslFound FindSaslUser(const SaslContext& context, SaslUsers::Use use, const std::string& user) {
  // Both are looked up, so that this costs the same whoever is asked for.
  const std::string number = SaslSecretBytes(context, "like", user, sizeof(uint64_t));
  uint64_t like = 0;
  for (char c : number) like = like << 8 | static_cast<unsigned char>(c);
  std::shared_ptr<const SaslCredential> other = context.users->AnyLike(use, like);
  std::shared_ptr<const SaslCredential> own = context.users->Find(user);
  const bool serves = own != nullptr && (use == SaslUsers::Use::kScram     ? own->serves_scram()
                                         : use == SaslUsers::Use::kCramMd5 ? own->serves_cram_md5()
                                                                           : true);
  return serves ? SaslFound{std::move(own), true} : SaslFound{std::move(other), false};
}

std::unique_ptr<SaslServer> SaslServer::Make(std::string_view mechanism, SaslContext context) {
  const auto is = [&](absl::string_view name) {
    return absl::EqualsIgnoreCase(absl::string_view(mechanism.data(), mechanism.size()), name);
  };
  if (is("PLAIN")) return std::make_unique<PlainServer>(std::move(context));
  if (is("LOGIN")) return std::make_unique<LoginServer>(std::move(context));
  if (is("CRAM-MD5")) return std::make_unique<CramMd5Server>(std::move(context));
  if (is("SCRAM-SHA-256")) return MakeScramServer(std::move(context), false);
  if (is("SCRAM-SHA-256-PLUS") && context.bindings.any()) {
    return MakeScramServer(std::move(context), true);
  }
  return nullptr;
}

}  // namespace sluice::mail
