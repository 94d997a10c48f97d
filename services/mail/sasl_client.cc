#include "services/mail/sasl_client.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/mail/sasl_prep.h"

namespace sluice::mail {
namespace {

constexpr size_t kMaxChallengeBytes = 8 * 1024;
constexpr size_t kSha256Bytes = 32;

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

std::string Hmac(const EVP_MD* digest, std::string_view key, std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> out;
  unsigned size = 0;
  HMAC(digest, key.data(), static_cast<int>(key.size()), Bytes(text), text.size(), out.data(),
       &size);
  return {reinterpret_cast<char*>(out.data()), size};
}

std::string Sha256(std::string_view text) {
  std::array<unsigned char, kSha256Bytes> out;
  EVP_Digest(text.data(), text.size(), out.data(), nullptr, EVP_sha256(), nullptr);
  return {reinterpret_cast<char*>(out.data()), out.size()};
}

absl::Status Broken(const char* what) {
  return absl::InvalidArgumentError(absl::StrCat("AUTH: ", what));
}

class Plain final : public SaslClient {
 public:
  explicit Plain(SaslCredentials credentials) : credentials_(std::move(credentials)) {}
  std::string_view name() const override { return "PLAIN"; }
  std::optional<std::string> InitialResponse() override {
    sent_ = true;
    return absl::StrCat(absl::string_view("\0", 1), credentials_.username,
                        absl::string_view("\0", 1), credentials_.password);
  }
  absl::StatusOr<std::string> OnChallenge(std::string_view) override {
    return Broken("the server asks for more than PLAIN has");
  }
  absl::Status OnSuccess() override {
    return sent_ ? absl::OkStatus() : Broken("success before it began");
  }

 private:
  const SaslCredentials credentials_;
  bool sent_ = false;
};

class Login final : public SaslClient {
 public:
  explicit Login(SaslCredentials credentials) : credentials_(std::move(credentials)) {}
  std::string_view name() const override { return "LOGIN"; }
  std::optional<std::string> InitialResponse() override { return std::nullopt; }
  // The words of the challenges differ between servers; their order does not.
  absl::StatusOr<std::string> OnChallenge(std::string_view) override {
    switch (step_++) {
      case 0:
        return credentials_.username;
      case 1:
        return credentials_.password;
      default:
        return Broken("the server asks for more than LOGIN has");
    }
  }
  absl::Status OnSuccess() override {
    return step_ == 2 ? absl::OkStatus() : Broken("success before the password was given");
  }

 private:
  const SaslCredentials credentials_;
  int step_ = 0;
};

class CramMd5 final : public SaslClient {
 public:
  explicit CramMd5(SaslCredentials credentials) : credentials_(std::move(credentials)) {}
  std::string_view name() const override { return "CRAM-MD5"; }
  std::optional<std::string> InitialResponse() override { return std::nullopt; }
  absl::StatusOr<std::string> OnChallenge(std::string_view challenge) override {
    if (std::exchange(answered_, true)) return Broken("a second CRAM-MD5 challenge");
    return absl::StrCat(credentials_.username, " ",
                        absl::BytesToHexString(Hmac(EVP_md5(), credentials_.password, challenge)));
  }
  absl::Status OnSuccess() override {
    return answered_ ? absl::OkStatus() : Broken("success before the challenge");
  }

 private:
  const SaslCredentials credentials_;
  bool answered_ = false;
};

class Scram final : public SaslClient {
 public:
  // `flag`: gs2-cbind-flag of RFC 5802 section 7. `binding`: what the connection's both ends see;
  // empty: no channel binding.
  Scram(SaslCredentials credentials, std::string nonce, std::string_view flag, std::string binding)
      : credentials_(std::move(credentials)),
        nonce_(std::move(nonce)),
        binding_(std::move(binding)),
        gs2_header_(absl::StrCat(Absl(flag), ",,")) {}
  std::string_view name() const override {
    return binding_.empty() ? "SCRAM-SHA-256" : "SCRAM-SHA-256-PLUS";
  }

  std::optional<std::string> InitialResponse() override {
    const std::string name =
        absl::StrReplaceAll(credentials_.username, {{"=", "=3D"}, {",", "=2C"}});
    first_bare_ = absl::StrCat("n=", name, ",r=", nonce_);
    state_ = State::kFirstSent;
    return absl::StrCat(gs2_header_, first_bare_);
  }

  absl::StatusOr<std::string> OnChallenge(std::string_view challenge) override {
    if (state_ == State::kFirstSent) return OnServerFirst(challenge);
    if (state_ == State::kFinalSent) return OnServerFinal(challenge);
    return Broken("the server asks for more than SCRAM has");
  }

  absl::Status OnSuccess() override {
    if (state_ == State::kVerified) return absl::OkStatus();
    return Broken("the server did not prove that it knows the password");
  }

 private:
  enum class State : uint8_t { kNew, kFirstSent, kFinalSent, kVerified };

  // "r=NONCE,s=SALT,i=COUNT[,EXTENSIONS]" of RFC 5802 section 7.
  absl::StatusOr<std::string> OnServerFirst(std::string_view text) {
    const std::string first(text);
    const std::string_view nonce = TakeField(text, 'r');
    const std::string_view salt_text = TakeField(text, 's');
    const std::string_view count = TakeField(text, 'i');
    if (nonce.size() <= nonce_.size() || !nonce.starts_with(nonce_)) {
      return Broken("the server's SCRAM nonce is not an extension of ours");
    }
    std::string salt;
    if (salt_text.empty() || !absl::Base64Unescape(Absl(salt_text), &salt) || salt.empty()) {
      return Broken("bad SCRAM salt");
    }
    int iterations = 0;
    const auto [stop, error] =
        std::from_chars(count.data(), count.data() + count.size(), iterations);
    if (error != std::errc() || stop != count.data() + count.size() || count.empty() ||
        iterations < kMinServerScramIterations || iterations > kMaxServerScramIterations) {
      return Broken("the SCRAM iteration count is not within 4096 and 200000");
    }
    std::array<unsigned char, kSha256Bytes> salted;
    if (PKCS5_PBKDF2_HMAC(credentials_.password.data(),
                          static_cast<int>(credentials_.password.size()), Bytes(salt),
                          static_cast<int>(salt.size()), iterations, EVP_sha256(),
                          static_cast<int>(salted.size()), salted.data()) != 1) {
      return Broken("PBKDF2 failed");
    }
    const std::string_view key(reinterpret_cast<char*>(salted.data()), salted.size());
    const std::string client_key = Hmac(EVP_sha256(), key, "Client Key");
    const std::string bare =
        absl::StrCat("c=", absl::Base64Escape(gs2_header_ + binding_), ",r=", Absl(nonce));
    const std::string message = absl::StrCat(first_bare_, ",", first, ",", bare);
    std::string proof = Hmac(EVP_sha256(), Sha256(client_key), message);
    for (size_t i = 0; i < proof.size(); ++i) {
      proof[i] = static_cast<char>(proof[i] ^ client_key[i]);
    }
    server_signature_ = Hmac(EVP_sha256(), Hmac(EVP_sha256(), key, "Server Key"), message);
    OPENSSL_cleanse(salted.data(), salted.size());
    state_ = State::kFinalSent;
    return absl::StrCat(bare, ",p=", absl::Base64Escape(proof));
  }

  absl::StatusOr<std::string> OnServerFinal(std::string_view text) {
    if (text.starts_with("e=")) return Broken("the server refused the SCRAM proof");
    std::string signature;
    const std::string_view value = TakeField(text, 'v');
    if (!absl::Base64Unescape(Absl(value), &signature) ||
        signature.size() != server_signature_.size() ||
        CRYPTO_memcmp(signature.data(), server_signature_.data(), signature.size()) != 0) {
      return Broken("the server does not know the password");
    }
    state_ = State::kVerified;
    return std::string();
  }

  // The value of "NAME=..." at the start of `text`, which then begins behind the comma; empty where
  // there is none.
  static std::string_view TakeField(std::string_view& text, char name) {
    if (text.size() < 2 || text[0] != name || text[1] != '=') return {};
    const size_t end = std::min(text.find(','), text.size());
    const std::string_view value = text.substr(2, end - 2);
    text.remove_prefix(std::min(text.size(), end + 1));
    return value;
  }

  const SaslCredentials credentials_;
  const std::string nonce_;
  const std::string binding_;
  const std::string gs2_header_;
  State state_ = State::kNew;
  std::string first_bare_;
  std::string server_signature_;
};

// Bounds what every mechanism is given.
class Bounded final : public SaslClient {
 public:
  explicit Bounded(std::unique_ptr<SaslClient> inner) : inner_(std::move(inner)) {}
  std::string_view name() const override { return inner_->name(); }
  std::optional<std::string> InitialResponse() override { return inner_->InitialResponse(); }
  absl::StatusOr<std::string> OnChallenge(std::string_view challenge) override {
    if (challenge.size() > kMaxChallengeBytes) return Broken("a challenge longer than 8 KiB");
    return inner_->OnChallenge(challenge);
  }
  absl::Status OnSuccess() override { return inner_->OnSuccess(); }

 private:
  const std::unique_ptr<SaslClient> inner_;
};

}  // namespace

std::unique_ptr<SaslClient> MakeSaslClient(std::string_view mechanism, const SaslCredentials& given,
                                           std::string nonce, SaslChannelBindings bindings) {
  const SaslCredentials credentials{SaslPrep(given.username).value_or(given.username),
                                    SaslPrep(given.password).value_or(given.password)};
  std::unique_ptr<SaslClient> made;
  if (mechanism == "PLAIN") {
    made = std::make_unique<Plain>(credentials);
  } else if (mechanism == "LOGIN") {
    made = std::make_unique<Login>(credentials);
  } else if (mechanism == "CRAM-MD5") {
    made = std::make_unique<CramMd5>(credentials);
  } else if (mechanism == "SCRAM-SHA-256") {
    made = std::make_unique<Scram>(credentials, std::move(nonce), bindings.any() ? "y" : "n", "");
  } else if (mechanism == "SCRAM-SHA-256-PLUS" && !bindings.tls_exporter.empty()) {
    made = std::make_unique<Scram>(credentials, std::move(nonce), "p=tls-exporter",
                                   std::move(bindings.tls_exporter));
  } else if (mechanism == "SCRAM-SHA-256-PLUS" && !bindings.tls_server_end_point.empty()) {
    made = std::make_unique<Scram>(credentials, std::move(nonce), "p=tls-server-end-point",
                                   std::move(bindings.tls_server_end_point));
  } else {
    return nullptr;
  }
  return std::make_unique<Bounded>(std::move(made));
}

std::unique_ptr<SaslClient> ChooseSaslClient(std::span<const std::string> offered,
                                             const SaslCredentials& credentials,
                                             bool may_show_password, std::string nonce,
                                             SaslChannelBindings bindings) {
  const auto has = [&](std::string_view name) {
    return std::find(offered.begin(), offered.end(), name) != offered.end();
  };
  constexpr std::string_view kPlus = "SCRAM-SHA-256-PLUS";
  if (has(kPlus) && bindings.any()) {
    return MakeSaslClient(kPlus, credentials, std::move(nonce), std::move(bindings));
  }
  for (std::string_view name : {"SCRAM-SHA-256", "CRAM-MD5"}) {
    if (has(name)) return MakeSaslClient(name, credentials, std::move(nonce), std::move(bindings));
  }
  if (!may_show_password) return nullptr;
  for (std::string_view name : {"PLAIN", "LOGIN"}) {
    if (has(name)) return MakeSaslClient(name, credentials, std::move(nonce));
  }
  return nullptr;
}

}  // namespace sluice::mail
