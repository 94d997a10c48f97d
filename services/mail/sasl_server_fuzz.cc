// Any responses to any mechanism: no exchange ends in success, as the secrets are not in them, and
// every one ends.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "services/base/check.h"
#include "services/mail/sasl_server.h"

namespace {

using sluice::mail::SaslCredential;
using sluice::mail::SaslServer;
using sluice::mail::SaslStep;
using Kind = SaslStep::Kind;

class Users final : public sluice::mail::SaslUsers {
 public:
  std::shared_ptr<const SaslCredential> Find(std::string_view name) const override {
    if (name != "user") return nullptr;
    static const auto* const credential = new std::shared_ptr<const SaslCredential>(
        std::make_shared<SaslCredential>(SaslCredential::FromPassword("no fuzzer finds: 7Jq/w2")));
    return *credential;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static constexpr const char* kMechanisms[] = {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256"};
  const Users users;
  // Bit 8: over a connection to bind to, and bit 16: with the mechanism that does.
  sluice::mail::SaslChannelBindings bindings;
  if ((data[0] & 8) != 0) bindings = {"exported", "of the certificate"};
  const bool plus = (data[0] & 24) == 24;
  const auto server = SaslServer::Make(plus ? "SCRAM-SHA-256-PLUS" : kMechanisms[data[0] % 4],
                                       {&users, "h", "nonce", "secret", std::move(bindings)});
  std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto next = [&] {
    const size_t end = rest.find('\n');
    const std::string_view response = rest.substr(0, end);
    rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
    return response;
  };
  SaslStep step = (data[0] & 4) != 0 ? server->Start(std::nullopt) : server->Start(next());
  for (int i = 0; i < 5; ++i) {
    if (step.kind == Kind::kWork) {
      // The password check of a user that is not there is slow, and has a test.
      if (server->user() != "user") return 0;
      step = server->OnWorkDone(step.work());
      continue;
    }
    SLUICE_CHECK(step.kind != Kind::kSuccess);
    if (step.kind != Kind::kChallenge) return 0;
    step = server->OnResponse(next());
  }
  SLUICE_CHECK(step.kind != Kind::kChallenge && step.kind != Kind::kWork);
  return 0;
}
