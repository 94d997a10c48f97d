// The MTA-STS policies of receivers' domains (RFC 8461): found by TXT record, fetched over HTTPS,
// kept until they expire. One domain's slow or broken policy host never holds up another domain.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "services/base/executor.h"
#include "services/delivery/dns/dns_client.h"
#include "services/delivery/tls_policy/mta_sts_record.h"
#include "services/delivery/tls_policy/policy_fetcher.h"

namespace sluice::delivery {

struct MtaStsOptions {
  // Domains with a policy, and domains known to have none: each kind by itself, so that a flood of
  // names without a policy cannot push out a policy, which would be a downgrade.
  size_t max_policies = 65'536;
  size_t max_without = 65'536;
  size_t max_fetches = 64;  // under way; the rest wait their turn
  // How long the TXT record's answer is believed, whatever its TTL says.
  Duration min_recheck = std::chrono::minutes(1);
  Duration max_recheck = std::chrono::hours(1);
  // A policy holds for so long at least, whatever its max_age says: with `max_age: 0` (a
  // non-negative number is legal, RFC 8461 section 3.2) each connection would fetch it anew. Longer
  // is the safe side; what it demands shows in reports as it was published.
  Duration min_lifetime = std::chrono::minutes(1);
  // After a fetch that failed, none of the same id for this long (RFC 8461 section 3.3).
  Duration fetch_backoff = std::chrono::minutes(5);
};

struct MtaStsResult {
  MtaStsPolicy policy;  // mode none where the domain has no policy
  std::string id;
  bool found = false;
  // Where a policy was announced and could not be had: the result-type of RFC 8460 section 4.3, and
  // the reason for people. A policy from the cache may hold all the same.
  std::string failure_type;
  std::string failure_reason;
};

struct MtaStsStats {
  uint64_t lookups = 0;
  uint64_t fetches = 0;
  uint64_t fetch_failures = 0;
  size_t policies = 0;
  size_t without = 0;
};

// Thread-safety: one executor. Lifetime: executor, DNS client and fetcher outlive it; callbacks of
// a destroyed cache are dropped. Failure: a domain whose record or policy cannot be had is treated
// as one without, or by the policy that it had before where that has not expired (section 3.3).
class MtaStsCache {
 public:
  using Done = absl::AnyInvocable<void(std::shared_ptr<const MtaStsResult>)>;

  MtaStsCache(Executor& executor, DnsClient& dns, PolicyFetcher& fetcher, MtaStsOptions options);
  ~MtaStsCache();

  // `domain`: lower case, A-labels. Calls `done` exactly once, possibly before it returns where the
  // answer is cached.
  void Lookup(std::string_view domain, Done done);

  // A host failed an enforced policy: the next lookup asks the DNS again, at most once in
  // min_recheck (section 5.1: look for a newer policy before mail bounces).
  void Recheck(std::string_view domain);

  // The policies, one a line, for a file; and back. Lines that make no sense are passed over.
  std::string Save() const;
  void Load(std::string_view saved);
  // Grows with every change that Save shows.
  uint64_t changes() const { return changes_; }

  MtaStsStats stats() const;

 private:
  struct Entry;

  Entry& Get(const std::string& domain);
  void OnTxt(const std::string& domain, DnsAnswer answer);
  void WantFetch(const std::string& domain, std::string id);
  void StartFetches();
  void OnFetched(const std::string& domain, absl::StatusOr<std::string> text);
  void Answer(Entry& entry);
  void Place(Entry& entry);
  void DropExpired(Entry& entry);
  // How long a policy that is fetched now is held.
  Duration Lifetime(const MtaStsPolicy& policy) const;

  Executor& executor_;
  DnsClient& dns_;
  PolicyFetcher& fetcher_;
  const MtaStsOptions options_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  absl::flat_hash_map<std::string, std::unique_ptr<Entry>> entries_;
  std::list<Entry*> with_;     // a policy; the most recently used first
  std::list<Entry*> without_;  // none
  std::deque<std::string> to_fetch_;
  size_t fetching_ = 0;
  uint64_t changes_ = 0;
  MtaStsStats stats_;
};

}  // namespace sluice::delivery
