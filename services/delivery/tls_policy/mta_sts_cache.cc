#include "services/delivery/tls_policy/mta_sts_cache.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace sluice::delivery {
namespace {

constexpr std::string_view kFileHead = "sluice-mta-sts 1\n";
constexpr size_t kMaxReasonBytes = 500;

bool ReadNumber(std::string_view text, int64_t* value) {
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && stop == text.data() + text.size();
}

}  // namespace

struct MtaStsCache::Entry {
  std::string domain;
  std::shared_ptr<const MtaStsResult> result = std::make_shared<const MtaStsResult>();
  WallTime expires{};             // of the policy, where there is one
  MonotonicTime checked_until{};  // the TXT record need not be asked for
  MonotonicTime rechecked{};
  std::string fetching_id;  // a fetch is under way or waits its turn
  std::string failed_id;
  MonotonicTime no_fetch_until{};  // of failed_id
  bool asking = false;             // TXT under way
  std::vector<Done> waiting;
  std::list<Entry*>* list = nullptr;
  std::list<Entry*>::iterator place;

  // Cannot be forgotten now.
  bool busy() const { return asking || !fetching_id.empty() || !waiting.empty(); }
};

MtaStsCache::MtaStsCache(Executor& executor, DnsClient& dns, PolicyFetcher& fetcher,
                         MtaStsOptions options)
    : executor_(executor), dns_(dns), fetcher_(fetcher), options_(options) {}

MtaStsCache::~MtaStsCache() = default;

MtaStsCache::Entry& MtaStsCache::Get(const std::string& domain) {
  std::unique_ptr<Entry>& slot = entries_[domain];
  if (slot == nullptr) {
    slot = std::make_unique<Entry>();
    slot->domain = domain;
  }
  Place(*slot);
  return *slot;
}

// To the front of its list; what is over the list's bound is forgotten.
void MtaStsCache::Place(Entry& entry) {
  if (entry.list != nullptr) entry.list->erase(entry.place);
  entry.list = entry.result->found ? &with_ : &without_;
  entry.list->push_front(&entry);
  entry.place = entry.list->begin();
  const size_t most = entry.list == &with_ ? options_.max_policies : options_.max_without;
  auto each = entry.list->end();
  size_t excess = entry.list->size() > most ? entry.list->size() - most : 0;
  // Those that somebody waits for stay; they are bounded by their askers.
  for (size_t looked = 0; excess > 0 && each != entry.list->begin() && looked < 64; ++looked) {
    --each;
    if (*each == &entry || (*each)->busy()) continue;
    Entry* victim = *each;
    each = entry.list->erase(each);
    if (victim->result->found) ++changes_;
    entries_.erase(std::string(victim->domain));
    --excess;
  }
}

void MtaStsCache::DropExpired(Entry& entry) {
  if (!entry.result->found || entry.expires > executor_.clock().WallNow()) return;
  entry.result = std::make_shared<const MtaStsResult>();
  entry.checked_until = {};  // the record may announce a policy still
  ++changes_;
  Place(entry);
}

void MtaStsCache::Lookup(std::string_view domain, Done done) {
  ++stats_.lookups;
  const std::string name(domain);
  Entry& entry = Get(name);
  const MonotonicTime now = executor_.clock().Now();
  DropExpired(entry);
  // A refresh of the policy that we have holds nobody up.
  const bool fetching_first = !entry.fetching_id.empty() && entry.fetching_id != entry.result->id;
  if (!entry.asking && !fetching_first && now < entry.checked_until) {
    done(entry.result);
    return;
  }
  entry.waiting.push_back(std::move(done));
  if (entry.asking || fetching_first) return;
  entry.asking = true;
  dns_.Query(absl::StrCat("_mta-sts.", name), DnsType::kTxt,
             [this, name, alive = std::weak_ptr<bool>(alive_)](DnsAnswer answer) {
               if (!alive.expired()) OnTxt(name, std::move(answer));
             });
}

void MtaStsCache::OnTxt(const std::string& domain, DnsAnswer answer) {
  Entry& entry = *entries_.at(domain);
  entry.asking = false;
  const MonotonicTime now = executor_.clock().Now();
  entry.checked_until = now + std::clamp<Duration>(std::chrono::seconds(answer.ttl_s),
                                                   options_.min_recheck, options_.max_recheck);
  DropExpired(entry);
  std::vector<std::string> records;
  for (const DnsRecord& record : answer.records) {
    if (auto text = JoinTxt(record.data)) records.push_back(*std::move(text));
  }
  auto id = FindMtaStsId(records);
  if (!id) {
    // Nothing announced, or nothing known: the policy that we have holds until it expires.
    if (!entry.result->found && !entry.result->failure_type.empty()) {
      entry.result = std::make_shared<const MtaStsResult>();
    }
    Answer(entry);
    return;
  }
  const bool same = entry.result->found && entry.result->id == *id;
  if (*id == entry.failed_id && now < entry.no_fetch_until) {
    Answer(entry);
    return;
  }
  if (same) {
    // In time before it expires, and without making anybody wait.
    const Duration left = entry.expires - executor_.clock().WallNow();
    if (left < std::chrono::seconds(entry.result->policy.max_age_s) / 2) {
      WantFetch(domain, *std::move(id));
    }
    Answer(*entries_.at(domain));
    return;
  }
  WantFetch(domain, *std::move(id));
}

void MtaStsCache::WantFetch(const std::string& domain, std::string id) {
  Entry& entry = *entries_.at(domain);
  if (!std::exchange(entry.fetching_id, std::move(id)).empty()) return;
  to_fetch_.push_back(domain);
  StartFetches();
}

void MtaStsCache::StartFetches() {
  while (fetching_ < options_.max_fetches && !to_fetch_.empty()) {
    const std::string domain = std::move(to_fetch_.front());
    to_fetch_.pop_front();
    ++fetching_;
    ++stats_.fetches;
    fetcher_.Fetch(domain, [this, domain,
                            alive = std::weak_ptr<bool>(alive_)](absl::StatusOr<std::string> text) {
      if (!alive.expired()) OnFetched(domain, std::move(text));
    });
  }
}

void MtaStsCache::OnFetched(const std::string& domain, absl::StatusOr<std::string> text) {
  Entry& entry = *entries_.at(domain);
  const std::string id = std::exchange(entry.fetching_id, {});
  --fetching_;
  absl::StatusOr<MtaStsPolicy> policy =
      text.ok() ? ParseMtaStsPolicy(*text) : absl::StatusOr<MtaStsPolicy>(text.status());
  if (policy.ok()) {
    auto result = std::make_shared<MtaStsResult>();
    entry.expires = executor_.clock().WallNow() + Lifetime(*policy);
    result->policy = *std::move(policy);
    result->id = id;
    result->found = true;
    entry.result = std::move(result);
    entry.failed_id.clear();
    ++changes_;
  } else {
    ++stats_.fetch_failures;
    entry.failed_id = id;
    entry.no_fetch_until = executor_.clock().Now() + options_.fetch_backoff;
    auto result = std::make_shared<MtaStsResult>(*entry.result);
    result->failure_type = text.ok()                                ? "sts-policy-invalid"
                           : absl::IsUnauthenticated(text.status()) ? "sts-webpki-invalid"
                                                                    : "sts-policy-fetch-error";
    result->failure_reason = std::string(policy.status().message().substr(0, kMaxReasonBytes));
    entry.result = std::move(result);
  }
  Place(entry);
  const std::weak_ptr<bool> alive = alive_;
  Answer(entry);
  if (!alive.expired()) StartFetches();
}

void MtaStsCache::Answer(Entry& entry) {
  const std::shared_ptr<const MtaStsResult> result = entry.result;
  std::vector<Done> waiting = std::exchange(entry.waiting, {});
  const std::weak_ptr<bool> alive = alive_;
  for (Done& done : waiting) {
    done(result);
    if (alive.expired()) return;
  }
}

void MtaStsCache::Recheck(std::string_view domain) {
  const auto found = entries_.find(std::string(domain));
  if (found == entries_.end()) return;
  Entry& entry = *found->second;
  const MonotonicTime now = executor_.clock().Now();
  if (entry.rechecked != MonotonicTime{} && now - entry.rechecked < options_.min_recheck) return;
  entry.rechecked = now;
  entry.checked_until = now;
}

Duration MtaStsCache::Lifetime(const MtaStsPolicy& policy) const {
  return std::max<Duration>(std::chrono::seconds(policy.max_age_s), options_.min_lifetime);
}

std::string MtaStsCache::Save() const {
  std::string text(kFileHead);
  const WallTime now = executor_.clock().WallNow();
  // The least recently used first, so that Load leaves them in the same order.
  for (auto each = with_.rbegin(); each != with_.rend(); ++each) {
    const Entry& entry = **each;
    if (entry.expires <= now) continue;
    const MtaStsPolicy& policy = entry.result->policy;
    absl::StrAppend(&text, entry.domain, " ", entry.result->id, " ",
                    ToUnixMicros(entry.expires) / 1'000'000, " ", policy.max_age_s, " ",
                    MtaStsModeName(policy.mode).data(), " ",
                    policy.mx.empty() ? "-" : absl::StrJoin(policy.mx, ","), "\n");
  }
  return text;
}

void MtaStsCache::Load(std::string_view saved) {
  if (!saved.starts_with(kFileHead)) return;
  const WallTime now = executor_.clock().WallNow();
  for (absl::string_view line :
       absl::StrSplit(absl::string_view(saved.data(), saved.size()), '\n')) {
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    int64_t expires_s = 0;
    int64_t max_age_s = 0;
    if (fields.size() != 6 || fields[0].empty() || !ReadNumber(fields[2], &expires_s) ||
        !ReadNumber(fields[3], &max_age_s) || max_age_s < 0 || max_age_s > kMaxMtaStsAgeSeconds ||
        expires_s < 0 || expires_s > (int64_t{1} << 40)) {
      continue;
    }
    auto result = std::make_shared<MtaStsResult>();
    result->found = true;
    result->id = fields[1];
    result->policy.max_age_s = static_cast<uint32_t>(max_age_s);
    if (fields[4] == "enforce") {
      result->policy.mode = MtaStsMode::kEnforce;
    } else if (fields[4] == "testing") {
      result->policy.mode = MtaStsMode::kTesting;
    } else if (fields[4] != "none") {
      continue;
    }
    if (fields[5] != "-") result->policy.mx = absl::StrSplit(fields[5], ',');
    if (result->policy.mode != MtaStsMode::kNone && result->policy.mx.empty()) continue;
    // A clock that was wrong when it was written must not keep a policy for ever.
    const WallTime expires =
        std::min<WallTime>(FromUnixMicros(expires_s * 1'000'000), now + Lifetime(result->policy));
    if (expires <= now) continue;
    Entry& entry = Get(fields[0]);
    if (entry.busy()) continue;
    entry.expires = expires;
    entry.result = std::move(result);
    Place(entry);
  }
}

MtaStsStats MtaStsCache::stats() const {
  MtaStsStats stats = stats_;
  stats.policies = with_.size();
  stats.without = without_.size();
  return stats;
}

}  // namespace sluice::delivery
