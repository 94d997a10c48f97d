// The server's side of one SASL exchange without IO: PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195),
// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677). Responses of the client in, challenges
// and one outcome out. User names and passwords are prepared (sasl_prep.h) before they are
// compared.
#pragma once

#include <cstddef>
#include <cstdint>
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
  // What a credential is to serve.
  enum class Use : uint8_t { kPassword, kScram, kCramMd5 };

  virtual ~SaslUsers() = default;
  // nullptr: there is no such user.
  virtual std::shared_ptr<const SaslCredential> Find(std::string_view name) const = 0;
  // One of the users that `use` is possible with, always the same for one `number`; nullptr where
  // there is none. A name that is no user's passes for this one: what is done, and what the client
  // is shown of it, has then the shape that it has for somebody who is there.
  virtual std::shared_ptr<const SaslCredential> AnyLike(Use, uint64_t) const { return nullptr; }
};

// What an exchange needs from outside.
struct SaslContext {
  const SaslUsers* users = nullptr;
  std::string host_name;  // for CRAM-MD5's challenge
  std::string nonce;      // printable, at least 18 characters that nobody can guess; never twice
  // Makes salts of users that do not exist, and says whom they are like, so that a client cannot
  // tell; the same wherever and whenever it asks.
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

// Whom an exchange is held with: the user of that name, or somebody it is to look like.
struct SaslFound {
  std::shared_ptr<const SaslCredential> credential;  // nullptr: nobody is there to look like
  bool known = false;                                // it is the user's own, and serves
};
SaslFound FindSaslUser(const SaslContext& context, SaslUsers::Use use, const std::string& user);

// What nobody can guess who does not know the context's secret: `size` bytes that depend on the
// user's name and on what they are for.
std::string SaslSecretBytes(const SaslContext& context, std::string_view what,
                            const std::string& user, size_t size);

}  // namespace sluice::mail
