// What the configuration says of one client network, prepared once for the many connections that
// come from it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/config/policy_view.h"
#include "services/mail/server_reply.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::ingest {

// Where a delivery goes out: exactly one of the two is set.
struct Route {
  std::string vmta;
  std::string pool;
};

// Thread-safety: immutable.
struct ClientProfile {
  std::shared_ptr<const config::PolicyView> policy;
  std::shared_ptr<const policy::v1::ClientSettings> settings;
  mail::SmtpServerOptions smtp;
  bool may_relay = false;
  bool edits_header = false;  // some field may have to be taken out
  Route default_route;

  // With the size limits of client and global settings: the smaller one that is set.
  // `base` brings what policy does not say.
  static std::shared_ptr<const ClientProfile> Make(
      std::shared_ptr<const config::PolicyView> policy,
      std::shared_ptr<const policy::v1::ClientSettings> settings,
      const mail::SmtpServerOptions& base);

  // The virtual MTA or pool of that name. Where there is none: nothing where the client's messages
  // are refused for it, else the configured fallback.
  std::optional<Route> FindRoute(std::string_view name) const;

  // Nothing: mail from this client is welcome. Asked at MAIL.
  std::optional<mail::ServerReply> RefuseSender() const;
  // Asked at RCPT, `domain` in lower case; empty for Postmaster.
  std::optional<mail::ServerReply> RefuseRecipient(std::string_view domain) const;
};

}  // namespace sluice::ingest
