#include "services/ingest/core/client_profile.h"

#include <algorithm>

#include "services/mail/header_fields.h"

namespace sluice::ingest {
namespace {

constexpr std::string_view kDefaultVirtualMta = "default";

std::optional<Route> Lookup(const config::PolicyView& policy, std::string_view name) {
  if (const auto* vmta = policy.FindVirtualMta(name)) return Route{vmta->name(), ""};
  if (const auto* pool = policy.FindPool(name)) return Route{"", pool->name()};
  return std::nullopt;
}

uint64_t SmallerLimit(uint64_t a, uint64_t b) {
  if (a == 0 || b == 0) return std::max(a, b);
  return std::min(a, b);
}

}  // namespace

std::shared_ptr<const ClientProfile> ClientProfile::Make(
    std::shared_ptr<const config::PolicyView> policy,
    std::shared_ptr<const policy::v1::ClientSettings> settings,
    const mail::SmtpServerOptions& base) {
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
  if (client.has_max_message_hops()) profile->smtp.max_hops = client.max_message_hops();
  if (client.smtp_command_timeout_us() > 0) {
    profile->smtp.command_timeout = Duration(client.smtp_command_timeout_us());
  }
  if (client.smtp_data_timeout_us() > 0) {
    profile->smtp.data_timeout = Duration(client.smtp_data_timeout_us());
  }
  profile->may_relay = client.allow_relay() || client.allow_submission();
  profile->edits_header = client.process_x_virtual_mta() || client.process_x_job() ||
                          client.process_x_envid() || client.remove_header().values_size() != 0;
  const std::string_view name = client.default_virtual_mta().empty()
                                    ? kDefaultVirtualMta
                                    : std::string_view(client.default_virtual_mta());
  // The compiler checks names; one that is not there can only be the built-in default.
  profile->default_route =
      Lookup(*policy, name).value_or(Route{std::string(kDefaultVirtualMta), ""});
  profile->policy = std::move(policy);
  profile->settings = std::move(settings);
  return profile;
}

std::optional<Route> ClientProfile::FindRoute(std::string_view name) const {
  if (std::optional<Route> route = Lookup(*policy, name)) return route;
  if (!settings->has_reject_invalid_virtual_mta() || settings->reject_invalid_virtual_mta()) {
    return std::nullopt;
  }
  if (!policy->global().invalid_virtual_mta_fallback().empty()) {
    if (auto route = Lookup(*policy, policy->global().invalid_virtual_mta_fallback())) return route;
  }
  return default_route;
}

std::optional<mail::ServerReply> ClientProfile::RefuseSender() const {
  if (settings->require_auth()) {
    return mail::ServerReply{530, {5, 7, 0}, "Authentication is required"};
  }
  return std::nullopt;
}

std::optional<mail::ServerReply> ClientProfile::RefuseRecipient(std::string_view domain) const {
  if (may_relay || domain.empty()) return std::nullopt;
  for (const std::string& relay : policy->global().relay_domains().values()) {
    if (mail::HeaderNameEquals(domain, relay)) return std::nullopt;
  }
  return mail::ServerReply{550, {5, 7, 1}, "Relaying denied"};
}

}  // namespace sluice::ingest
