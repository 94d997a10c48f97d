#include "tools/sink/sink_state.h"

#include <algorithm>

#include "nlohmann/json.hpp"

namespace sluice::sink {
namespace {

constexpr size_t kDomainsMax = 200'000;
constexpr size_t kGreylistMax = 4'000'000;
constexpr size_t kLoadsMax = 16;
constexpr char kOverflowDomain[] = "(others)";

nlohmann::json Percentiles(const LatencyHistogram& histogram) {
  return {{"count", histogram.count()},
          {"mean_us", histogram.mean_us()},
          {"p50_us", histogram.PercentileUs(0.5)},
          {"p90_us", histogram.PercentileUs(0.9)},
          {"p99_us", histogram.PercentileUs(0.99)},
          {"max_us", histogram.max_us()}};
}

}  // namespace

DomainState* SinkState::Domain(std::string_view name) {
  auto it = domains_.find(name);
  if (it != domains_.end()) return it->second.get();
  if (domains_.size() >= kDomainsMax && name != kOverflowDomain) return Domain(kOverflowDomain);
  auto state = std::make_unique<DomainState>();
  state->name = std::string(name);
  return domains_.emplace(state->name, std::move(state)).first->second.get();
}

const Rule& SinkState::RuleOf(DomainState* domain) {
  if (domain->rule_generation != rules_.generation()) {
    domain->rule = &rules_.ForDomain(domain->name);
    domain->rule_generation = rules_.generation();
  }
  return *domain->rule;
}

SourceState* SinkState::Source(const IpAddress& client) {
  auto& slot = sources_[client];
  if (slot == nullptr) slot = std::make_unique<SourceState>();
  return slot.get();
}

bool SinkState::Chance(double share) {
  if (share <= 0) return false;
  if (share >= 1) return true;
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return static_cast<double>(random_ >> 11) * 0x1p-53 < share;
}

bool SinkState::OverRate(DomainState* domain, const Rule& rule) {
  if (rule.rate_max == 0) return false;
  MonotonicTime now = clock_.Now();
  if (domain->period_recipients == 0 || now - domain->period_start >= rule.rate_period) {
    domain->period_start = now;
    domain->period_recipients = 0;
  }
  return ++domain->period_recipients > rule.rate_max;
}

bool SinkState::Greylisted(const Rule& rule, const IpAddress& client, std::string_view from,
                           std::string_view to) {
  if (rule.greylist == Duration(0)) return false;
  std::string key = client.ToString();
  key.append("\n").append(from).append("\n").append(to);
  if (greylist_.size() >= kGreylistMax) greylist_.clear();
  MonotonicTime now = clock_.Now();
  auto [it, added] = greylist_.try_emplace(std::hash<std::string>()(key), now);
  if (added || now - it->second < rule.greylist) return true;
  counters_.greylist_wait.Record((now - it->second).count());
  return false;
}

void SinkState::RecordLatency(int64_t us, std::string_view test_id) {
  counters_.latency.Record(us);
  size_t dash = test_id.find('-');
  if (dash == test_id.npos || dash == 0) return;
  std::string_view load = test_id.substr(0, dash);
  auto it = counters_.latency_by_load.find(load);
  if (it == counters_.latency_by_load.end()) {
    if (counters_.latency_by_load.size() >= kLoadsMax) return;
    it = counters_.latency_by_load.try_emplace(std::string(load)).first;
  }
  it->second.Record(us);
}

nlohmann::json SinkState::ToJson(size_t domains_max) const {
  using nlohmann::json;
  const Counters& c = counters_;
  json by_load = json::object();
  for (const auto& [load, histogram] : c.latency_by_load) by_load[load] = Percentiles(histogram);
  json sources = json::object();
  for (const auto& [ip, source] : sources_) {
    sources[ip.ToString()] = {{"connections", source->connections},
                              {"messages", source->messages},
                              {"open", source->open},
                              {"open_peak", source->open_peak},
                              {"ehlo", source->ehlo}};
  }
  std::vector<const DomainState*> order;
  for (const auto& [name, domain] : domains_) order.push_back(domain.get());
  size_t shown = std::min(domains_max, order.size());
  auto more_mail = [](const DomainState* a, const DomainState* b) {
    uint64_t a_all = a->accepted + a->deferred + a->rejected;
    uint64_t b_all = b->accepted + b->deferred + b->rejected;
    return a_all != b_all ? a_all > b_all : a->name < b->name;
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(shown), order.end(),
                    more_mail);
  json domains = json::object();
  for (size_t i = 0; i < shown; ++i) {
    domains[order[i]->name] = {{"accepted", order[i]->accepted},
                               {"deferred", order[i]->deferred},
                               {"rejected", order[i]->rejected},
                               {"connections", order[i]->connections},
                               {"connections_peak", order[i]->connections_peak}};
  }
  return {{"connections", c.connections},
          {"open", c.open},
          {"open_peak", c.open_peak},
          {"messages", c.messages},
          {"recipients", c.recipients},
          {"bytes", c.bytes},
          {"deferred", c.deferred},
          {"rejected", c.rejected},
          {"dropped", c.dropped},
          {"protocol_errors", c.protocol_errors},
          {"dns_queries", c.dns_queries},
          {"tls_connections", c.tls_connections},
          {"tls_resumed", c.tls_resumed},
          {"tls_failed", c.tls_failed},
          {"first_message_us", ToUnixMicros(c.first_message)},
          {"last_message_us", ToUnixMicros(c.last_message)},
          {"domain_count", domains_.size()},
          {"latency", Percentiles(c.latency)},
          {"latency_by_load", by_load},
          {"greylist_wait", Percentiles(c.greylist_wait)},
          {"sources", sources},
          {"domains", domains}};
}

void SinkState::ResetCounters() {
  uint32_t open = counters_.open;
  counters_ = Counters();
  counters_.open = counters_.open_peak = open;
  for (auto& [name, domain] : domains_) {
    domain->accepted = domain->deferred = domain->rejected = 0;
    domain->connections_peak = domain->connections;
  }
  for (auto& [ip, source] : sources_) {
    source->connections = source->messages = 0;
    source->open_peak = source->open;
  }
}

}  // namespace sluice::sink
