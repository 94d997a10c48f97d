// Directives of authentication, proxies and mail merge.
#include "services/config/registry_tables.h"

namespace sluice::config {

std::vector<Directive> AuthDirectives() {
  constexpr uint32_t kClients = kSource | kGlobal;
  std::vector<Directive> all;
  const auto client = [&](std::string_view name, std::string_view field, std::string_view help) {
    all.push_back({.name = name,
                   .scopes = kClients,
                   .target = Target::kClientSettings,
                   .field = field,
                   .grammar = Grammar::kBool,
                   .help = help});
  };
  client("allow-auth", "allow_auth", "Offer AUTH where a user could authenticate.");
  client("allow-unencrypted-plain-auth", "allow_unencrypted_plain_auth",
         "Offer AUTH PLAIN and LOGIN without TLS, too.");
  client("require-starttls-before-auth", "require_starttls_before_auth",
         "No AUTH at all without TLS.");
  client("allow-mailmerge", "allow_mailmerge", "Offer mail merge (XACK, XMRG, XDFN, XPRT).");
  client("allow-xclient", "allow_xclient",
         "These clients are proxies that say by XCLIENT for whom they speak.");
  client("allow-proxy-protocol", "allow_proxy_protocol",
         "These clients are proxies that may connect to a smtp-proxy-listener.");
  all.push_back({.name = "smtp-max-auth-failure-rate",
                 .scopes = kClients,
                 .target = Target::kClientSettings,
                 .field = "smtp_max_auth_failure_rate",
                 .grammar = Grammar::kRate,
                 .help = "Failed authentications of a client network (/24, /64) in a time; beyond, "
                         "none is tried."});
  all.push_back({.name = "auth-plain",
                 .scopes = kClients,
                 .target = Target::kClientSettings,
                 .field = "auth_plain",
                 .grammar = Grammar::kFile,
                 .help =
                     "File of users of these clients: lines user:hash, with a crypt(5) hash or a "
                     "SCRAM-SHA-256 verifier."});
  all.push_back({.name = "smtp-proxy-listener",
                 .scopes = kGlobal,
                 .target = Target::kGlobalSettings,
                 .field = "smtp_proxy_listeners",
                 .grammar = Grammar::kIpPorts,
                 .help = "Address and port whose connections begin with a PROXY header.",
                 .default_port = 25,
                 .appends = true,
                 .needs_restart = true});
  all.push_back({.name = "mailmerge-expands-undefined-variables",
                 .scopes = kGlobal,
                 .target = Target::kGlobalSettings,
                 .field = "mailmerge_expands_undefined_variables",
                 .grammar = Grammar::kBool,
                 .help = "A merge variable without a value stands for nothing, else for itself."});
  const auto user = [&](std::string_view name, std::string_view field, Grammar grammar,
                        std::string_view help) -> Directive& {
    return all.emplace_back(Directive{.name = name,
                                      .scopes = kSmtpUser,
                                      .target = Target::kSmtpUser,
                                      .field = field,
                                      .grammar = grammar,
                                      .help = help});
  };
  user("password", "password", Grammar::kText,
       "The user's password, its crypt(5) hash, or a SCRAM-SHA-256 verifier.")
      .secret = true;
  user("authentication-method", "authentication_method", Grammar::kChoice,
       "How the user is known: by a password, or by the certificate that the client shows.");
  all.back().choices = "password,system,certificate";
  all.back().unset = "password";
  all.back().unsupported_choice = "system";
  // PAM's pam_unix checks the password of another user for root alone, and modules run inside the
  // process that asks them: an SMTP server that anybody may talk to is neither.
  all.back().unsupported_choice_reason =
      "it lets nobody in: the machines of a cluster have no users in common, and this service does "
      "not run as root, without which passwords of the system's users cannot be checked; give the "
      "user a password (the hash in /etc/shadow will do) or a certificate";
  user(
      "tls-certificate", "tls_certificate", Grammar::kFile,
      "PEM file of the certificate, with authentication-method certificate: a client that shows it "
      "and has its key is the user, without AUTH.");
  user("source", "source", Grammar::kSectionName,
       "The named <source> whose directives hold for the user.")
      .choices = "source";
  return all;
}

}  // namespace sluice::config
