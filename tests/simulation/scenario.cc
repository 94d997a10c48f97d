#include "tests/simulation/scenario.h"

#include <string>
#include <utility>
#include <vector>

#include "services/base/check.h"
#include "services/config/snapshot_hash.h"

namespace sluice::simulation {

constexpr char kRollup[] = "big.rollup";

using std::chrono::milliseconds;
using std::chrono::seconds;

void BuildInternet(World& world, Ledger& ledger, Internet& internet) {
  Random& random = world.random();
  internet.world = &world;
  internet.ledger = &ledger;
  const auto often = [&random](double most) {
    return random.Chance(0.5) ? 0.0 : most * static_cast<double>(random.Below(1000)) / 1000;
  };
  for (int i = 0; i < kDomains; ++i) {
    const std::string domain = "d" + std::to_string(i) + ".test";
    SiteRules& rules = internet.sites[domain];
    rules.refuse_connection = often(0.4);
    rules.hangs = often(0.3);
    rules.dns_failure = often(0.3);
    rules.dns_hangs = often(0.2);
    rules.defer_rcpt = often(0.3);
    rules.refuse_rcpt = often(0.1);
    rules.defer_final = often(0.3);
    rules.refuse_final = often(0.1);
    rules.break_before_data = often(0.2);
    rules.break_after_dot = often(0.2);
    rules.round_trip = random.Between(milliseconds(1), milliseconds(300));
    rules.thinks = random.Chance(0.2) ? Duration(seconds(20)) : Duration(milliseconds(50));
    internet.domains["203.0.113." + std::to_string(i)] = domain;
  }
  // Reports come home.
  internet.sites["from.test"] = SiteRules{};
  internet.domains["203.0.113.200"] = "from.test";
  internet.vmtas = {{"198.51.100.1", "v1"},
                    {"198.51.100.2", "v2"},
                    {"198.51.100.3", "both"},
                    {"198.51.100.4", "both"}};
}

// The last one is that of the rollup, where there is one.
static std::string NameOf(int domain) {
  return domain == kDomains ? kRollup : "d" + std::to_string(domain) + ".test";
}

static void Say(const WindowLimit& limit, policy::v1::Rate* rate) {
  rate->set_count(limit.most);
  rate->set_period_us(static_cast<uint64_t>(limit.period.count()));
}

// What the queues of a domain may do, by chance; as the section says it, too.
static QueueLimit DrawLimits(Random& random, policy::v1::QueueSettings& settings) {
  QueueLimit limit;
  if (random.Chance(0.5)) {
    limit.connections = static_cast<uint32_t>(1 + random.Below(4));
    settings.set_max_smtp_out(limit.connections);
  }
  if (random.Chance(0.4)) {
    limit.recipients = {1 + random.Below(10), random.Between(seconds(1), seconds(20))};
    Say(limit.recipients, settings.mutable_max_msg_rate());
    settings.set_rate_burst(static_cast<uint32_t>(1 + random.Below(3)));
  }
  if (random.Chance(0.2)) {
    limit.hourly = {3600 + random.Below(20'000), std::chrono::hours(1)};
    settings.set_max_msg_per_hour(static_cast<uint32_t>(limit.hourly.most));
  }
  if (random.Chance(0.3)) {
    limit.connects = {1 + random.Below(10), random.Between(seconds(1), seconds(10))};
    Say(limit.connects, settings.mutable_max_connect_rate());
  }
  if (random.Chance(0.3)) {
    limit.bytes = {20'000 + random.Below(400'000), random.Between(seconds(1), seconds(10))};
    Say(limit.bytes, settings.mutable_max_data_volume_rate());
  }
  return limit;
}

// Over all workers; a part for each of the four sources.
static QueueLimit DrawThrottle(Random& random, policy::v1::QueueSettings& settings) {
  QueueLimit limit;
  settings.clear_domain_throttle();
  if (random.Chance(0.3)) {
    limit.recipients = {4 + random.Below(30), random.Between(seconds(1), seconds(20))};
    Say(limit.recipients, settings.mutable_domain_throttle()->mutable_rate());
  }
  return limit;
}

void ChangeLimits(World& world, Ledger& ledger, policy::v1::PolicySnapshot* snapshot) {
  Random& random = world.random();
  const std::string domain = NameOf(static_cast<int>(random.Below(kDomains + 1)));
  for (policy::v1::Section& section : *snapshot->mutable_sections()) {
    if (section.content().domain().pattern() != domain) continue;
    auto& settings = *section.mutable_content()->mutable_domain()->mutable_settings();
    settings.clear_max_smtp_out();
    settings.clear_max_msg_rate();
    settings.clear_rate_burst();
    settings.clear_max_msg_per_hour();
    settings.clear_max_connect_rate();
    settings.clear_max_data_volume_rate();
    const QueueLimit limit = DrawLimits(random, settings);
    for (const char* vmta : {"/v1", "/v2", "/both"}) {
      ledger.Change(domain + vmta, limit, world.now());
    }
    ledger.Change(domain + "/*", DrawThrottle(random, settings), world.now());
  }
}

ScenarioPolicy BuildPolicy(Random& random, Ledger& ledger) {
  policy::v1::PolicySnapshot snapshot;
  snapshot.set_version(1);
  snapshot.add_sections()->mutable_content()->mutable_global();
  auto* all = snapshot.add_sections()->mutable_content()->mutable_domain();
  all->set_pattern("*");
  all->mutable_settings()->mutable_retry_after()->add_us(30'000'000);
  all->mutable_settings()->set_retry_recipients_after_us(20'000'000);
  all->mutable_settings()->set_retry_after_dns_error_us(10'000'000);
  // Some domains are put together by their hosts.
  policy::v1::MxRollupSection rollup;
  if (random.Chance(0.5)) {
    for (int i = 0; i < kDomains; ++i) {
      if (random.Chance(0.5)) continue;
      rollup.add_entries()->set_mx("mx.203.0.113." + std::to_string(i));
      rollup.mutable_entries()->rbegin()->set_queue(kRollup);
      ledger.rollups[NameOf(i)] = kRollup;
    }
    *snapshot.add_sections()->mutable_content()->mutable_mx_rollup() = rollup;
  }
  for (int i = 0; i <= kDomains; ++i) {
    const std::string domain = NameOf(i);
    auto* section = snapshot.add_sections()->mutable_content()->mutable_domain();
    section->set_pattern(domain);
    const QueueLimit limit = DrawLimits(random, *section->mutable_settings());
    if (random.Chance(0.3)) {
      section->mutable_settings()->set_max_msg_per_connection(
          static_cast<uint32_t>(1 + random.Below(3)));
    }
    if (random.Chance(0.2)) section->mutable_settings()->set_bounce_after_us(60'000'000);
    // From each source, by the network that names it more closely.
    const auto by_source = [&](const char* network, std::vector<const char*> queues) {
      QueueLimit part;
      auto& settings = *section->mutable_settings();
      const auto say = [&](WindowLimit* own, policy::v1::KeyedRates* rates) {
        own->period = random.Between(seconds(1), seconds(10));
        rates->add_entries()->set_key(network);
        Say(*own, rates->mutable_entries()->rbegin()->mutable_rate());
      };
      if (random.Chance(0.3)) {
        part.connections = static_cast<uint32_t>(1 + random.Below(3));
        auto* entry = settings.mutable_source_ip_max_smtp_out()->add_entries();
        entry->set_key(network);
        entry->set_count(part.connections);
      }
      if (random.Chance(0.2)) {
        part.recipients.most = 1 + random.Below(10);
        say(&part.recipients, settings.mutable_source_ip_max_msg_rate());
      }
      if (random.Chance(0.2)) {
        part.connects.most = 1 + random.Below(10);
        say(&part.connects, settings.mutable_source_ip_max_connect_rate());
      }
      if (random.Chance(0.2)) {
        part.bytes.most = 20'000 + random.Below(400'000);
        say(&part.bytes, settings.mutable_source_ip_max_data_volume_rate());
      }
      for (const char* queue : queues) ledger.limits[domain + queue] = part;
    };
    if (random.Chance(0.4)) {
      by_source("198.51.100.0/30", {"/v1@198.51.100.1", "/v2@198.51.100.2", "/both@198.51.100.3"});
    }
    if (random.Chance(0.3)) by_source("198.51.100.4/32", {"/both@198.51.100.4"});
    if (i < kDomains && random.Chance(0.3)) {
      // A part for each of the four sources.
      const std::string address = "203.0.113." + std::to_string(i);
      ledger.limits[address].connections = static_cast<uint32_t>(4 + random.Below(5));
      auto* entry = snapshot.mutable_sections(0)
                        ->mutable_content()
                        ->mutable_global()
                        ->mutable_settings()
                        ->mutable_ip_connection_limit()
                        ->add_entries();
      entry->set_key(address + "/32");
      entry->set_count(ledger.limits[address].connections);
    }
    ledger.limits[domain + "/v1"] = limit;
    ledger.limits[domain + "/v2"] = limit;
    ledger.limits[domain + "/both"] = limit;
    ledger.limits[domain + "/*"] = DrawThrottle(random, *section->mutable_settings());
  }
  const auto add = [&snapshot](const char* name, std::vector<std::string> ips) {
    auto* vmta = snapshot.add_sections()->mutable_content()->mutable_virtual_mta();
    vmta->set_name(name);
    for (const std::string& ip : ips) {
      auto* source = vmta->add_source_hosts();
      source->set_ip(ip);
      source->set_host_name("mail.test");
    }
  };
  add("v1", {"198.51.100.1"});
  add("v2", {"198.51.100.2"});
  add("both", {"198.51.100.3", "198.51.100.4"});
  // Limits over the whole virtual MTA: divided over its sources, or too small for that.
  auto* both = snapshot.mutable_sections()->rbegin()->mutable_content()->mutable_virtual_mta();
  QueueLimit whole;
  if (random.Chance(0.4)) {
    whole.connections = static_cast<uint32_t>(1 + random.Below(5));
    both->set_max_smtp_out(whole.connections);
  }
  if (random.Chance(0.3)) {
    whole.recipients = {1 + random.Below(20), random.Between(seconds(1), seconds(10))};
    Say(whole.recipients, both->mutable_max_smtp_msg_rate());
  }
  if (random.Chance(0.3)) {
    whole.bytes = {50'000 + random.Below(1'000'000), random.Between(seconds(1), seconds(10))};
    Say(whole.bytes, both->mutable_max_smtp_data_volume_rate());
  }
  ledger.limits["*/both"] = whole;
  // Over two virtual MTAs, of which one may change hands without a word of its worker: a part for
  // each of three sources, and never less than one.
  auto* pool = snapshot.add_sections()->mutable_content()->mutable_pool();
  pool->set_name("pool");
  pool->add_virtual_mtas("v1");
  pool->add_virtual_mtas("both");
  pool->add_virtual_mtas("default");  // from the address of v1
  QueueLimit pooled;
  if (random.Chance(0.3)) {
    pooled.connections = static_cast<uint32_t>(3 + random.Below(6));
    pool->set_max_smtp_out(pooled.connections);
  }
  if (random.Chance(0.2)) {
    pooled.recipients = {3 + random.Below(20), random.Between(seconds(1), seconds(10))};
    Say(pooled.recipients, pool->mutable_max_smtp_msg_rate());
  }
  if (random.Chance(0.2)) {
    // A message larger than its worker's part would go alone there, beside what others send.
    pooled.bytes = {2'200'000 + random.Below(1'000'000), random.Between(seconds(10), seconds(60))};
    Say(pooled.bytes, pool->mutable_max_smtp_data_volume_rate());
  }
  ledger.limits[kPool] = pooled;
  // Reports go the way of the message; "default" is for those that have none.
  add("default", {"198.51.100.1"});
  // What a site says of one message may be about all that its queue has, or the queue's rollup.
  const bool defers = random.Chance(0.3);
  const bool bounces = random.Chance(0.1);
  if (defers || bounces) {
    all->mutable_settings()->set_smtp_pattern_list("replies");
    auto* list = snapshot.add_sections()->mutable_content()->mutable_smtp_pattern_list();
    list->set_name("replies");
    auto* rule = list->add_rules();
    rule->set_regex(defers ? "^451" : "^554");
    rule->set_defer_queue(defers);
    rule->set_bounce_queue(!defers);
  }
  // The same, in the order and with the hashes that services compare.
  int number = 0;
  for (policy::v1::Section& section : *snapshot.mutable_sections()) {
    section = config::MakeSection("section/" + std::to_string(number++), section.content());
  }
  config::SortSections(&snapshot);
  // In that order too, which says whose the rest of a divided limit is.
  auto view = config::PolicyView::Build(snapshot);
  SLUICE_CHECK(view.ok());
  return {std::move(*view), std::move(snapshot)};
}

}  // namespace sluice::simulation
