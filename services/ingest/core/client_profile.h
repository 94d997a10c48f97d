// What the configuration says of one client network, prepared once for the many connections that
// come from it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/config/policy_view.h"
#include "services/ingest/core/auth_users.h"
#include "services/ingest/core/policy_tables.h"
#include "services/ingest/core/route.h"
#include "services/mail/server_reply.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::ingest {

// Thread-safety: immutable.
struct ClientProfile {
  std::shared_ptr<const config::PolicyView> policy;
  std::shared_ptr<const policy::v1::ClientSettings> settings;
  std::shared_ptr<const PolicyTables> tables;
  std::shared_ptr<const PatternList> patterns;  // nullptr: none
  mail::SmtpServerOptions smtp;
  bool may_relay = false;
  bool edits_header = false;  // some field may have to be taken out
  bool adds_header = false;   // some field may have to be put in
  bool dates_override = false;
  uint32_t max_recipients = 0;  // where more make the whole message fail; 0: smtp.max_recipients
  Route default_route;
  std::shared_ptr<const AuthUsers> users;  // nullptr: nobody can authenticate
  bool by_local_ip = false;                // default-virtual-mta by-smtp-source-ip

  // With the size limits of client and global settings: the smaller one that is set.
  // `base` brings what policy does not say.
  // `tables` are those of `policy`.
  static std::shared_ptr<const ClientProfile> Make(
      std::shared_ptr<const config::PolicyView> policy,
      std::shared_ptr<const policy::v1::ClientSettings> settings,
      const mail::SmtpServerOptions& base, std::shared_ptr<PolicyTables> tables);
  // For one profile alone.
  static std::shared_ptr<const ClientProfile> Make(
      std::shared_ptr<const config::PolicyView> policy,
      std::shared_ptr<const policy::v1::ClientSettings> settings,
      const mail::SmtpServerOptions& base);

  // The virtual MTA or pool of that name. Where there is none: nothing where the client's messages
  // are refused for it, else the configured fallback.
  std::optional<Route> FindRoute(std::string_view name) const;

  // Where mail goes that names no virtual MTA; `local_ip` is where the client came to.
  Route DefaultRoute(std::string_view local_ip) const;

  // Nothing: mail from this client is welcome. Asked at MAIL.
  std::optional<mail::ServerReply> RefuseSender(bool authenticated) const;
  // Asked at RCPT; `address` is canonical, without a domain for Postmaster.
  std::optional<mail::ServerReply> RefuseRecipient(std::string_view address) const;
};

}  // namespace sluice::ingest
