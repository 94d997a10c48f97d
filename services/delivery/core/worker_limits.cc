// Limits that queues share: of a virtual MTA, a pool, a source, and of all. What they are, and how
// many connections count against each.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

RatePacer PacerOf(uint64_t count, uint64_t period_us, const RatePacer& old, MonotonicTime unknown) {
  return RatePacer::InPlaceOf(old, count, Duration(period_us), 1, unknown);
}

}  // namespace

// False where this worker has no part of it, and somebody else has.
bool Worker::SetLimiter(Limiter& limiter, uint64_t most, const policy::v1::Rate* rate,
                        const policy::v1::Rate* volume, const Share& share_of) {
  bool any = true;
  limiter.most = SIZE_MAX;
  limiter.divided = false;
  if (most > 0) {
    limiter.most = share_of(most);
    limiter.divided = limiter.most < most;
    any &= limiter.most > 0;
  }
  if (rate != nullptr && !rate->unlimited()) {
    const uint64_t share = share_of(rate->count());
    any &= share > 0 || rate->count() == 0;
    limiter.pacer = PacerOf(share, rate->period_us(), limiter.pacer, executor_.clock().Now());
  } else {
    limiter.pacer = RatePacer();
  }
  limiter.busy = BusyAt(limiter.pacer);
  limiter.volume_cap = RateCap{"max-smtp-data-volume-rate"};
  if (volume != nullptr && !volume->unlimited()) {
    const uint64_t had = std::exchange(limiter.volume_share, share_of(volume->count()));
    const bool same = std::exchange(limiter.volume_count, volume->count()) == volume->count();
    any &= limiter.volume_share > 0 || volume->count() == 0;
    limiter.volume_cap.count = limiter.volume_share;
    limiter.volume_cap.period = Duration(volume->period_us());
    const bool fresh = limiter.volume == nullptr;
    if (fresh) limiter.volume = std::make_unique<VolumeWindow>();
    limiter.volume->Stop(false);
    limiter.volume->Limit(executor_.clock().Now(), limiter.volume_share, limiter.volume_cap.period);
    const bool first = fresh || (knows_past_ && had == 0);
    if (first && limiter.volume_share > 0) {
      FirstVolume(limiter.volume_key, limiter.volume.get());
    } else if (same && limiter.volume_share > had) {
      // What comes to us may have been used by who had it.
      limiter.volume->Count(executor_.clock().Now(), limiter.volume_share - had);
    }
  } else if (limiter.volume != nullptr) {
    limiter.volume->Unlimit();
  }
  return any;
}

// A pool has queues that go on without the lease beside others that end with it: those have their
// own part alone, for what came with the lease may be somebody else's by now. What was counted
// stays, as the lease may come back.
void Worker::HoldWithoutLease(Limiter& limiter, const policy::v1::PoolSection& pool,
                              const std::vector<std::string>& sources) {
  const auto share_of = [&](uint64_t limit) { return ShareOf(limit, sources, false); };
  if (pool.max_smtp_out() > 0) {
    limiter.most = share_of(pool.max_smtp_out());
    limiter.divided = limiter.most < pool.max_smtp_out();
  }
  const MonotonicTime now = executor_.clock().Now();
  if (limiter.pacer.limited()) {
    const policy::v1::Rate& rate = pool.max_smtp_msg_rate();
    if (const uint64_t share = share_of(rate.count()); share > 0) {
      limiter.pacer = PacerOf(share, rate.period_us(), limiter.pacer, now);
    } else {
      limiter.pacer.Stop();
    }
    limiter.busy = BusyAt(limiter.pacer);
  }
  if (limiter.has_volume()) {
    const uint64_t share = share_of(pool.max_smtp_data_volume_rate().count());
    limiter.volume->Stop(share == 0);
    if (share > 0) limiter.volume->Limit(now, share, limiter.volume_cap.period);
  }
}

Worker::VmtaLimits& Worker::LimitsOf(const std::string& vmta) {
  std::unique_ptr<VmtaLimits>& slot = vmta_limits_[absl::AsciiStrToLower(vmta)];
  if (slot == nullptr) {
    slot = std::make_unique<VmtaLimits>();
    slot->own.what = "virtual MTA";
    slot->own.volume_key = absl::StrCat("\nvirtual-mta\n", absl::AsciiStrToLower(vmta));
  }
  return *slot;
}

void Worker::SetSourceLimits(Source& source) {
  source.what = absl::StrCat("source ", source.ip);
  const auto settings = policy_->ForSource(source.ip);
  source.public_ip = settings->public_ip();
  SetLimiter(source, settings->max_smtp_out(),
             settings->has_max_msg_rate() ? &settings->max_msg_rate() : nullptr, nullptr,
             [](uint64_t limit) { return limit; });
}

// Virtual MTAs of which this worker may have connections go to `owned`.
void Worker::SetLimits(std::vector<std::string>* owned) {
  total_.directive = "total-max-smtp-out";
  total_.what = "this worker";
  total_.most = std::min<size_t>(options_.max_connections, policy_->global().total_max_smtp_out());
  for (const auto& [name, limits] : vmta_limits_) limits->pools.clear();
  absl::flat_hash_map<std::string, std::vector<std::string>> sources_of;
  for (const auto* vmta : policy_->virtual_mtas()) {
    const std::string key = absl::AsciiStrToLower(vmta->name());
    for (const auto& host : vmta->source_hosts()) sources_of[key].push_back(host.ip());
  }
  absl::flat_hash_set<std::string> without;
  for (const auto* pool : policy_->pools()) {
    if (pool->max_smtp_out() == 0 &&
        (!pool->has_max_smtp_msg_rate() || pool->max_smtp_msg_rate().unlimited()) &&
        (!pool->has_max_smtp_data_volume_rate() || pool->max_smtp_data_volume_rate().unlimited())) {
      continue;
    }
    std::unique_ptr<Limiter>& slot = pool_limits_[pool->name()];
    if (slot == nullptr) slot = std::make_unique<Limiter>();
    slot->what = absl::StrCat("pool ", pool->name());
    slot->volume_key = absl::StrCat("\npool\n", pool->name());
    std::vector<std::string> sources;
    for (const std::string& member : pool->virtual_mtas()) {
      for (const std::string& ip : sources_of[absl::AsciiStrToLower(member)]) {
        if (std::find(sources.begin(), sources.end(), ip) == sources.end()) sources.push_back(ip);
      }
    }
    const bool any = SetLimiter(
        *slot, pool->max_smtp_out(),
        pool->has_max_smtp_msg_rate() ? &pool->max_smtp_msg_rate() : nullptr,
        pool->has_max_smtp_data_volume_rate() ? &pool->max_smtp_data_volume_rate() : nullptr,
        [&](uint64_t limit) { return ShareOf(limit, sources, true); });
    if (options_.follows_owners && !HasLease()) HoldWithoutLease(*slot, *pool, sources);
    for (const std::string& member : pool->virtual_mtas()) {
      LimitsOf(member).pools.push_back(slot.get());
      if (!any) without.insert(absl::AsciiStrToLower(member));
    }
  }
  for (const auto* vmta : policy_->virtual_mtas()) {
    const std::string key = absl::AsciiStrToLower(vmta->name());
    VmtaLimits& limits = LimitsOf(vmta->name());
    if (!SetLimiter(
            limits.own, vmta->max_smtp_out(),
            vmta->has_max_smtp_msg_rate() ? &vmta->max_smtp_msg_rate() : nullptr,
            vmta->has_max_smtp_data_volume_rate() ? &vmta->max_smtp_data_volume_rate() : nullptr,
            [&](uint64_t limit) { return ShareOf(limit, vmta->name(), sources_of[key]); })) {
      without.insert(key);
    }
    limits.FollowPaces();
  }
  // The policy service's table, which may change at any time, is no matter of the hello.
  if (options_.follows_owners) without.clear();
  std::erase_if(*owned, [&without](const std::string& name) {
    return without.contains(absl::AsciiStrToLower(name));
  });
  // The members of a pool may have changed.
  for (const auto& [name, limiter] : pool_limits_) limiter->connections = 0;
  for (const auto& [name, limits] : vmta_limits_) limits->own.connections = 0;
  for (const auto& [name, rollup] : rollups_) {
    for (Limiter* limiter : rollup->limiters()) limiter->connections = 0;
    LinkRollup(LimitsOf(rollup->vmta), *rollup);
  }
  for (const auto& [name, queue] : queues_) {
    CountVmta(*queue->limits, static_cast<int>(queue->conns.size()));
  }
  SetSourcesHeld();
  SetHostLimits();
  unknown_since_ = executor_.clock().Now();
  SetDomainParts();
  for (const auto& [name, limits] : vmta_limits_) RearmPace(limits->own);
  for (const auto& [name, limiter] : pool_limits_) RearmPace(*limiter);
  for (const auto& [name, rollup] : rollups_) {
    for (Limiter* limiter : rollup->limiters()) RearmPace(*limiter);
  }
  for (const auto& [name, limit] : domain_limits_) RearmPace(*limit);
}

void Worker::CountVmta(VmtaLimits& limits, int change) {
  limits.own.connections += static_cast<size_t>(change);
  for (Limiter* pool : limits.pools) pool->connections += static_cast<size_t>(change);
}

void Worker::CountFor(Queue& queue, int change) {
  CountVmta(*queue.limits, change);
  for (Limiter* limit : queue.throttles) limit->connections += static_cast<size_t>(change);
}

}  // namespace sluice::delivery
