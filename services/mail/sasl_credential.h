// What a server knows of a user's password, and the check of one against it. A credential is text
// as it stands in a file:
//   a crypt(5) hash ("$6$...", "$y$...", "$2b$...")            serves PLAIN and LOGIN
//   "SCRAM-SHA-256$iterations:salt$storedkey:serverkey" (RFC 5803)  those and SCRAM-SHA-256
//   the password itself, where the owner says that it is one         those and CRAM-MD5
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::mail {

// RFC 5802 3: what a SCRAM server keeps of a password.
struct ScramVerifier {
  uint32_t iterations = 0;
  std::string salt;
  std::string stored_key;  // 32 bytes
  std::string server_key;  // 32 bytes
};

inline constexpr uint32_t kMinScramIterations = 4096;
// More would hold a thread for seconds.
inline constexpr uint32_t kMaxScramIterations = 1'000'000;
inline constexpr size_t kMaxPasswordBytes = 1024;

// Thread-safety: immutable. Never shown, logged or compared but in constant time.
struct SaslCredential {
  // One of the three.
  std::string password;  // prepared (sasl_prep.h), where that can be
  std::string crypt_hash;
  std::optional<ScramVerifier> scram;

  // Nothing where `text` is neither a hash that crypt(3) could have made nor a SCRAM verifier.
  static std::optional<SaslCredential> FromHash(std::string_view text);
  static SaslCredential FromPassword(std::string_view password);

  bool serves_scram() const { return scram.has_value() || !password.empty(); }
  bool serves_cram_md5() const { return !password.empty(); }
};

// `password` as the client sent it; one that SASLprep refuses matches nothing (RFC 4616 2). Where
// it looks otherwise when prepared, a crypt hash may be of either form: the tools that make them do
// not prepare. Slow, on purpose, but with a credential that is the password itself: not for an
// event loop. Any thread.
bool PasswordMatches(const SaslCredential& credential, std::string_view password);

// `password` is prepared. Slow: `iterations` rounds of HMAC. Any thread.
ScramVerifier MakeScramVerifier(std::string_view password, std::string_view salt,
                                uint32_t iterations);

std::string HmacSha256(std::string_view key, std::string_view data);
std::string Sha256(std::string_view data);
// In constant time for texts of one length.
bool SecretsEqual(std::string_view a, std::string_view b);

}  // namespace sluice::mail
