// The users that a client may authenticate as: those of its auth-plain file, then all <smtp-user>.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "services/config/policy_view.h"
#include "services/mail/sasl_server.h"

namespace sluice::ingest {

// Thread-safety: immutable. Lifetime: keeps the policy.
class AuthUsers final : public mail::SaslUsers {
 public:
  // nullptr where there is no user at all. `auth_file` may be empty.
  static std::shared_ptr<const AuthUsers> Make(std::shared_ptr<const config::PolicyView> policy,
                                               std::string_view auth_file);

  std::shared_ptr<const mail::SaslCredential> Find(std::string_view name) const override;
  // The named source that holds for a user; empty: none.
  std::string_view SourceOf(std::string_view name) const;

  // What can succeed, for one user at least: "SCRAM-SHA-256 CRAM-MD5 PLAIN LOGIN". PLAIN and LOGIN
  // show the password to the network.
  std::string Mechanisms(bool with_plain) const;

 private:
  AuthUsers() = default;

  std::shared_ptr<const config::PolicyView> policy_;
  const policy::v1::AuthFileSection* file_ = nullptr;
  bool any_scram_ = false;
  bool any_cram_ = false;
};

}  // namespace sluice::ingest
