// The users that a client may authenticate as: those of its auth-plain file, then all <smtp-user>.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/config/policy_view.h"
#include "services/mail/sasl_server.h"

namespace sluice::ingest {

// Thread-safety: immutable. Lifetime: keeps the policy.
class AuthUsers final : public mail::SaslUsers {
 public:
  // nullptr where there is no user at all. `auth_file` may be empty.
  static std::shared_ptr<const AuthUsers> Make(std::shared_ptr<const config::PolicyView> policy,
                                               std::string_view auth_file);

  // `name` is prepared (mail/sasl_prep.h).
  std::shared_ptr<const mail::SaslCredential> Find(std::string_view name) const override;
  std::shared_ptr<const mail::SaslCredential> AnyLike(Use use, uint64_t number) const override;
  // The name of a user as it was written, which Find's prepared form may not be.
  std::string ConfiguredName(const std::string& prepared) const;

  // What can succeed, for one user at least: "SCRAM-SHA-256-PLUS SCRAM-SHA-256 CRAM-MD5 PLAIN
  // LOGIN". PLAIN and LOGIN show the password to the network; the first wants a TLS connection to
  // bind to.
  std::string Mechanisms(bool with_plain, bool can_bind) const;

 private:
  AuthUsers() = default;
  std::shared_ptr<const mail::SaslCredential> OfName(const std::string& name) const;

  std::shared_ptr<const config::PolicyView> policy_;
  const policy::v1::AuthFileSection* file_ = nullptr;
  // By prepared name, where the written one is another.
  absl::flat_hash_map<std::string, std::string> written_;
  // Names as they are written, in the policy, each at a place that depends on nothing else: what
  // AnyLike answers for a number stays while other users come and go.
  using Ring = std::vector<std::pair<uint64_t, std::string_view>>;
  Ring all_;
  Ring with_scram_;
  Ring with_cram_md5_;
};

}  // namespace sluice::ingest
