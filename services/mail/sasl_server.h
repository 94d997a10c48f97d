// The server's side of one SASL exchange without IO: PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195),
// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677). Responses of the client in, challenges
// and one outcome out. User names and passwords are prepared (sasl_prep.h) before they are
// compared.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "services/mail/sasl_binding.h"
#include "services/mail/sasl_credential.h"

namespace sluice::mail {

// Thread-safety: as its owner says. A result is immutable and shared.
class SaslUsers {
 public:
  virtual ~SaslUsers() = default;
  // nullptr: there is no such user.
  virtual std::shared_ptr<const SaslCredential> Find(std::string_view name) const = 0;
};

// What an exchange needs from outside.
struct SaslContext {
  const SaslUsers* users = nullptr;
  std::string host_name;  // for CRAM-MD5's challenge
  std::string nonce;      // printable, at least 18 characters that nobody can guess; never twice
  // Makes salts of users that do not exist, so that a client cannot tell; the same for a process.
  std::string secret;
  // With any of them SCRAM-SHA-256-PLUS was offered: a client that says it could bind and saw no
  // offer has talked to somebody else (RFC 5802 6), and fails.
  SaslChannelBindings bindings = {};
};

struct SaslStep {
  enum class Kind {
    kChallenge,  // send `text`, feed the response
    kWork,       // run `work` on any thread, then call OnWorkDone with what it returned
    kSuccess,
    kFailure,    // wrong user or password; nothing says which
    kMalformed,  // not what the mechanism wants
  };
  Kind kind = Kind::kMalformed;
  std::string text;
  // Independent of the exchange: it may outlive it.
  absl::AnyInvocable<bool()> work;
};

// Thread-safety: none. Lifetime: one exchange. Failure: after a step that is neither kChallenge nor
// kWork it takes nothing more.
class SaslServer {
 public:
  // nullptr: unknown mechanism. Names are case-insensitive.
  static std::unique_ptr<SaslServer> Make(std::string_view mechanism, SaslContext context);
  virtual ~SaslServer() = default;

  // `initial`: the initial response, where the client sent one (it may be empty).
  virtual SaslStep Start(std::optional<std::string_view> initial) = 0;
  virtual SaslStep OnResponse(std::string_view response) = 0;
  virtual SaslStep OnWorkDone(bool ok) = 0;

  // Who it is, or says to be, prepared; empty until the client has said so.
  const std::string& user() const { return user_; }

 protected:
  std::string user_;
};

// The prepared form of a user name of 1 to 256 bytes; nothing where it has none.
std::optional<std::string> AcceptableSaslUser(std::string_view name);

}  // namespace sluice::mail
