#include "services/ingest/core/client_profile.h"

#include <algorithm>

#include "services/mail/header_fields.h"

namespace sluice::ingest {
namespace {

constexpr std::string_view kDefaultVirtualMta = "default";
constexpr std::string_view kByLocalIp = "by-smtp-source-ip";

uint64_t SmallerLimit(uint64_t a, uint64_t b) {
  if (a == 0 || b == 0) return std::max(a, b);
  return std::min(a, b);
}

}  // namespace

std::shared_ptr<const ClientProfile> ClientProfile::Make(
    std::shared_ptr<const config::PolicyView> policy,
    std::shared_ptr<const policy::v1::ClientSettings> settings,
    const mail::SmtpServerOptions& base) {
  const std::string& host_name = policy->global().host_name();
  auto tables =
      std::make_shared<PolicyTables>(*policy, host_name.empty() ? base.host_name : host_name);
  return Make(std::move(policy), std::move(settings), base, std::move(tables));
}

std::shared_ptr<const ClientProfile> ClientProfile::Make(
    std::shared_ptr<const config::PolicyView> policy,
    std::shared_ptr<const policy::v1::ClientSettings> settings, const mail::SmtpServerOptions& base,
    std::shared_ptr<PolicyTables> tables) {
  auto profile = std::make_shared<ClientProfile>();
  const policy::v1::GlobalSettings& global = policy->global();
  const policy::v1::ClientSettings& client = *settings;
  profile->smtp = base;
  if (!global.host_name().empty()) profile->smtp.host_name = global.host_name();
  if (!global.smtp_greeting().empty()) profile->smtp.greeting = global.smtp_greeting();
  profile->smtp.max_message_bytes =
      SmallerLimit(client.max_message_size(), global.max_message_size());
  if (client.has_max_rcpt_per_message() && client.max_rcpt_per_message() != 0) {
    profile->smtp.max_recipients = client.max_rcpt_per_message();
  }
  if (client.too_many_rcpts_fails_message()) {
    profile->max_recipients = profile->smtp.max_recipients;
    profile->smtp.max_recipients = 0;
  }
  profile->smtp.min_data_bytes_per_second = client.smtp_min_data_rate();
  if (client.has_max_message_hops()) profile->smtp.max_hops = client.max_message_hops();
  if (client.smtp_command_timeout_us() > 0) {
    profile->smtp.command_timeout = Duration(client.smtp_command_timeout_us());
  }
  if (client.smtp_data_timeout_us() > 0) {
    profile->smtp.data_timeout = Duration(client.smtp_data_timeout_us());
  }
  mail::CommandExtensions& offered = profile->smtp.extensions;
  offered.chunking = client.allow_chunking();
  offered.binary_mime = client.allow_chunking();
  offered.smtp_utf8 = client.allow_smtputf8();
  offered.dsn = true;
  offered.verp = client.allow_mailmerge();  // whose EHLO keyword it is
  if (!client.has_allow_auth() || client.allow_auth()) {
    profile->users = AuthUsers::Make(policy, client.auth_plain());
  }
  offered.auth = profile->users != nullptr;
  profile->smtp.trace = client.log_commands();
  if (client.has_allow_starttls()) profile->smtp.offer_starttls = client.allow_starttls();
  profile->may_relay = client.allow_relay() || client.allow_submission();
  // For others it would be a way to have reports sent to anybody.
  offered.invalid_recipients = profile->may_relay && client.accept_invalid_recipients();
  offered.require_tls = true;  // the session offers it over TLS
  // RFC 6710 5.1: a priority is for those whom we trust.
  offered.mt_priority = profile->may_relay;
  profile->edits_header = client.process_x_virtual_mta() || client.process_x_job() ||
                          client.process_x_envid() || client.process_x_schedule() ||
                          client.remove_header().values_size() != 0 ||
                          client.remove_received_headers() || client.add_x_virtual_mta_header() ||
                          client.add_date_header() == "override";
  profile->dates_override = client.add_date_header() == "override";
  profile->adds_header = client.add_message_id_header() || client.add_x_virtual_mta_header() ||
                         client.add_date_header() == "yes" || profile->dates_override;
  if (!client.pattern_list().empty()) {
    profile->patterns = tables->FindPatternList(client.pattern_list());
  }
  if (!client.has_auto_qualify_domain() || client.auto_qualify_domain()) {
    offered.qualify_with = tables->local_domain();
  }
  profile->tables = std::move(tables);
  const std::string_view name = client.default_virtual_mta().empty()
                                    ? kDefaultVirtualMta
                                    : std::string_view(client.default_virtual_mta());
  // The compiler checks names; one that is not there can only be the built-in default.
  profile->default_route =
      LookupRoute(*policy, name).value_or(Route{std::string(kDefaultVirtualMta), ""});
  profile->by_local_ip = name == kByLocalIp;
  profile->policy = std::move(policy);
  profile->settings = std::move(settings);
  return profile;
}

std::optional<Route> ClientProfile::FindRoute(std::string_view name) const {
  if (std::optional<Route> route = LookupRoute(*policy, name)) return route;
  if (!settings->has_reject_invalid_virtual_mta() || settings->reject_invalid_virtual_mta()) {
    return std::nullopt;
  }
  if (!policy->global().invalid_virtual_mta_fallback().empty()) {
    if (auto route = LookupRoute(*policy, policy->global().invalid_virtual_mta_fallback()))
      return route;
  }
  return default_route;
}

Route ClientProfile::DefaultRoute(std::string_view local_ip) const {
  const std::string* const vmta = by_local_ip ? tables->VirtualMtaOf(local_ip) : nullptr;
  return vmta == nullptr ? default_route : Route{*vmta, ""};
}

std::optional<mail::ServerReply> ClientProfile::RefuseSender(bool authenticated) const {
  if (settings->require_auth() && !authenticated) {
    return mail::ServerReply{530, {5, 7, 0}, "Authentication is required"};
  }
  return std::nullopt;
}

std::optional<mail::ServerReply> ClientProfile::RefuseRecipient(std::string_view address) const {
  if (may_relay || address.find('@') == std::string_view::npos || tables->RelaysTo(address)) {
    return std::nullopt;
  }
  return mail::ServerReply{550, {5, 7, 1}, "Relaying denied"};
}

}  // namespace sluice::ingest
