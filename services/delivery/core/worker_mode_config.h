// A configuration with lists of replies, for tests of what replies do.
#pragma once

#include <string>

#include "services/delivery/core/worker_world.h"

namespace sluice::delivery::testing {

// The virtual MTA "v" with two sources; mail of example.org keeps to `settings` and `list`.
struct ModeConfig {
  ModeConfig() {
    snapshot.set_version(1);
    policy::v1::Section* section = snapshot.add_sections();
    section->set_name("vmta/v");
    vmta = section->mutable_content()->mutable_virtual_mta();
    vmta->set_name("v");
    vmta->add_source_hosts()->set_ip("127.0.0.5");
    section = snapshot.add_sections();
    section->set_name("domain/example.org");
    section->mutable_content()->mutable_domain()->set_pattern("example.org");
    settings = section->mutable_content()->mutable_domain()->mutable_settings();
    section = snapshot.add_sections();
    section->set_name("smtp-pattern-list/l");
    list = section->mutable_content()->mutable_smtp_pattern_list();
    list->set_name("l");
  }
  policy::v1::ReplyRule& Reply(const std::string& regex) {
    settings->set_smtp_pattern_list("l");
    policy::v1::ReplyRule* rule = list->add_rules();
    rule->set_regex(regex);
    return *rule;
  }
  void TriggerAt421() { settings->mutable_backoff_trigger_patterns()->add_values("/^421/"); }
  void BackoffRate(uint64_t count, Duration period) {
    settings->mutable_backoff_max_msg_rate()->set_count(count);
    settings->mutable_backoff_max_msg_rate()->set_period_us(static_cast<uint64_t>(period.count()));
  }

  policy::v1::PolicySnapshot snapshot;
  policy::v1::VirtualMtaSection* vmta = nullptr;
  policy::v1::QueueSettings* settings = nullptr;
  policy::v1::SmtpPatternListSection* list = nullptr;
};

// One message to the first connection, and what the site says of it.
inline queue::v1::DispatchRequest Send(World& world, uint64_t id,
                                       queue::v1::RecipientOutcome outcome, uint32_t code,
                                       const std::string& text = {}) {
  world.shard().Lease(id, 1);
  world.executor.RunPosted();
  for (size_t i = 0; i < world.sites.open.size(); ++i) {
    if (world.sites.open[i]->under_way.empty()) continue;
    world.sites.open[i]->Answer(outcome, code, text);
    break;
  }
  return world.Take();
}

}  // namespace sluice::delivery::testing
