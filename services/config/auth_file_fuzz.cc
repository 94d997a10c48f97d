// Any bytes as an auth-plain file: its users, or the line that is wrong, which never says what
// stood there; and whatever was taken can be used by the mechanisms without a crash.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/config/compiler_auth.h"
#include "services/mail/sasl_credential.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  sluice::policy::v1::AuthFileSection section;
  const auto error = sluice::config::ParseAuthFile(text, &section);
  if (error) {
    SLUICE_CHECK(error->line >= 1 && error->line <= static_cast<int>(size) + 1);
    SLUICE_CHECK(error->message.size() < 1000);
  }
  // Services get it from each other.
  sluice::policy::v1::AuthFileSection read;
  SLUICE_CHECK(read.ParseFromString(section.SerializeAsString()));
  if (const auto credential = sluice::mail::SaslCredential::FromHash(text)) {
    SLUICE_CHECK(credential->scram.has_value() != !credential->crypt_hash.empty());
    if (credential->scram) {
      SLUICE_CHECK(credential->scram->stored_key.size() == 32);
      SLUICE_CHECK(credential->scram->server_key.size() == 32);
    }
  }
  return 0;
}
