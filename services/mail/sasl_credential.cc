#include "services/mail/sasl_credential.h"

#include <crypt.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>

#include <charconv>

#include "absl/strings/escaping.h"
#include "services/base/check.h"
#include "services/mail/sasl_prep.h"

namespace sluice::mail {
namespace {

constexpr size_t kKeyBytes = SHA256_DIGEST_LENGTH;
constexpr std::string_view kScramPrefix = "SCRAM-SHA-256$";

const unsigned char* Bytes(std::string_view text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

std::optional<std::string> FromBase64(std::string_view text) {
  std::string bytes;
  if (!absl::Base64Unescape(absl::string_view(text.data(), text.size()), &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

std::optional<ScramVerifier> ParseVerifier(std::string_view text) {
  ScramVerifier verifier;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, verifier.iterations);
  if (error != std::errc() || verifier.iterations < kMinScramIterations ||
      verifier.iterations > kMaxScramIterations || rest == end || *rest != ':') {
    return std::nullopt;
  }
  text = std::string_view(rest + 1, static_cast<size_t>(end - rest - 1));
  const size_t dollar = text.find('$');
  if (dollar == std::string_view::npos) return std::nullopt;
  const size_t colon = text.find(':', dollar);
  if (colon == std::string_view::npos) return std::nullopt;
  std::optional<std::string> salt = FromBase64(text.substr(0, dollar));
  std::optional<std::string> stored = FromBase64(text.substr(dollar + 1, colon - dollar - 1));
  std::optional<std::string> server = FromBase64(text.substr(colon + 1));
  if (!salt || salt->empty() || !stored || stored->size() != kKeyBytes || !server ||
      server->size() != kKeyBytes) {
    return std::nullopt;
  }
  verifier.salt = *std::move(salt);
  verifier.stored_key = *std::move(stored);
  verifier.server_key = *std::move(server);
  return verifier;
}

bool CryptMatches(const std::string& hash, const std::string& password) {
  const auto data = std::make_unique<crypt_data>();
  const char* const made = crypt_r(password.c_str(), hash.c_str(), data.get());
  const bool equal = made != nullptr && made[0] != '*' && SecretsEqual(made, hash);
  OPENSSL_cleanse(data.get(), sizeof(crypt_data));
  return equal;
}

}  // namespace

std::optional<SaslCredential> SaslCredential::FromHash(std::string_view text) {
  SaslCredential credential;
  if (text.starts_with(kScramPrefix)) {
    credential.scram = ParseVerifier(text.substr(kScramPrefix.size()));
    if (!credential.scram) return std::nullopt;
    return credential;
  }
  // The old DES hashes have no "$"; they are worth nothing today.
  if (!text.starts_with('$') || text.size() >= CRYPT_OUTPUT_SIZE) return std::nullopt;
  credential.crypt_hash = text;
  const int salt = crypt_checksalt(credential.crypt_hash.c_str());
  if (salt != CRYPT_SALT_OK && salt != CRYPT_SALT_METHOD_LEGACY) return std::nullopt;
  return credential;
}

SaslCredential SaslCredential::FromPassword(std::string_view password) {
  SaslCredential credential;
  credential.password = SaslPrep(password).value_or(std::string(password));
  return credential;
}

bool PasswordMatches(const SaslCredential& credential, std::string_view password) {
  if (password.size() > kMaxPasswordBytes) return false;
  // Never with a NUL: crypt(3) stops there, so that a text could stand for its beginning.
  const std::optional<std::string> prepared = SaslPrep(password);
  if (!prepared) return false;
  if (!credential.password.empty()) return SecretsEqual(credential.password, *prepared);
  if (credential.scram) {
    const ScramVerifier made =
        MakeScramVerifier(*prepared, credential.scram->salt, credential.scram->iterations);
    return SecretsEqual(made.stored_key, credential.scram->stored_key);
  }
  if (credential.crypt_hash.empty()) return false;
  return CryptMatches(credential.crypt_hash, *prepared) ||
         (*prepared != password && CryptMatches(credential.crypt_hash, std::string(password)));
}

ScramVerifier MakeScramVerifier(std::string_view password, std::string_view salt,
                                uint32_t iterations) {
  unsigned char salted[kKeyBytes];
  SLUICE_CHECK(PKCS5_PBKDF2_HMAC(password.data(), static_cast<int>(password.size()), Bytes(salt),
                                 static_cast<int>(salt.size()), static_cast<int>(iterations),
                                 EVP_sha256(), kKeyBytes, salted) == 1);
  const std::string_view key(reinterpret_cast<const char*>(salted), kKeyBytes);
  ScramVerifier verifier;
  verifier.iterations = iterations;
  verifier.salt = salt;
  verifier.stored_key = Sha256(HmacSha256(key, "Client Key"));
  verifier.server_key = HmacSha256(key, "Server Key");
  OPENSSL_cleanse(salted, sizeof salted);
  return verifier;
}

std::string HmacSha256(std::string_view key, std::string_view data) {
  unsigned char out[kKeyBytes];
  unsigned int size = 0;
  SLUICE_CHECK(HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), Bytes(data),
                    data.size(), out, &size) != nullptr);
  return std::string(reinterpret_cast<const char*>(out), size);
}

std::string Sha256(std::string_view data) {
  unsigned char out[kKeyBytes];
  SHA256(Bytes(data), data.size(), out);
  return std::string(reinterpret_cast<const char*>(out), kKeyBytes);
}

bool SecretsEqual(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace sluice::mail
