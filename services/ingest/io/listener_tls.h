// What the directives say of each listener's TLS, as contexts that stay as long as nothing changes.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/clock.h"
#include "services/base/net/ip_address.h"
#include "services/base/net/tls_server_context.h"
#include "services/config/policy_view.h"
#include "services/ingest/io/smtp_listener.h"

namespace sluice::ingest {

// Thread-safety: none. Lifetime: `clock` outlives it and the connections.
class ListenerTls {
 public:
  explicit ListenerTls(const Clock& clock) : clock_(clock) {}

  // For each address what SmtpListener wants. Contexts whose settings did not change are the ones
  // of before, with their tickets. kNotFound, kInvalidArgument: the text names the file or setting,
  // and nothing has changed.
  absl::StatusOr<std::vector<SmtpListenerTls>> Make(const config::PolicyView& policy,
                                                    const std::vector<Endpoint>& addresses);

  // Reads files that have changed, of listeners and of users who are known by a certificate: what
  // came of it, a text each; nothing where none has. Files that cannot be used are said once, and
  // change nothing. Behind a change made() is what SmtpListener wants.
  struct Change {
    bool ok;
    std::string text;
  };
  std::vector<Change> ReloadChanged();
  const std::vector<SmtpListenerTls>& made() const { return made_; }

 private:
  // With authentication-method certificate.
  struct User {
    std::string name;
    std::string file;
    std::string stamp;  // of the file as it was read
  };
  static std::vector<User> UsersOf(const config::PolicyView& policy);
  // Null: there is none. Sets the stamps.
  static absl::StatusOr<std::shared_ptr<const CertificateUsers>> ReadUsers(
      std::vector<User>& users);
  void ReloadUsers(std::vector<Change>& changes);
  struct Entry {
    std::shared_ptr<TlsServerContext> context;
    std::string last_error;
  };
  const Clock& clock_;
  std::vector<Entry> entries_;
  std::vector<User> users_;
  std::string last_users_error_;
  std::vector<SmtpListenerTls> made_;
};

}  // namespace sluice::ingest
