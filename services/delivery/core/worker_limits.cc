// Limits that queues share: of a virtual MTA, a pool, a source, and of all. A queue that finds one
// exhausted waits in its line; each place that comes free goes to the next one in line.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

// A connection that has served a queue for so long while others wait goes to the next.
constexpr Duration kTurn = std::chrono::seconds(10);
// A line as long as shards make it, or nearly so (ShardOptions::max_in_line).
constexpr size_t kLongLine = 1024;

RatePacer PacerOf(uint64_t count, uint64_t period_us, const RatePacer& old, MonotonicTime unknown) {
  return RatePacer::InPlaceOf(old, count, Duration(period_us), 1, unknown);
}

}  // namespace

// This worker's part of a limit that others share: as many of `sources` as it owns, and the rest of
// the division to the first ones. What needs no source is everybody's. Without the lease only that
// which nobody else can have been given.
uint64_t Worker::ShareOf(uint64_t limit, const std::vector<std::string>& sources,
                         bool with_lease) const {
  if (sources.empty()) return limit;
  uint64_t share = 0;
  for (size_t i = 0; i < sources.size(); ++i) {
    const bool mine =
        options_.follows_owners
            ? HasPartOf(sources[i]) && (with_lease || !owners_->SourceLeased(sources[i]))
            : Owns(sources[i]);
    if (mine) share += limit / sources.size() + (i < limit % sources.size() ? 1 : 0);
  }
  return share;
}

bool Worker::HasPartOf(const std::string& source) const {
  return owners_ != nullptr && owners_->MayUseSource(options_.name, source);
}

// Of a virtual MTA's own limit, all may be one worker's. Its queues are leased or not as one.
uint64_t Worker::ShareOf(uint64_t limit, const std::string& vmta,
                         const std::vector<std::string>& sources) const {
  if (owners_ == nullptr) return ShareOf(limit, sources, true);
  switch (owners_->PartOf(options_.name, vmta)) {
    case config::Owners::Part::kNone:
      return 0;
    case config::Owners::Part::kOfItsSources:
      return ShareOf(limit, sources, true);
    case config::Owners::Part::kAll:
      return limit;
  }
  return 0;
}

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

// The first shared limit, the source's apart, that lets the queue have no further connection: for a
// new one, or one that counts for another queue now (`instead`).
Worker::Limiter* Worker::FullFor(const Queue& queue, const Conn* instead) {
  const MonotonicTime now = executor_.clock().Now();
  const auto full = [&](Limiter& limiter) {
    if (!limiter.waiters.empty() && serving_ != &queue && instead == nullptr) return true;
    return !limiter.HasRoom(now);
  };
  if (instead == nullptr && full(total_)) return &total_;
  for (DomainLimit* limit : queue.throttles) {
    if ((instead == nullptr || !CountsAgainst(*instead, *limit)) && full(*limit)) return limit;
  }
  if (instead != nullptr && instead->queue->limits == queue.limits) return nullptr;
  if (full(queue.limits->own)) return &queue.limits->own;
  for (Limiter* pool : queue.limits->pools) {
    const bool same = instead != nullptr && std::find(instead->queue->limits->pools.begin(),
                                                      instead->queue->limits->pools.end(),
                                                      pool) != instead->queue->limits->pools.end();
    if (!same && full(*pool)) return pool;
  }
  return nullptr;
}

bool Worker::CountsAgainst(const Conn& conn, const Limiter& limiter) const {
  const VmtaLimits& limits = *conn.queue->limits;
  return &limiter == &total_ || &limiter == conn.source || &limiter == &limits.own ||
         std::find(limits.pools.begin(), limits.pools.end(), &limiter) != limits.pools.end() ||
         std::find(conn.hosts.begin(), conn.hosts.end(), &limiter) != conn.hosts.end() ||
         std::find(conn.queue->throttles.begin(), conn.queue->throttles.end(), &limiter) !=
             conn.queue->throttles.end();
}

// Whether it keeps every queue of the virtual MTA back alike.
bool Worker::HoldsAll(const Limiter& limiter, const Queue& queue) const {
  if (queue.rollup != nullptr) {  // its limits are no matter of the others
    const auto own = queue.rollup->limiters();
    if (std::find(own.begin(), own.end(), &limiter) != own.end()) return false;
  }
  const std::vector<Limiter*>& pools = queue.limits->pools;
  if (&limiter == &total_ || &limiter == &queue.limits->own ||
      std::find(pools.begin(), pools.end(), &limiter) != pools.end()) {
    return true;
  }
  const auto* vmta = policy_->FindVirtualMta(queue.vmta);
  if (vmta == nullptr) return false;
  const MonotonicTime now = executor_.clock().Now();
  bool is_source = false;
  for (const auto& host : vmta->source_hosts()) {
    const auto found = sources_.find(host.ip());
    if (found == sources_.end() || !MayUse(*found->second)) continue;
    if (found->second->HasRoom(now)) return false;
    is_source |= found->second.get() == &limiter;
  }
  return is_source;
}

// The queue joins the line, and says why it waits.
void Worker::Await(Limiter& limiter, Queue& queue) {
  const MonotonicTime now = executor_.clock().Now();
  const MonotonicTime next = limiter.pacer.Next(now);
  const bool in_line = HoldsAll(limiter, queue);
  const std::string rate = limiter.rate.empty()
                               ? absl::StrCat("rate of ", limiter.what)
                               : absl::StrCat(limiter.rate, " (", limiter.what, ")");
  if (next == MonotonicTime::max()) {
    Block(queue, limiter.rate.empty() ? absl::StrCat("rate 0 of ", limiter.what) : rate, next,
          in_line);
  } else if (next > now + kPaceAhead) {
    Block(queue, rate, next, in_line);
    PaceLater(limiter, next - kPaceAhead);
  } else if (limiter.busy < limiter.most) {
    Block(queue, rate, {}, in_line);
  } else {
    Block(queue,
          absl::StrCat(limiter.directive, " ", limiter.most, " (", limiter.what,
                       limiter.divided ? ", this worker's part)" : ")"),
          {}, in_line);
  }
  if (!std::exchange(queue.in_line, true)) {
    if (limiter.waiters.empty()) crowded_.push_back(&limiter);
    limiter.waiters.push_back(queue.name);
  }
  MakeRoom(limiter, queue);
}

// Its shards may announce another one in its place.
void Worker::LeftLine(Queue& queue) {
  if (!queue.told_in_line || queue.in_line || queue.resolving) return;
  Block(queue, {}, {});
}

// Whether the queue has had its turn, and so many stand before it for the next one that its shards
// keep the line: there may be others that had none yet.
bool Worker::IsBehindMany(Queue& queue) {
  if (crowded_.empty()) return false;
  Limiter* full = FullFor(queue, nullptr);
  if (full == nullptr && !ChooseSource(queue, std::nullopt)) full = SourceToAwait(queue);
  return full != nullptr && full->waiters.size() >= kLongLine && HoldsAll(*full, queue);
}

void Worker::FreedSlot() {
  if (crowded_.empty() || std::exchange(serve_posted_, true)) return;
  executor_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) ServeLines();
  });
}

void Worker::ServeLines() {
  serve_posted_ = false;
  const std::vector<Limiter*> crowded = std::exchange(crowded_, {});
  for (Limiter* limiter : crowded) {
    // One more than there are places: it may take over a connection that has nothing to do.
    bool spare = !idle_.empty();
    for (size_t left = limiter->waiters.size(); left > 0; --left) {
      const bool place = limiter->HasRoom(executor_.clock().Now());
      if (!place && !std::exchange(spare, false)) break;
      const std::string name = std::move(limiter->waiters.front());
      limiter->waiters.pop_front();
      const auto found = queues_.find(name);
      if (found == queues_.end()) continue;
      Queue& queue = *found->second;
      queue.in_line = false;
      serving_ = &queue;
      Pump(queue);
      serving_ = nullptr;
      if (const auto still = queues_.find(name); still != queues_.end()) LeftLine(*still->second);
    }
    if (limiter->waiters.empty()) continue;
    if (std::find(crowded_.begin(), crowded_.end(), limiter) == crowded_.end()) {
      crowded_.push_back(limiter);
    }
    // A place alone does not help where no token is near: nothing else would wake the line.
    const MonotonicTime now = executor_.clock().Now();
    const MonotonicTime next = limiter->pacer.Next(now);
    if (next > now + kPaceAhead) PaceLater(*limiter, next - kPaceAhead);
  }
}

// Whether the connection's place should go to the next in line.
bool Worker::TurnIsOver(const Conn& conn) const {
  if (crowded_.empty() || executor_.clock().Now() < conn.serving_since + kTurn) return false;
  return std::any_of(crowded_.begin(), crowded_.end(), [&](const Limiter* limiter) {
    return !limiter->waiters.empty() && CountsAgainst(conn, *limiter);
  });
}

// ---- The pace of shared limits

Worker::Limiter* Worker::SlowestPace(Queue& queue, Conn& conn, MonotonicTime* allowed) {
  const MonotonicTime now = executor_.clock().Now();
  Limiter* slowest = nullptr;
  const auto look = [&](Limiter& limiter) {
    if (!limiter.pacer.limited()) return;
    MonotonicTime next = limiter.pacer.Next(now);
    // Behind those that wait already.
    if (!limiter.pace_line.empty() && pacing_ != &queue) next = std::max(next, now + Duration(1));
    if (next > *allowed) {
      *allowed = next;
      slowest = &limiter;
    }
  };
  look(*conn.source);
  if (queue.limits->paced) {
    look(queue.limits->own);
    for (Limiter* pool : queue.limits->pools) look(*pool);
  }
  for (DomainLimit* limit : queue.throttles) look(*limit);
  const DomainLimit* after_replies = nullptr;
  if (const MonotonicTime next = NextAfterReplies(queue, &after_replies); next > *allowed) {
    *allowed = next;
    slowest = nullptr;
  }
  return slowest;
}

void Worker::ChargePace(Queue& queue, Conn& conn, uint64_t recipients) {
  const MonotonicTime now = executor_.clock().Now();
  queue.pace.Charge(now, recipients);
  if (conn.part != nullptr) conn.part->pace.Charge(now, recipients);
  conn.source->pacer.Charge(now, recipients);
  for (DomainLimit* limit : queue.throttles) limit->pacer.Charge(now, recipients);
  for (DomainLimit* limit : queue.reply_throttles) {
    if (now < limit->until) limit->pacer.Charge(now, recipients);
  }
  if (!queue.limits->paced) return;
  queue.limits->own.pacer.Charge(now, recipients);
  for (Limiter* pool : queue.limits->pools) pool->pacer.Charge(now, recipients);
}

std::string Worker::VolumeLimit(const Limiter& limiter) const {
  return WhyVolume(absl::StrCat(limiter.volume_cap.ToString(), " (", limiter.what, ")"),
                   *limiter.volume, executor_.clock().Now());
}

// When the virtual MTA and its pools have room for a message of that size of the queue.
MonotonicTime Worker::NextOfSharedVolume(const Queue& queue, uint64_t bytes, Limiter** limiter) {
  const MonotonicTime now = executor_.clock().Now();
  MonotonicTime next = now;
  if (!queue.limits->has_volume) return next;
  const auto look = [&](Limiter& shared) {
    if (!shared.has_volume()) return;
    const bool behind = shared.held_bytes > 0 && shared.held_queue != queue.name;
    const MonotonicTime when =
        shared.volume->Next(now, behind ? std::max(bytes, shared.held_bytes) : bytes);
    if (when <= next) return;
    next = when;
    *limiter = &shared;
  };
  look(queue.limits->own);
  for (Limiter* pool : queue.limits->pools) look(*pool);
  return next;
}

// True where nothing may leave for so long: it says so, and looks again before that.
bool Worker::BlockBySharedVolume(Queue& queue, Duration ahead) {
  if (!queue.limits->has_volume) return false;
  Limiter* limiter = nullptr;
  const MonotonicTime next = NextOfSharedVolume(queue, queue.held_bytes, &limiter);
  if (next <= executor_.clock().Now() + ahead) return false;
  Block(queue, VolumeLimit(*limiter), next);
  if (next != MonotonicTime::max()) WakeAt(queue, next - ahead);
  return true;
}

// The queue has sent its message, or is no more.
void Worker::ForgetHeld(const Queue& queue) {
  const auto forget = [&](Limiter& shared) {
    if (shared.held_queue == queue.name) shared.held_bytes = 0;
  };
  forget(queue.limits->own);
  for (Limiter* pool : queue.limits->pools) forget(*pool);
}

// The size of the message counts from here until its end is known, and then for a period.
void Worker::ReserveVolume(Queue& queue, Conn& conn, uint64_t bytes) {
  const MonotonicTime now = executor_.clock().Now();
  const auto reserve = [&](VolumeWindow& volume) {
    conn.volume.emplace_back(&volume, volume.Reserve(now, bytes));
  };
  if (queue.pace.has_volume()) reserve(*queue.pace.volume);
  if (conn.part != nullptr && conn.part->pace.has_volume()) reserve(*conn.part->pace.volume);
  if (!queue.limits->has_volume) return;
  if (queue.limits->own.has_volume()) reserve(*queue.limits->own.volume);
  for (Limiter* pool : queue.limits->pools) {
    if (pool->has_volume()) reserve(*pool->volume);
  }
  if (queue.held_bytes > 0) ForgetHeld(queue);
}

void Worker::SettleVolume(Conn& conn, bool sent) {
  const MonotonicTime now = executor_.clock().Now();
  for (const auto& [volume, reserved] : conn.volume) volume->Settle(now, reserved, sent);
  conn.volume.clear();
}

void Worker::AwaitPace(Limiter& limiter, Queue& queue) {
  if (!std::exchange(queue.in_pace_line, true)) limiter.pace_line.push_back(queue.name);
  RearmPace(limiter);
}

// Those in line behind a limit that let nothing pass have no time to wait for, until it has
// changed.
void Worker::RearmPace(Limiter& limiter) {
  if (!limiter.pace_line.empty()) {
    PaceLater(limiter, limiter.pacer.Next(executor_.clock().Now()));
  }
}

void Worker::PaceLater(Limiter& limiter, MonotonicTime when) {
  if (when == MonotonicTime::max()) return;
  if (limiter.timer != 0) {
    if (limiter.timer_at <= when) return;
    executor_.Cancel(limiter.timer);
  }
  limiter.timer_at = when;
  limiter.timer = executor_.At(when, [this, &limiter] {
    limiter.timer = 0;
    ServePace(limiter);
  });
}

void Worker::ServePace(Limiter& limiter) {
  for (size_t left = limiter.pace_line.size(); left > 0; --left) {
    const MonotonicTime now = executor_.clock().Now();
    const MonotonicTime next = limiter.pacer.Next(now);
    if (next > now) break;
    const std::string name = std::move(limiter.pace_line.front());
    limiter.pace_line.pop_front();
    const auto found = queues_.find(name);
    if (found == queues_.end()) continue;
    Queue& queue = *found->second;
    queue.in_pace_line = false;
    pacing_ = &queue;
    SendPaced(queue);
    pacing_ = nullptr;
    Pump(queue);
  }
  RearmPace(limiter);
  FreedSlot();
  if (!limiter.waiters.empty() && limiter.timer == 0) {
    const MonotonicTime next = limiter.pacer.Next(executor_.clock().Now());
    if (next > executor_.clock().Now() + kPaceAhead) PaceLater(limiter, next - kPaceAhead);
  }
}

}  // namespace sluice::delivery
