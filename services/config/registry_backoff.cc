// <domain> directives of backoff mode, and of what replies of remote sites do.
#include "services/config/registry_tables.h"

namespace sluice::config {
namespace {

constexpr uint32_t kEverywhere = kDomain | kVirtualMta | kGlobal;
constexpr uint64_t kYearUs = uint64_t{366} * 86400 * 1'000'000;

Directive Said(std::string_view name, std::string_view field, Grammar grammar,
               std::string_view help) {
  Directive directive;
  directive.name = name;
  directive.scopes = kEverywhere;
  directive.target = Target::kQueueSettings;
  directive.field = field;
  directive.grammar = grammar;
  directive.help = help;
  return directive;
}

Directive Time(std::string_view name, std::string_view field, std::string_view help) {
  Directive directive = Said(name, field, Grammar::kDuration, help);
  directive.max = kYearUs;
  directive.unlimited = 0;
  return directive;
}

}  // namespace

std::vector<Directive> BackoffDirectives() {
  std::vector<Directive> all;
  all.push_back(Said("backoff-max-msg-rate", "backoff_max_msg_rate", Grammar::kRate,
                     "In backoff mode, recipients that a queue may attempt in a time; "
                     "max-msg-rate holds beside it."));
  all.push_back(Said("backoff-max-smtp-out", "backoff_max_smtp_out", Grammar::kCount,
                     "In backoff mode, connections that a queue may have at once, where "
                     "max-smtp-out is not less; 0 is no limit."));
  all.back().max = 1'000'000;
  all.back().unlimited = 0;
  all.push_back(Said("backoff-max-msg-per-hour", "backoff_max_msg_per_hour", Grammar::kCount,
                     "In backoff mode, recipients that a queue may attempt in any hour; "
                     "max-msg-per-hour holds beside it; 0 is no limit."));
  all.back().unlimited = 0;
  all.push_back(Said("backoff-max-connect-rate", "backoff_max_connect_rate", Grammar::kRate,
                     "In backoff mode, TCP connects that a queue may begin in a time; "
                     "max-connect-rate holds beside it."));
  all.push_back(Said("backoff-max-data-volume-rate", "backoff_max_data_volume_rate",
                     Grammar::kVolume,
                     "In backoff mode, bytes of messages that a queue may send in a time, where "
                     "max-data-volume-rate is not less."));
  all.push_back(Said("backoff-retry-after", "backoff_retry_after", Grammar::kDurationList,
                     "retry-after in backoff mode."));
  all.back().aliases = {"backoff-retry-interval"};
  all.back().min = 1000;
  all.back().max = kYearUs;
  all.push_back(Time("backoff-to-normal-after", "backoff_to_normal_after_us",
                     "Time after the last reply that asked for backoff mode when it ends by "
                     "itself."));
  all.push_back(Said("backoff-to-normal-after-delivery", "backoff_to_normal_after_delivery",
                     Grammar::kBool, "A delivery that began in backoff mode ends it."));
  all.push_back(Said("backoff-trigger-pattern", "backoff_trigger_patterns", Grammar::kRegex,
                     "A reply that puts the queue in backoff mode."));
  all.back().appends = true;
  all.push_back(Said("backoff-notify", "backoff_notify", Grammar::kEmails,
                     "Who is told when a queue goes into backoff mode by itself, and out of it."));
  all.push_back(Said("max-errors-per-domain", "max_errors_per_domain", Grammar::kCount,
                     "Refusals and failed connections in a row, without a delivery between them, "
                     "after which a queue goes into backoff mode; 0 is no limit."));
  all.back().unlimited = 0;
  all.push_back(Said("smtp-pattern-list", "smtp_pattern_list", Grammar::kSectionName,
                     "Patterns of replies and what they do."));
  all.back().choices = "smtp-pattern-list";
  all.push_back(Time("reenable-source-ip-after", "reenable_source_ip_after_us",
                     "Time for which disable-source-ip disables an address; never is until an "
                     "operator enables it."));
  all.push_back(Said("backoff-upon-all-sources-disabled", "backoff_upon_all_sources_disabled",
                     Grammar::kBool,
                     "When the last source address would be disabled, the queue goes into backoff "
                     "mode, and all of its addresses are enabled."));
  all.push_back(Said("disabled-source-ip-notify", "disabled_source_ip_notify", Grammar::kEmails,
                     "Who is told when a reply disables an address."));
  all.push_back(Said("log-disabled-ips", "log_disabled_ips", Grammar::kBool,
                     "Log addresses that are disabled and enabled."));
  all.push_back(Said("smtp-553-means-invalid-mailbox", "smtp_553_means_invalid_mailbox",
                     Grammar::kBool,
                     "A 553 to RCPT that has no status of its own has 5.1.1, bad mailbox."));
  return all;
}

}  // namespace sluice::config
