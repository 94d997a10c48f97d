// MX lookups with a cache: one question on the wire for any number of askers, positive and negative
// answers kept for their TTL, bounded in entries and in questions under way.
#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "services/base/executor.h"
#include "services/delivery/dns/dns_client.h"
#include "services/delivery/dns/mx_resolver.h"

namespace sluice::delivery {

struct MxResolverOptions {
  size_t max_cached_names = 65'536;
  size_t max_lookups_under_way = 256;  // names; the rest wait their turn
  // Beside these, those that take longer than that: name servers that hang are left to it, and keep
  // no others back.
  size_t max_slow_lookups = 16'384;
  Duration slow_after = std::chrono::seconds(1);
  size_t max_mx_hosts = 20;  // tried of one domain, the most preferred
  size_t max_addresses_per_host = 16;
  Duration min_ttl = std::chrono::seconds(5);
  Duration max_ttl = std::chrono::hours(24);
  Duration temporary_ttl = std::chrono::seconds(1);  // so that a storm asks once a second
  bool use_ipv6 = true;
};

struct MxResolverStats {
  uint64_t hits = 0;
  uint64_t lookups = 0;
  uint64_t failures = 0;  // ended kTemporary
  uint64_t cut = 0;       // answers with more hosts or addresses than are kept
  size_t cached_names = 0;
};

class CachingMxResolver final : public MxResolver {
 public:
  // `executor` and `client` outlive this. `seed` decides the order of equal preferences.
  CachingMxResolver(Executor& executor, DnsClient& client, MxResolverOptions options,
                    uint64_t seed);
  ~CachingMxResolver() override;

  void Resolve(std::string_view domain, Done done) override;
  void ResolveHost(std::string_view host, Done done) override;

  // As Resolve, but looks up anew what does not hold until `until`. What is known is given to
  // others meanwhile, and stays where the lookup fails.
  void Refresh(std::string_view domain, MonotonicTime until, Done done);
  // Instead of what the options say, and slow ones count among them; 0: as the options say.
  void SetMaxLookups(size_t names);

  MxResolverStats stats() const;

 private:
  struct Entry;
  struct Gather;
  using Key = std::string;  // 'M' or 'H', then the name

  void Lookup(Key key, Done done, MonotonicTime until = {});
  void StartNext();
  void SetSlowAside();
  void EndLookup(Entry& entry);
  void StartMx(const Key& key);
  void StartHost(const Key& key);
  void OnMx(const Key& key, DnsAnswer answer);
  void GatherHosts(const Key& key, std::vector<MxHost> hosts, const DnsAnswer& mx, bool implicit);
  void FinishGather(const std::shared_ptr<Gather>& gather);
  void Finish(const Key& key, MxResult result, uint32_t ttl_s);
  void Touch(Entry& entry);
  void EvictOne();

  Executor& executor_;
  DnsClient& client_;
  const MxResolverOptions options_;
  size_t max_lookups_ = options_.max_lookups_under_way;
  bool counts_slow_ = false;  // among these
  std::mt19937_64 random_;
  // Answers to a destroyed resolver find this expired.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  absl::flat_hash_map<Key, std::unique_ptr<Entry>> entries_;
  std::list<Entry*> recent_;  // finished entries, the most recent first
  std::deque<Key> waiting_;
  size_t under_way_ = 0;
  size_t slow_ = 0;
  std::deque<std::pair<MonotonicTime, Key>> started_;  // some have ended, or are slow
  TimerId slow_timer_ = 0;
  MxResolverStats stats_;
};

}  // namespace sluice::delivery
