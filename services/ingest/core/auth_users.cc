#include "services/ingest/core/auth_users.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "services/mail/sasl_credential.h"
#include "services/mail/sasl_prep.h"

namespace sluice::ingest {
namespace {

std::optional<mail::SaslCredential> CredentialOf(const policy::v1::SmtpUserSection& user) {
  if (user.password().empty()) return std::nullopt;
  if (!user.authentication_method().empty() && user.authentication_method() != "password") {
    return std::nullopt;
  }
  if (auto hash = mail::SaslCredential::FromHash(user.password())) return hash;
  return mail::SaslCredential::FromPassword(user.password());
}

uint64_t PlaceOf(const std::string& name) {
  uint64_t place = 0;
  for (const char c : mail::Sha256(name).substr(0, sizeof(place))) {
    place = place << 8 | static_cast<unsigned char>(c);
  }
  return place;
}

}  // namespace

std::shared_ptr<const AuthUsers> AuthUsers::Make(std::shared_ptr<const config::PolicyView> policy,
                                                 std::string_view auth_file) {
  std::shared_ptr<AuthUsers> users(new AuthUsers);
  users->policy_ = std::move(policy);
  const auto add = [&](const std::string& name) {
    const auto credential = users->OfName(name);
    if (credential == nullptr) return;
    const uint64_t place = PlaceOf(name);
    users->all_.emplace_back(place, name);
    std::optional<std::string> prepared = mail::SaslPrep(name);
    if (prepared && *prepared != name) users->written_.emplace(*std::move(prepared), name);
    if (credential->serves_scram()) users->with_scram_.emplace_back(place, name);
    if (credential->serves_cram_md5()) users->with_cram_md5_.emplace_back(place, name);
  };
  if (!auth_file.empty()) {
    users->file_ = users->policy_->FindAuthFile(auth_file);
    if (users->file_ != nullptr) {
      for (const auto& [name, hash] : users->file_->hashes()) add(name);
    }
  }
  for (const policy::v1::SmtpUserSection* user : users->policy_->smtp_users()) {
    add(user->name());
  }
  if (users->all_.empty()) return nullptr;
  for (Ring* ring : {&users->all_, &users->with_scram_, &users->with_cram_md5_}) {
    std::sort(ring->begin(), ring->end());
  }
  return users;
}

std::shared_ptr<const mail::SaslCredential> AuthUsers::AnyLike(Use use, uint64_t number) const {
  const Ring& able = use == Use::kScram     ? with_scram_
                     : use == Use::kCramMd5 ? with_cram_md5_
                                            : all_;
  if (able.empty()) return nullptr;
  auto next = std::lower_bound(able.begin(), able.end(), std::pair(number, std::string_view()));
  if (next == able.end()) next = able.begin();
  return OfName(std::string(next->second));
}

std::shared_ptr<const mail::SaslCredential> AuthUsers::Find(std::string_view prepared) const {
  return OfName(ConfiguredName(std::string(prepared)));
}

std::shared_ptr<const mail::SaslCredential> AuthUsers::OfName(const std::string& name) const {
  std::optional<mail::SaslCredential> credential;
  if (file_ != nullptr) {
    const auto found = file_->hashes().find(name);
    if (found != file_->hashes().end()) {
      credential = mail::SaslCredential::FromHash(found->second);
    }
  }
  if (!credential) {
    const policy::v1::SmtpUserSection* const user = policy_->FindSmtpUser(name);
    if (user != nullptr) credential = CredentialOf(*user);
  }
  if (!credential) return nullptr;
  return std::make_shared<const mail::SaslCredential>(*std::move(credential));
}

std::string AuthUsers::ConfiguredName(const std::string& prepared) const {
  const auto found = written_.find(prepared);
  return found == written_.end() ? prepared : found->second;
}

std::string AuthUsers::Mechanisms(bool with_plain, bool can_bind) const {
  std::string names;
  const auto add = [&](std::string_view name) {
    if (!names.empty()) names += ' ';
    names += name;
  };
  if (!with_scram_.empty() && can_bind) add("SCRAM-SHA-256-PLUS");
  if (!with_scram_.empty()) add("SCRAM-SHA-256");
  if (!with_cram_md5_.empty()) add("CRAM-MD5");
  if (with_plain) {
    add("PLAIN");
    add("LOGIN");
  }
  return names;
}

}  // namespace sluice::ingest
