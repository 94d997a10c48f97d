#include "services/delivery/dns/caching_mx_resolver.h"

#include <arpa/inet.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace sluice::delivery {
namespace {

bool IsIpAddress(const std::string& text) {
  unsigned char buffer[16];
  return inet_pton(AF_INET, text.c_str(), buffer) == 1 ||
         inet_pton(AF_INET6, text.c_str(), buffer) == 1;
}

// "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321 section 4.1.3).
std::optional<std::string> AddressOfLiteral(std::string_view domain) {
  if (domain.size() < 3 || domain.front() != '[' || domain.back() != ']') return std::nullopt;
  std::string inner(domain.substr(1, domain.size() - 2));
  if (absl::StartsWithIgnoreCase(inner, "ipv6:")) inner.erase(0, 5);
  if (!IsIpAddress(inner)) return std::nullopt;
  return inner;
}

std::shared_ptr<const MxResult> OneAddress(std::string address) {
  auto result = std::make_shared<MxResult>();
  result->outcome = MxOutcome::kFound;
  result->site = address;
  result->hosts.push_back({address, 0, {address}});
  result->from_dns = false;
  result->expires = MonotonicTime::max();
  return result;
}

std::string SiteOf(const std::vector<MxHost>& hosts) {
  std::vector<std::string> names;
  for (const MxHost& host : hosts) names.push_back(host.name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return absl::StrJoin(names, ",");
}

}  // namespace

struct CachingMxResolver::Entry {
  Key key;
  std::shared_ptr<const MxResult> result;  // null while the lookup is under way
  std::shared_ptr<const MxResult> before;  // what it renews, and may still hold
  MonotonicTime until{};                   // of Refresh
  std::vector<Done> waiting;
  std::list<Entry*>::iterator place;
  MonotonicTime started{};  // of a domain under way
  bool slow = false;
};

// Hosts of one domain whose addresses are being asked for.
struct CachingMxResolver::Gather {
  Key key;
  std::vector<MxHost> hosts;
  size_t missing = 0;
  uint32_t ttl_s = 0;
  bool any_temporary = false;
  bool authenticated = false;  // the MX records, or their absence
  std::string canonical;       // of the domain
  bool implicit = false;       // the domain has no MX: it is its own host
  MxOutcome host_outcome = MxOutcome::kNoAddress;
  std::string detail;
};

CachingMxResolver::CachingMxResolver(Executor& executor, DnsClient& client,
                                     MxResolverOptions options, uint64_t seed)
    : executor_(executor), client_(client), options_(options), random_(seed) {}

CachingMxResolver::~CachingMxResolver() {
  if (slow_timer_ != 0) executor_.Cancel(slow_timer_);
}

MxResolverStats CachingMxResolver::stats() const {
  MxResolverStats stats = stats_;
  stats.cached_names = recent_.size();
  return stats;
}

void CachingMxResolver::SetMaxLookups(size_t names) {
  max_lookups_ = names == 0 ? options_.max_lookups_under_way : names;
  counts_slow_ = names != 0;
  StartNext();
}

void CachingMxResolver::Resolve(std::string_view domain, Done done) {
  if (std::optional<std::string> address = AddressOfLiteral(domain)) {
    done(OneAddress(*std::move(address)));
    return;
  }
  Lookup(absl::StrCat("M", absl::string_view(domain.data(), domain.size())), std::move(done));
}

void CachingMxResolver::ResolveHost(std::string_view host, Done done) {
  std::string name(host);
  if (std::optional<std::string> address = AddressOfLiteral(host)) name = *std::move(address);
  if (IsIpAddress(name)) {
    done(OneAddress(std::move(name)));
    return;
  }
  Lookup(absl::StrCat("H", name), std::move(done));
}

void CachingMxResolver::Refresh(std::string_view domain, MonotonicTime until, Done done) {
  Lookup(absl::StrCat("M", absl::string_view(domain.data(), domain.size())), std::move(done),
         until);
}

void CachingMxResolver::Lookup(Key key, Done done, MonotonicTime until) {
  absl::AsciiStrToLower(&key);
  key[0] = absl::ascii_toupper(static_cast<unsigned char>(key[0]));
  if (key.size() > 1 && key.back() == '.') key.pop_back();
  const MonotonicTime now = executor_.clock().Now();
  auto& slot = entries_[key];
  if (slot == nullptr) {
    slot = std::make_unique<Entry>();
    slot->key = key;
  } else if (slot->result != nullptr) {
    if (now < slot->result->expires && until <= slot->result->expires) {
      ++stats_.hits;
      Touch(*slot);
      std::shared_ptr<const MxResult> result = slot->result;
      done(std::move(result));
      return;
    }
    recent_.erase(slot->place);
    slot->before = now < slot->result->expires ? slot->result : nullptr;
    slot->result = nullptr;
  } else if (slot->before != nullptr && now < slot->before->expires) {
    ++stats_.hits;
    std::shared_ptr<const MxResult> before = slot->before;
    done(std::move(before));
    return;
  } else {
    slot->waiting.push_back(std::move(done));
    return;
  }
  slot->until = until;
  slot->waiting.push_back(std::move(done));
  ++stats_.lookups;
  // A host is asked for on behalf of a domain that already holds a place: it must not wait behind
  // domains, or all places could be held by domains that wait for their hosts.
  if (key[0] == 'H') {
    StartHost(key);
    return;
  }
  waiting_.push_back(std::move(key));
  StartNext();
}

void CachingMxResolver::StartNext() {
  while (under_way_ < max_lookups_ && !waiting_.empty()) {
    const Key key = std::move(waiting_.front());
    waiting_.pop_front();
    ++under_way_;
    const MonotonicTime now = executor_.clock().Now();
    entries_.at(key)->started = now;
    started_.emplace_back(now, key);
    if (slow_timer_ == 0) {
      slow_timer_ = executor_.At(now + options_.slow_after, [this] { SetSlowAside(); });
    }
    StartMx(key);
  }
}

// Lookups that take long give their places to others.
void CachingMxResolver::SetSlowAside() {
  constexpr Duration kLookAgain = std::chrono::milliseconds(50);
  const MonotonicTime now = executor_.clock().Now();
  while (!started_.empty() && started_.front().first + options_.slow_after <= now) {
    const auto& [when, key] = started_.front();
    const auto found = entries_.find(key);
    if (found != entries_.end() && found->second->result == nullptr &&
        found->second->started == when && !found->second->slow) {
      if (counts_slow_ || slow_ >= options_.max_slow_lookups) break;  // until one has ended
      found->second->slow = true;
      ++slow_;
      --under_way_;
    }
    started_.pop_front();
  }
  slow_timer_ = 0;
  if (!started_.empty()) {
    const MonotonicTime next =
        std::max(now + kLookAgain, started_.front().first + options_.slow_after);
    slow_timer_ = executor_.At(next, [this] { SetSlowAside(); });
  }
  StartNext();
}

void CachingMxResolver::EndLookup(Entry& entry) {
  if (std::exchange(entry.slow, false)) {
    --slow_;
  } else {
    --under_way_;
  }
}

void CachingMxResolver::StartMx(const Key& key) {
  client_.Query(key.substr(1), DnsType::kMx,
                [this, key, alive = std::weak_ptr<bool>(alive_)](DnsAnswer answer) {
                  if (!alive.expired()) OnMx(key, std::move(answer));
                });
}

void CachingMxResolver::OnMx(const Key& key, DnsAnswer answer) {
  const std::string name = key.substr(1);
  MxResult result;
  switch (answer.status) {
    case DnsStatus::kFailed:
      result.outcome = MxOutcome::kTemporary;
      result.detail = absl::StrCat("MX of ", name, ": ", answer.detail);
      Finish(key, std::move(result), 0);
      return;
    case DnsStatus::kNxDomain:
      result.outcome = MxOutcome::kNoSuchDomain;
      result.detail = absl::StrCat("domain ", name, " does not exist (NXDOMAIN)");
      Finish(key, std::move(result), answer.ttl_s);
      return;
    case DnsStatus::kNoData:
      // RFC 5321 section 5.1: no MX means that the domain is its own host.
      GatherHosts(key, {MxHost{name, 0, {}}}, answer, true);
      return;
    case DnsStatus::kAnswer:
      break;
  }
  if (answer.records.size() == 1 && answer.records[0].data.empty()) {
    result.outcome = MxOutcome::kNullMx;
    result.detail = absl::StrCat("domain ", name, " takes no mail (null MX, RFC 7505)");
    Finish(key, std::move(result), answer.ttl_s);
    return;
  }
  std::vector<MxHost> sorted;
  for (DnsRecord& record : answer.records) {
    if (record.data.empty()) continue;  // a root among others is no host
    sorted.push_back({std::move(record.data), record.preference, {}});
  }
  std::shuffle(sorted.begin(), sorted.end(), random_);
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const MxHost& a, const MxHost& b) { return a.preference < b.preference; });
  std::vector<MxHost> hosts;
  for (MxHost& each : sorted) {
    if (hosts.size() == options_.max_mx_hosts) {
      ++stats_.cut;
      break;
    }
    const bool known = std::any_of(hosts.begin(), hosts.end(),
                                   [&each](const MxHost& host) { return host.name == each.name; });
    if (!known) hosts.push_back(std::move(each));
  }
  GatherHosts(key, std::move(hosts), answer, false);
}

void CachingMxResolver::GatherHosts(const Key& key, std::vector<MxHost> hosts, const DnsAnswer& mx,
                                    bool implicit) {
  auto gather = std::make_shared<Gather>();
  gather->key = key;
  gather->hosts = std::move(hosts);
  gather->ttl_s = mx.ttl_s;
  gather->authenticated = mx.authenticated;
  gather->canonical = mx.canonical;
  gather->implicit = implicit;
  const MonotonicTime until = entries_.at(gather->key)->until;
  // One more than there are, so that answers from the cache cannot finish it before all are asked.
  gather->missing = gather->hosts.size() + 1;
  for (size_t i = 0; i < gather->hosts.size(); ++i) {
    auto found_host = [this, gather, i](std::shared_ptr<const MxResult> found) {
      MxHost& host = gather->hosts[i];
      if (found->outcome == MxOutcome::kFound) {
        host.addresses = found->hosts.front().addresses;
      } else {
        gather->any_temporary |= found->outcome == MxOutcome::kTemporary;
        gather->host_outcome = found->outcome;
        gather->detail = found->detail;
      }
      const auto left = std::chrono::duration_cast<std::chrono::seconds>(
          std::min<Duration>(found->expires - executor_.clock().Now(), options_.max_ttl));
      gather->ttl_s = std::min<uint32_t>(gather->ttl_s,
                                         static_cast<uint32_t>(std::max<int64_t>(0, left.count())));
      if (--gather->missing == 0) FinishGather(gather);
    };
    const std::string& host = gather->hosts[i].name;
    if (until == MonotonicTime{} || IsIpAddress(host)) {
      ResolveHost(host, std::move(found_host));
    } else {
      Lookup(absl::StrCat("H", host), std::move(found_host), until);
    }
  }
  if (--gather->missing == 0) FinishGather(gather);
}

void CachingMxResolver::FinishGather(const std::shared_ptr<Gather>& gather) {
  MxResult result;
  const bool found = std::any_of(gather->hosts.begin(), gather->hosts.end(),
                                 [](const MxHost& host) { return !host.addresses.empty(); });
  const std::string name = gather->key.substr(1);
  if (found) {
    result.outcome = MxOutcome::kFound;
    result.hosts = std::move(gather->hosts);
    result.site = SiteOf(result.hosts);
    result.authenticated = gather->authenticated;
    result.canonical = std::move(gather->canonical);
  } else if (gather->any_temporary) {
    result.outcome = MxOutcome::kTemporary;
    result.detail = std::move(gather->detail);
  } else if (gather->implicit && gather->host_outcome == MxOutcome::kNoSuchDomain) {
    result.outcome = MxOutcome::kNoSuchDomain;
    result.detail = std::move(gather->detail);
  } else {
    result.outcome = MxOutcome::kNoAddress;
    result.detail = gather->implicit
                        ? absl::StrCat("domain ", name, " has neither MX nor address")
                        : absl::StrCat("no MX of ", name, " has an address: ", gather->detail);
  }
  Finish(gather->key, std::move(result), gather->ttl_s);
}

void CachingMxResolver::StartHost(const Key& key) {
  struct Pair {
    DnsAnswer a;
    DnsAnswer aaaa;
    int missing;
  };
  auto pair = std::make_shared<Pair>();
  pair->missing = options_.use_ipv6 ? 2 : 1;
  pair->aaaa.status = DnsStatus::kNoData;
  pair->aaaa.ttl_s = 0x7fffffffU;
  auto finish = [this, key, pair, alive = std::weak_ptr<bool>(alive_)] {
    if (alive.expired() || --pair->missing > 0) return;
    const std::string name = key.substr(1);
    MxResult result;
    MxHost host{name, 0, {}};
    uint32_t ttl_s = 0x7fffffffU;
    bool failed = false;
    if (pair->a.records.size() + pair->aaaa.records.size() > options_.max_addresses_per_host) {
      ++stats_.cut;
    }
    for (const DnsAnswer* answer : {&pair->a, &pair->aaaa}) {
      failed |= answer->status == DnsStatus::kFailed;
      ttl_s = std::min(ttl_s, answer->ttl_s);
      for (const DnsRecord& record : answer->records) {
        if (host.addresses.size() < options_.max_addresses_per_host) {
          host.addresses.push_back(record.data);
        }
      }
    }
    if (!host.addresses.empty()) {
      result.outcome = MxOutcome::kFound;
      result.site = name;
      result.hosts.push_back(std::move(host));
    } else if (failed) {
      result.outcome = MxOutcome::kTemporary;
      result.detail =
          absl::StrCat("address of ", name, ": ",
                       pair->a.status == DnsStatus::kFailed ? pair->a.detail : pair->aaaa.detail);
    } else if (pair->a.status == DnsStatus::kNxDomain) {
      result.outcome = MxOutcome::kNoSuchDomain;
      result.detail = absl::StrCat("host ", name, " does not exist (NXDOMAIN)");
    } else {
      result.outcome = MxOutcome::kNoAddress;
      result.detail = absl::StrCat("host ", name, " has no address");
    }
    Finish(key, std::move(result), ttl_s);
  };
  const std::string name = key.substr(1);
  client_.Query(name, DnsType::kA, [pair, finish](DnsAnswer answer) mutable {
    pair->a = std::move(answer);
    finish();
  });
  if (!options_.use_ipv6) return;
  client_.Query(name, DnsType::kAaaa, [pair, finish](DnsAnswer answer) mutable {
    pair->aaaa = std::move(answer);
    finish();
  });
}

void CachingMxResolver::Finish(const Key& key, MxResult result, uint32_t ttl_s) {
  const auto found = entries_.find(key);
  Entry& entry = *found->second;
  Duration ttl =
      std::clamp<Duration>(std::chrono::seconds(ttl_s), options_.min_ttl, options_.max_ttl);
  if (result.outcome == MxOutcome::kTemporary) {
    ttl = options_.temporary_ttl;
    ++stats_.failures;
  }
  const MonotonicTime now = executor_.clock().Now();
  result.expires = now + ttl;
  const auto before = std::exchange(entry.before, nullptr);
  if (result.outcome == MxOutcome::kTemporary && before != nullptr && now < before->expires) {
    entry.result = before;
  } else {
    entry.result = std::make_shared<const MxResult>(std::move(result));
  }
  recent_.push_front(&entry);
  entry.place = recent_.begin();
  const std::shared_ptr<const MxResult> shared = entry.result;
  std::vector<Done> waiting = std::move(entry.waiting);
  entry.waiting.clear();
  const bool is_domain = key[0] == 'M';
  if (is_domain) EndLookup(entry);
  while (recent_.size() > options_.max_cached_names) EvictOne();

  const std::weak_ptr<bool> alive = alive_;
  for (Done& done : waiting) {
    done(shared);
    if (alive.expired()) return;
  }
  if (is_domain) StartNext();
}

void CachingMxResolver::Touch(Entry& entry) {
  recent_.splice(recent_.begin(), recent_, entry.place);
}

void CachingMxResolver::EvictOne() {
  Entry* oldest = recent_.back();
  recent_.pop_back();
  entries_.erase(oldest->key);
}

}  // namespace sluice::delivery
