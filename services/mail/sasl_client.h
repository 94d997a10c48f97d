// The client's side of SASL as SMTP AUTH uses it (RFC 4954): PLAIN (RFC 4616), LOGIN, CRAM-MD5
// (RFC 2195), SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677). Challenges in, responses
// out, without base64.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/mail/sasl_binding.h"

namespace sluice::mail {

struct SaslCredentials {
  std::string username;
  std::string password;
};

// One exchange. Thread-safety: none.
class SaslClient {
 public:
  virtual ~SaslClient() = default;
  // As in EHLO: "SCRAM-SHA-256".
  virtual std::string_view name() const = 0;
  // What goes with the AUTH command; nothing where the server speaks first.
  virtual std::optional<std::string> InitialResponse() = 0;
  // The answer to a challenge. INVALID_ARGUMENT, with words for people: the server's part makes no
  // sense, or it does not know the password; the exchange must be broken off.
  virtual absl::StatusOr<std::string> OnChallenge(std::string_view challenge) = 0;
  // The server says that it is done. Not OK where it had yet to prove that it knows the password.
  virtual absl::Status OnSuccess() = 0;
};

// Challenges of a server are bounded in this, and so is the work that they may ask for.
inline constexpr int kMaxServerScramIterations = 200'000;
// RFC 7677 section 4. Fewer would let a false server guess passwords from the answer cheaply.
inline constexpr int kMinServerScramIterations = 4096;

// The strongest mechanism that the server has: SCRAM-SHA-256-PLUS where there is a channel binding,
// SCRAM-SHA-256, CRAM-MD5, then PLAIN and LOGIN, which show the password and are taken only with
// `may_show_password`. nullptr where there is none. `offered`: upper case, as the server said over
// the channel that `bindings` are of. `nonce`: for SCRAM; at least 18 printable characters without
// a comma, never used before.
std::unique_ptr<SaslClient> ChooseSaslClient(std::span<const std::string> offered,
                                             const SaslCredentials& credentials,
                                             bool may_show_password, std::string nonce,
                                             SaslChannelBindings bindings = {});

// By name, upper case; nullptr for an unknown one. SCRAM-SHA-256-PLUS binds to tls-exporter, else
// to tls-server-end-point; without either there is no such mechanism. SCRAM-SHA-256 with bindings
// says that they could have been used: a server that had offered them then knows that somebody
// changed its offer (RFC 5802 section 6). User name and password are prepared (sasl_prep.h), and go
// as they are where they cannot be.
std::unique_ptr<SaslClient> MakeSaslClient(std::string_view mechanism,
                                           const SaslCredentials& credentials, std::string nonce,
                                           SaslChannelBindings bindings = {});

}  // namespace sluice::mail
