// Both ends of one exchange, with any names and passwords, and with somebody between them who
// changes a byte: who knows the password comes in, who does not never does, and SCRAM notices every
// change of what it protects. Bytes 0x1D part the texts: the server's user and password, the
// client's.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "services/base/check.h"
#include "services/mail/sasl_client.h"
#include "services/mail/sasl_prep.h"
#include "services/mail/sasl_server.h"

namespace {

using namespace sluice::mail;  // NOLINT: a fuzzer is its own program
using Kind = SaslStep::Kind;

constexpr const char* kMechanisms[] = {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256",
                                       "SCRAM-SHA-256-PLUS"};

class OneUser final : public SaslUsers {
 public:
  OneUser(std::string name, std::string_view password)
      : name_(std::move(name)),
        credential_(
            std::make_shared<const SaslCredential>(SaslCredential::FromPassword(password))) {}
  std::shared_ptr<const SaslCredential> Find(std::string_view name) const override {
    return name == name_ ? credential_ : nullptr;
  }

 private:
  const std::string name_;
  const std::shared_ptr<const SaslCredential> credential_;
};

struct Outcome {
  bool server = false;      // let the client in
  bool client = false;      // is content with the server
  bool protected_ = false;  // the change was one that SCRAM has to notice
};

// `change`: which message is changed (0: none), at which byte, and how.
Outcome Run(SaslServer& server, SaslClient& client, unsigned change, size_t at, char how) {
  Outcome outcome;
  unsigned messages = 0;
  const bool scram = client.name().starts_with("SCRAM");
  const auto pass = [&](std::string text) {
    if (++messages != change || text.empty() || how == 0) return text;
    at %= text.size();
    text[at] = static_cast<char>(text[at] ^ how);
    // What is behind ",p=" and "v=" is base64, whose last character may be written otherwise.
    outcome.protected_ = scram && messages <= 3 && (messages < 3 || at < text.rfind(",p="));
    return text;
  };
  std::optional<std::string> initial = client.InitialResponse();
  if (initial) initial = pass(*std::move(initial));
  SaslStep step = initial ? server.Start(*initial) : server.Start(std::nullopt);
  for (int i = 0; i < 8; ++i) {
    if (step.kind == Kind::kWork) {
      step = server.OnWorkDone(step.work());
    } else if (step.kind == Kind::kChallenge) {
      auto response = client.OnChallenge(pass(step.text));
      if (!response.ok()) return outcome;
      step = server.OnResponse(pass(*std::move(response)));
    } else {
      outcome.server = step.kind == Kind::kSuccess;
      outcome.client = outcome.server && client.OnSuccess().ok();
      return outcome;
    }
  }
  SLUICE_CHECK(false);  // it must have come to an end
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 4 || size > 2000) return 0;
  std::string_view rest(reinterpret_cast<const char*>(data) + 4, size - 4);
  const auto next = [&rest] {
    const size_t end = std::min(rest.find('\x1d'), rest.size());
    const std::string_view text = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return text;
  };
  const std::string_view mechanism = kMechanisms[data[0] % 5];
  const std::optional<std::string> user = AcceptableSaslUser(next());
  const std::string_view password = next();
  const bool same = (data[0] & 128) != 0;  // the client's are the server's
  const std::string client_user = same ? user.value_or("") : std::string(next());
  const std::string client_password(same ? password : next());
  if (!user || password.empty()) return 0;

  SaslChannelBindings bindings;
  if (mechanism.ends_with("PLUS")) bindings.tls_exporter = "what both ends see";
  const OneUser users(*user, password);
  const auto server =
      SaslServer::Make(mechanism, {&users, "mx.test", "server-nonce-18-chars", "s", bindings});
  const auto client =
      MakeSaslClient(mechanism, {client_user, client_password}, "rOprNGfwEbeRWgbNEkqO", bindings);
  const unsigned change = data[1] % 5;
  const Outcome outcome = Run(*server, *client, change, data[2], static_cast<char>(data[3]));

  SLUICE_CHECK(!outcome.client || outcome.server);
  const auto server_form = SaslPrep(password);
  const auto client_form = SaslPrep(client_password);
  const auto client_name = SaslPrep(client_user);
  if (change == 0 || data[3] == 0) {
    const bool knows = server_form && client_form && server_form == client_form &&
                       client_name == user && client_form->size() <= kMaxPasswordBytes &&
                       client_name->size() <= 256;
    if (knows) SLUICE_CHECK(outcome.server && outcome.client);
    if (server_form && client_form && server_form != client_form) SLUICE_CHECK(!outcome.server);
    if (client_name && client_name != user) SLUICE_CHECK(!outcome.server);
  }
  if (outcome.protected_) SLUICE_CHECK(!outcome.client);
  return 0;
}
