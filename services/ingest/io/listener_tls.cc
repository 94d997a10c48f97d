#include "services/ingest/io/listener_tls.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/base/net/tls_certificate.h"

namespace sluice::ingest {
namespace {

TlsServerOptions OptionsOf(const policy::v1::GlobalSettings& global,
                           const policy::v1::ListenerSettings& own) {
  TlsServerOptions options;
  const auto& certificates = own.tls_certificates().values_size() > 0
                                 ? own.tls_certificates()
                                 : global.smtp_server_tls_certificates();
  for (const auto& each : certificates.values()) {
    options.certificates.push_back({each.file(), each.password()});
  }
  options.protocols.tls1_0 =
      own.has_tls_allow_tlsv1() ? own.tls_allow_tlsv1() : global.smtp_server_tls_allow_tlsv1();
  options.protocols.tls1_1 = own.has_tls_allow_tlsv1_1() ? own.tls_allow_tlsv1_1()
                                                         : global.smtp_server_tls_allow_tlsv1_1();
  options.protocols.tls1_2 = own.has_tls_allow_tlsv1_2() ? own.tls_allow_tlsv1_2()
                                                         : global.smtp_server_tls_allow_tlsv1_2();
  options.protocols.tls1_3 = own.has_tls_allow_tlsv1_3() ? own.tls_allow_tlsv1_3()
                                                         : global.smtp_server_tls_allow_tlsv1_3();
  options.protocols.ciphers =
      own.has_tls_ciphers() ? own.tls_ciphers() : global.smtp_server_tls_ciphers();
  options.protocols.ciphersuites =
      own.has_tls_ciphersuites() ? own.tls_ciphersuites() : global.smtp_server_tls_ciphersuites();
  options.ca_file = own.has_tls_ca_file() ? own.tls_ca_file() : global.smtp_server_tls_ca_file();
  return options;
}

}  // namespace

std::vector<ListenerTls::User> ListenerTls::UsersOf(const config::PolicyView& policy) {
  std::vector<User> users;
  for (const policy::v1::SmtpUserSection* user : policy.smtp_users()) {
    if (user->authentication_method() != "certificate" || user->tls_certificate().empty()) continue;
    users.push_back({user->name(), user->tls_certificate(), ""});
  }
  return users;
}

absl::StatusOr<std::shared_ptr<const CertificateUsers>> ListenerTls::ReadUsers(
    std::vector<User>& users) {
  auto known = std::make_shared<CertificateUsers>();
  for (User& user : users) {
    user.stamp = FileStamp(user.file);
    const auto certificate = ReadCertificate(user.file);
    if (!certificate.ok()) {
      return absl::Status(
          certificate.status().code(),
          absl::StrCat("<smtp-user ", user.name, ">: ", certificate.status().message()));
    }
    known->emplace(CertificateFingerprint(certificate->get()), user.name);
  }
  if (known->empty()) return nullptr;
  return known;
}

absl::StatusOr<std::vector<SmtpListenerTls>> ListenerTls::Make(
    const config::PolicyView& policy, const std::vector<Endpoint>& addresses) {
  std::vector<SmtpListenerTls> made;
  std::vector<Entry> entries;
  const policy::v1::ListenerSettings none;
  std::vector<User> certified = UsersOf(policy);
  auto users = ReadUsers(certified);
  if (!users.ok()) return users.status();
  for (const Endpoint& address : addresses) {
    const policy::v1::ListenerSettings* own = policy.FindListener(address.ToString());
    if (own == nullptr) own = &none;
    TlsServerOptions options = OptionsOf(policy.global(), *own);
    options.ask_client_certificate = *users != nullptr;
    SmtpListenerTls& tls = made.emplace_back();
    tls.immediate = own->immediate_tls();
    tls.users = *users;
    if (options.certificates.empty()) {
      if (!tls.immediate) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("listener ", address.ToString(),
                       " has immediate-tls, and neither tls-certificate nor "
                       "smtp-server-tls-certificate is given"));
    }
    const auto same = [&](const Entry& entry) { return entry.context->options() == options; };
    auto known = std::find_if(entries.begin(), entries.end(), same);
    if (known == entries.end()) {
      const auto before = std::find_if(entries_.begin(), entries_.end(), same);
      if (before != entries_.end()) {
        entries.push_back(*before);
      } else {
        auto loaded = TlsServerContext::Load(options, clock_);
        if (!loaded.ok()) {
          return absl::Status(
              loaded.status().code(),
              absl::StrCat("listener ", address.ToString(), ": ", loaded.status().message()));
        }
        entries.push_back({*std::move(loaded), ""});
      }
      known = std::prev(entries.end());
    }
    tls.context = known->context;
  }
  entries_ = std::move(entries);
  users_ = std::move(certified);
  made_ = made;
  return made;
}

void ListenerTls::ReloadUsers(std::vector<Change>& changes) {
  const auto changed = std::find_if(users_.begin(), users_.end(), [](const User& user) {
    return FileStamp(user.file) != user.stamp;
  });
  if (changed == users_.end()) return;
  std::vector<User> fresh = users_;
  auto known = ReadUsers(fresh);
  if (!known.ok()) {
    std::string error(known.status().message());
    if (error != last_users_error_) changes.push_back({false, error});
    last_users_error_ = std::move(error);
    return;
  }
  changes.push_back({true, changed->file});
  last_users_error_.clear();
  users_ = std::move(fresh);
  for (SmtpListenerTls& each : made_) each.users = *known;
}

std::vector<ListenerTls::Change> ListenerTls::ReloadChanged() {
  std::vector<Change> changes;
  for (Entry& entry : entries_) {
    const std::string& file = entry.context->options().certificates.front().file;
    const absl::StatusOr<bool> reloaded = entry.context->ReloadIfChanged();
    if (!reloaded.ok()) {
      std::string error(reloaded.status().message());
      if (error != entry.last_error) changes.push_back({false, error});
      entry.last_error = std::move(error);
      continue;
    }
    entry.last_error.clear();
    if (*reloaded) changes.push_back({true, file});
  }
  ReloadUsers(changes);
  return changes;
}

}  // namespace sluice::ingest
