// What all sessions of a sink share: the rules, the counters, the message log.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "nlohmann/json_fwd.hpp"
#include "services/base/clock.h"
#include "services/base/net/ip_address.h"
#include "tools/sink/latency_histogram.h"
#include "tools/sink/rules.h"

namespace sluice::sink {

// Counters and limits of one recipient domain.
struct DomainState {
  std::string name;
  const Rule* rule = nullptr;
  uint64_t rule_generation = 0;
  uint64_t accepted = 0;
  uint64_t deferred = 0;
  uint64_t rejected = 0;
  uint32_t connections = 0;
  uint32_t connections_peak = 0;
  MonotonicTime period_start{};
  uint32_t period_recipients = 0;
  absl::flat_hash_map<IpAddress, uint32_t> connections_by_client;
};

struct SourceState {
  uint64_t connections = 0;
  uint64_t messages = 0;
  uint32_t open = 0;
  uint32_t open_peak = 0;
  std::string ehlo;  // the latest
};

struct Counters {
  uint64_t connections = 0;
  uint32_t open = 0;
  uint32_t open_peak = 0;
  uint64_t messages = 0;    // final dots answered with 250
  uint64_t recipients = 0;  // accepted ones of those
  uint64_t bytes = 0;
  uint64_t deferred = 0;  // recipients, or messages at the final dot
  uint64_t rejected = 0;
  uint64_t dropped = 0;  // connections that a rule closed
  uint64_t protocol_errors = 0;
  uint64_t dns_queries = 0;
  uint64_t tls_connections = 0;  // handshakes that were done
  uint64_t tls_resumed = 0;      // of these
  uint64_t tls_failed = 0;
  WallTime first_message{};
  WallTime last_message{};
  LatencyHistogram latency;        // since the time in the X-Sent-Us field
  LatencyHistogram greylist_wait;  // from a recipient's first 451 to the attempt that passed
  // Latencies of loads that run side by side, by what stands before the '-' of X-Test-Id.
  std::map<std::string, LatencyHistogram, std::less<>> latency_by_load;
};

// Thread-safety: none; lives on one loop. Lifetime: outlives its sessions.
class SinkState {
 public:
  SinkState(const Clock& clock, uint64_t seed) : clock_(clock), random_(seed | 1) {}
  SinkState(const SinkState&) = delete;
  SinkState& operator=(const SinkState&) = delete;

  RuleTable& rules() { return rules_; }
  const Clock& clock() const { return clock_; }
  Counters& counters() { return counters_; }

  // The state of a domain, in lower case; one shared by all when there are too many. Never null.
  DomainState* Domain(std::string_view name);
  const Rule& RuleOf(DomainState* domain);
  SourceState* Source(const IpAddress& client);

  // Notes a message that carried its time of sending.
  void RecordLatency(int64_t us, std::string_view test_id);

  // True `share` of the time.
  bool Chance(double share);
  // True where a recipient exceeds the domain's rate, or must wait for its greylist.
  bool OverRate(DomainState* domain, const Rule& rule);
  bool Greylisted(const Rule& rule, const IpAddress& client, std::string_view from,
                  std::string_view to);

  // Everything as JSON, domains with the most mail first, at most `domains_max` of them.
  nlohmann::json ToJson(size_t domains_max) const;
  // Forgets counts and percentiles, not open connections and rules.
  void ResetCounters();

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
  };

  const Clock& clock_;
  uint64_t random_;
  RuleTable rules_;
  Counters counters_;
  std::unordered_map<std::string, std::unique_ptr<DomainState>, Hash, std::equal_to<>> domains_;
  absl::flat_hash_map<IpAddress, std::unique_ptr<SourceState>> sources_;
  absl::flat_hash_map<uint64_t, MonotonicTime> greylist_;
};

}  // namespace sluice::sink
