#include "services/mail/sasl_scram.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"

namespace sluice::mail {
namespace {

using Kind = SaslStep::Kind;

// Of users whose password is known in clear, and of nobody where nobody can do SCRAM.
constexpr uint32_t kIterations = kMinScramIterations;
constexpr size_t kSaltBytes = 16;
constexpr size_t kKeyBytes = 32;
constexpr size_t kMaxNonceBytes = 256;

std::string ToBase64(std::string_view bytes) {
  return absl::Base64Escape(absl::string_view(bytes.data(), bytes.size()));
}

// "=2C" and "=3D" stand for "," and "=", and no other "=" may be there.
std::optional<std::string> DecodeName(std::string_view text) {
  std::string name;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '=') {
      name += text[i];
      continue;
    }
    const std::string_view code = text.substr(i, 3);
    if (code == "=2C") {
      name += ',';
    } else if (code == "=3D") {
      name += '=';
    } else {
      return std::nullopt;
    }
    i += 2;
  }
  return name;
}

// Takes "x=value," or "x=value" at the end from the front.
std::optional<std::string_view> Take(std::string_view& text, char name) {
  if (text.size() < 2 || text[0] != name || text[1] != '=') return std::nullopt;
  const size_t comma = text.find(',');
  const std::string_view value = text.substr(2, comma == text.npos ? text.npos : comma - 2);
  text.remove_prefix(comma == text.npos ? text.size() : comma + 1);
  return value;
}

class ScramServer final : public SaslServer {
 public:
  ScramServer(SaslContext context, bool plus) : context_(std::move(context)), plus_(plus) {}

  SaslStep Start(std::optional<std::string_view> initial) override {
    if (initial && !initial->empty()) return OnResponse(*initial);
    return {Kind::kChallenge, "", nullptr};
  }

  SaslStep OnResponse(std::string_view response) override {
    switch (stage_) {
      case Stage::kFirst:
        return OnFirst(response);
      case Stage::kFinal:
        return OnFinal(response);
      case Stage::kConfirm:
        // The client has our signature, and nothing to add.
        stage_ = Stage::kOver;
        return {response.empty() ? Kind::kSuccess : Kind::kMalformed, "", nullptr};
      case Stage::kOver:
        break;
    }
    return {};
  }

  SaslStep OnWorkDone(bool) override {
    verifier_ = *made_;
    return Challenge();
  }

 private:
  enum class Stage { kFirst, kFinal, kConfirm, kOver };

  SaslStep OnFirst(std::string_view message) {
    stage_ = Stage::kOver;
    const size_t flag = message.find(',');
    if (flag == std::string_view::npos) return {};
    const size_t header = message.find(',', flag + 1);
    if (header == std::string_view::npos) return {};
    if (const Kind bound = Bind(message.substr(0, flag)); bound != Kind::kSuccess) {
      return {bound, "", nullptr};
    }
    const std::string_view acts_as = message.substr(flag + 1, header - flag - 1);
    gs2_header_ = message.substr(0, header + 1);
    std::string_view rest = message.substr(header + 1);
    client_first_bare_ = rest;
    const std::optional<std::string_view> name = Take(rest, 'n');
    const std::optional<std::string_view> nonce = Take(rest, 'r');
    if (!name || !nonce || nonce->empty() || nonce->size() > kMaxNonceBytes ||
        !std::all_of(nonce->begin(), nonce->end(), [](char c) { return c > ' ' && c <= '~'; })) {
      return {};
    }
    const std::optional<std::string> decoded = DecodeName(*name);
    if (!decoded) return {};
    std::optional<std::string> user = AcceptableSaslUser(*decoded);
    if (!user) return {};
    user_ = *std::move(user);
    if (!acts_as.empty() && acts_as != "a=" + std::string(*name)) {
      return {Kind::kFailure, "", nullptr};
    }
    nonce_ = std::string(*nonce) + context_.nonce;
    const SaslFound found = FindSaslUser(context_, SaslUsers::Use::kScram, user_);
    known_ = found.known;
    if (found.credential == nullptr || found.credential->scram) {
      const ScramVerifier own =
          found.credential != nullptr ? *found.credential->scram : ScramVerifier();
      const ScramVerifier nobodys = Nobodys(own);  // made for everybody: it costs the same
      verifier_ = known_ ? own : nobodys;
      return Challenge();
    }
    // A password in clear: the same is done with somebody else's, and leads nowhere (known_).
    made_ = std::make_shared<ScramVerifier>();
    SaslStep step;
    step.kind = Kind::kWork;
    step.work = [made = made_, credential = found.credential,
                 salt = SaslSecretBytes(context_, "salt", user_, kSaltBytes)] {
      *made = MakeScramVerifier(credential->password, salt, kIterations);
      return true;
    };
    return step;
  }

  // What a name that nobody has is shown: of the shape of `like`, and nothing else of it.
  ScramVerifier Nobodys(const ScramVerifier& like) const {
    const size_t salt = like.salt.empty() ? kSaltBytes : like.salt.size();
    const uint32_t iterations = like.iterations == 0 ? kIterations : like.iterations;
    return {iterations, SaslSecretBytes(context_, "salt", user_, salt),
            SaslSecretBytes(context_, "stored", user_, kKeyBytes),
            SaslSecretBytes(context_, "server", user_, kKeyBytes)};
  }

  // Reads the gs2-cbind-flag (RFC 5802 6). kSuccess: the exchange may go on, bound as it says.
  Kind Bind(std::string_view flag) {
    if (!plus_) {
      if (flag == "n") return Kind::kSuccess;
      if (flag != "y") return Kind::kMalformed;
      // It could bind, and believes that we cannot: somebody changed our offer.
      return context_.bindings.any() ? Kind::kFailure : Kind::kSuccess;
    }
    if (flag == "p=tls-exporter") {
      binding_ = context_.bindings.tls_exporter;
    } else if (flag == "p=tls-server-end-point") {
      binding_ = context_.bindings.tls_server_end_point;
    }
    return binding_.empty() ? Kind::kMalformed : Kind::kSuccess;
  }

  SaslStep Challenge() {
    stage_ = Stage::kFinal;
    server_first_ = "r=" + nonce_ + ",s=" + ToBase64(verifier_.salt) +
                    ",i=" + std::to_string(verifier_.iterations);
    return {Kind::kChallenge, server_first_, nullptr};
  }

  SaslStep OnFinal(std::string_view message) {
    stage_ = Stage::kOver;
    const size_t proof_at = message.rfind(",p=");
    if (proof_at == std::string_view::npos) return {};
    const std::string_view without_proof = message.substr(0, proof_at);
    std::string_view rest = without_proof;
    const std::optional<std::string_view> binding = Take(rest, 'c');
    const std::optional<std::string_view> nonce = Take(rest, 'r');
    std::string proof;
    const std::string_view encoded = message.substr(proof_at + 3);
    if (!binding || !nonce || (!plus_ && *binding != ToBase64(gs2_header_)) ||
        !absl::Base64Unescape(absl::string_view(encoded.data(), encoded.size()), &proof)) {
      return {};
    }
    if (*nonce != nonce_ || *binding != ToBase64(gs2_header_ + binding_) ||
        proof.size() != verifier_.stored_key.size()) {
      return {Kind::kFailure, "", nullptr};
    }
    const std::string auth_message =
        client_first_bare_ + "," + server_first_ + "," + std::string(without_proof);
    const std::string signature = HmacSha256(verifier_.stored_key, auth_message);
    std::string client_key(proof.size(), '\0');
    for (size_t i = 0; i < proof.size(); ++i) {
      client_key[i] = static_cast<char>(proof[i] ^ signature[i]);
    }
    const bool proved = SecretsEqual(Sha256(client_key), verifier_.stored_key);
    if (!proved || !known_) return {Kind::kFailure, "", nullptr};
    stage_ = Stage::kConfirm;
    return {Kind::kChallenge, "v=" + ToBase64(HmacSha256(verifier_.server_key, auth_message)),
            nullptr};
  }

  const SaslContext context_;
  const bool plus_;  // with channel binding
  std::string binding_;
  Stage stage_ = Stage::kFirst;
  bool known_ = false;
  std::string gs2_header_;
  std::string client_first_bare_;
  std::string server_first_;
  std::string nonce_;  // both parts
  ScramVerifier verifier_;
  std::shared_ptr<ScramVerifier> made_;  // written by the work
};

}  // namespace

std::unique_ptr<SaslServer> MakeScramServer(SaslContext context, bool plus) {
  return std::make_unique<ScramServer>(std::move(context), plus);
}

}  // namespace sluice::mail
