// <mx-rollup-list>: domains whose best MX matches a line have one set of settings and limits, one
// mode and one owner, per virtual MTA. Their mail stays apart, so that each domain's goes to its
// own hosts.
//
// A queue's own lookup puts it into a rollup before anything of it is sent, and a shard's word does
// so before the lookup. What leaves a rollup by DNS waits for the shards' word: workers whose
// resolvers disagree must not pass a queue to and fro.
#include <algorithm>
#include <limits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/config/domain_pattern.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

constexpr uint64_t kStale = std::numeric_limits<uint64_t>::max();  // of Queue::policy_version

// What is limited for all of them together is not limited for each.
void ClearShared(QueueCaps* caps) {
  caps->connections = 0;
  for (RateCap* cap : {&caps->messages, &caps->per_hour, &caps->connects, &caps->volume,
                       &caps->backoff_messages, &caps->backoff_per_hour, &caps->backoff_connects}) {
    cap->limited = false;
  }
}

// Of these, what a pace of its own counts.
QueueCaps OnlyConnects(const QueueCaps& caps) {
  QueueCaps connects = caps;
  ClearShared(&connects);
  connects.connects = caps.connects;
  connects.backoff_connects = caps.backoff_connects;
  return connects;
}

// Brings what is newer in `from` to `to`. False: nothing was.
bool TakeNewer(const std::vector<queue::v1::DisabledSource>& from,
               std::vector<queue::v1::DisabledSource>* to) {
  bool any = false;
  for (const queue::v1::DisabledSource& source : from) {
    auto known = std::find_if(to->begin(), to->end(),
                              [&](const auto& each) { return each.ip() == source.ip(); });
    if (known == to->end()) known = to->emplace(known);
    if (source.since_us() <= known->since_us()) continue;
    *known = source;
    known->clear_notify();  // one queue's word to people is enough
    any = true;
  }
  return any;
}

}  // namespace

bool Worker::IsRollup(std::string_view name) const {
  const auto& entries = policy_->mx_rollup().entries();
  return std::any_of(entries.begin(), entries.end(),
                     [name](const auto& entry) { return entry.queue() == name; });
}

// Where its own settings say the way, no MX is looked up.
bool Worker::MayRollUp(const Queue& queue) const {
  if (policy_->mx_rollup().entries().empty() || queue.tls_reports) return false;
  const auto own = policy_->ForQueue(queue.domain, queue.vmta, queue.pool);
  return !own->disable_mx_rollup() && own->smtp_hosts().values().empty() && !IsLocalEnd(*own);
}

// Of the first line that one of the best hosts matches; empty: of none.
std::string_view Worker::RollupByMx(const MxResult& route) const {
  uint16_t best = std::numeric_limits<uint16_t>::max();
  for (const MxHost& host : route.hosts) best = std::min(best, host.preference);
  for (const auto& entry : policy_->mx_rollup().entries()) {
    for (const MxHost& host : route.hosts) {
      if (host.preference == best && config::PatternMatches(entry.mx(), host.name)) {
        return entry.queue();
      }
    }
  }
  return {};
}

// By what is known of its MX; before a lookup, where it was or where a shard says it is.
std::string Worker::RollupFor(const Queue& queue) const {
  if (!MayRollUp(queue)) return "";
  if (queue.route != nullptr && queue.route->from_dns) {
    return std::string(RollupByMx(*queue.route));
  }
  if (queue.rollup != nullptr && IsRollup(queue.rollup->name)) return queue.rollup->name;
  for (const Ref& ref : queue.refs) {
    if (IsRollup(ref.rollup)) return ref.rollup;
  }
  return "";
}

std::shared_ptr<const policy::v1::QueueSettings> Worker::SettingsFor(const Queue& queue) const {
  auto own = policy_->ForQueue(queue.domain, queue.vmta, queue.pool);
  if (queue.rollup == nullptr) return own;
  auto shared = policy_->ForQueue(queue.rollup->name, queue.vmta, queue.pool);
  // What is asked of TLS with this domain is asked of it wherever its mail is counted, and the
  // source that a binding gives it stays.
  const bool tls = own->require_starttls() && !shared->require_starttls();
  const bool dane = own->use_dane() && !shared->use_dane();
  const bool mta_sts = own->use_mta_sts() && !shared->use_mta_sts();
  const bool bound = !own->source_interface().empty();
  if (!tls && !dane && !mta_sts && !bound) return shared;
  auto stricter = std::make_shared<policy::v1::QueueSettings>(*shared);
  if (tls) stricter->set_require_starttls(true);
  if (dane) stricter->set_use_dane(true);
  if (mta_sts) stricter->set_use_mta_sts(true);
  if (tls || dane || mta_sts) stricter->set_use_starttls(true);
  if (bound) stricter->set_source_interface(own->source_interface());
  return stricter;
}

Worker::Rollup& Worker::RollupOf(const std::string& name, const Queue& queue) {
  const std::string key = absl::StrCat(name, "/", queue.vmta);
  std::unique_ptr<Rollup>& slot = rollups_[absl::AsciiStrToLower(key)];
  if (slot == nullptr) {
    slot = std::make_unique<Rollup>();
    slot->name = name;
    slot->key = key;
    slot->vmta = queue.vmta;
    slot->pool = queue.pool;
    for (Limiter* limiter : slot->limiters()) limiter->what = absl::StrCat("all of ", name);
    slot->limits.own.volume_key = absl::StrCat(key, "\nrollup");
    LinkRollup(LimitsOf(slot->vmta), *slot);
  }
  return *slot;
}

// After the limits of virtual MTAs and pools were set, or its own.
void Worker::LinkRollup(VmtaLimits& vmta, Rollup& rollup) {
  VmtaLimits& limits = rollup.limits;
  limits.pools = {&vmta.own};
  limits.pools.insert(limits.pools.end(), vmta.pools.begin(), vmta.pools.end());
  for (Limiter* limiter : rollup.limiters()) {
    if (limiter != &limits.own) limits.pools.push_back(limiter);
  }
  limits.FollowPaces();
}

void Worker::SetRollupCaps(Rollup& rollup, bool backoff) {
  const MonotonicTime now = executor_.clock().Now();
  const auto settings = policy_->ForQueue(rollup.name, rollup.vmta, rollup.pool);
  const QueueCaps& caps = rollup.caps = CapsOf(*settings, backoff);
  // What was sent before the limit began to be counted is not known.
  const bool first = !std::exchange(rollup.counted, true);
  const MonotonicTime unknown = first ? std::max({started_, owners_since_, rollups_since_}) : now;
  const auto set = [&](Limiter& limiter, const RateCap& cap, uint32_t burst) {
    if (!cap.limited) {
      limiter.pacer = RatePacer();
      limiter.busy = SIZE_MAX;
      limiter.rate.clear();
      return;
    }
    limiter.pacer = RatePacer::InPlaceOf(limiter.pacer, cap.count, cap.period, burst, unknown);
    limiter.busy = limiter.pacer.CellsWithin(kPaceAhead);
    limiter.rate = cap.ToString();
  };
  Limiter& own = rollup.limits.own;
  own.directive = caps.connections_directive;
  own.most = caps.connections == 0 ? SIZE_MAX : caps.connections;
  set(own, caps.messages, caps.burst);
  set(rollup.per_hour, caps.per_hour, caps.burst);
  set(rollup.backoff_rate, backoff ? caps.backoff_messages : RateCap(), 1);
  set(rollup.backoff_per_hour, backoff ? caps.backoff_per_hour : RateCap(), 1);
  own.volume_cap = caps.volume;
  if (caps.volume.limited) {
    const bool fresh = own.volume == nullptr;
    if (fresh) own.volume = std::make_unique<VolumeWindow>();
    own.volume->Limit(now, caps.volume.count, caps.volume.period);
    if (fresh && first) FirstVolume(own.volume_key, own.volume.get());
    if (fresh && !first) own.volume->Exhaust(now);
  } else if (own.volume != nullptr) {
    own.volume->Unlimit();
  }
  const bool had = rollup.pace.connects.limited();
  rollup.pace.Limit(OnlyConnects(caps), now);
  rollup.pace.SetBackoff(backoff, now);
  if (!had) rollup.pace.ExhaustRates(unknown);
  LinkRollup(LimitsOf(rollup.vmta), rollup);
}

// The rollup's mode counts for what is shared: a queue that has just come may not know of it yet.
void Worker::CapsInRollup(Queue& queue) {
  const queue::v1::QueueModeState& mode = queue.rollup->mode;
  const bool backoff = mode.backoff() && (mode.until_us() == 0 || WallUs() < mode.until_us());
  SetRollupCaps(*queue.rollup, backoff);
  ClearShared(&queue.caps);
}

Pace& Worker::ConnectPace(Queue& queue) {
  return queue.rollup != nullptr ? queue.rollup->pace : queue.pace;
}

const QueueCaps& Worker::ConnectCaps(const Queue& queue) {
  return queue.rollup != nullptr ? queue.rollup->caps : queue.caps;
}

std::vector<std::unique_ptr<Worker::SourcePart>>& Worker::PartsOf(Queue& queue) {
  return queue.rollup != nullptr ? queue.rollup->parts : queue.parts;
}

// Those of its rollup's limits, of which it is no matter any more.
void Worker::LeaveLines(Queue& queue) {
  for (Limiter* limiter : queue.rollup->limiters()) {
    if (queue.line == limiter) LeaveLine(queue);
    if (std::erase(limiter->pace_line, queue.name) > 0) queue.in_pace_line = false;
  }
}

// Its connections count there from now on.
void Worker::EnterRollup(Queue& queue, const std::string& name) {
  Rollup* const rollup = name.empty() ? nullptr : &RollupOf(name, queue);
  if (rollup == queue.rollup) return;
  if (queue.held_bytes > 0) ForgetHeld(queue);
  for (const auto& conn : queue.conns) LeavePart(*conn);
  CountVmta(*queue.limits, -static_cast<int>(queue.conns.size()));
  if (queue.rollup != nullptr) LeaveLines(queue);
  queue.rollup = rollup;
  queue.limits = rollup != nullptr ? &rollup->limits : &LimitsOf(queue.vmta);
  CountVmta(*queue.limits, static_cast<int>(queue.conns.size()));
  queue.policy_version = kStale;
  Judge(queue);
  RefreshQueue(queue);  // enters the parts
  if (queue.rollup != nullptr) {
    ShareMode(queue);
    ShareSources(queue);
  } else {
    // What it sent in the rollup was not charged to limits of its own.
    const MonotonicTime now = executor_.clock().Now();
    queue.pace.Exhaust(now);
    for (const auto& part : queue.parts) part->pace.Exhaust(now);
  }
  if (rollup == nullptr) {
    CloseExcess(queue);
  } else if (const Limiter& own = rollup->limits.own; own.connections > own.most) {
    // Of those that come: a rollup may have many queues, which all come at once.
    std::vector<Conn*> open;
    for (const auto& conn : queue.conns) {
      if (!conn->quitting) open.push_back(conn.get());
    }
    CloseSome(std::move(open), own.connections - own.most);
  }
  TrimCredits(queue);
  if (!queue.waiting.empty()) WakeAt(queue, executor_.clock().Now());  // by other limits now
}

// Its shards are told what DNS says; how a queue comes in and goes is said above.
void Worker::FollowRollup(Queue& queue) {
  const std::string said = RollupFor(queue);
  std::string name = said;
  if (queue.rollup != nullptr && said != queue.rollup->name && IsRollup(queue.rollup->name) &&
      MayRollUp(queue)) {
    const std::string& now = queue.rollup->name;
    if (std::any_of(queue.refs.begin(), queue.refs.end(),
                    [&now](const Ref& ref) { return ref.rollup == now; })) {
      name = now;
    }
  }
  EnterRollup(queue, name);
  for (Ref& ref : queue.refs) {
    if (ref.told == said) continue;
    ref.told = said;
    queue::v1::QueueRollup* rollup = ref.link->out.header.add_rollups();
    rollup->set_queue_ref(ref.ref);
    rollup->set_rollup(said);
    ref.link->dirty = true;
    FlushLater();
  }
}

// A penalty is the domain's own, as its <smtp-pattern> is.
void Worker::FailAsAsked(Queue& queue, const common::v1::Reply& reply,
                         const config::ReplyActions& asked) {
  if (queue.rollup != nullptr && asked.penalty_us == 0) {
    FailRollup(queue, reply, asked.bounce_queue);
  }
  FailQueue(queue, reply, false, asked.bounce_queue, 0, &asked);
}

// bounce-queue and defer-queue are about all that is counted together. Each shard knows what it has
// of that, and takes it from here; what is under way ends.
void Worker::FailRollup(const Queue& queue, const common::v1::Reply& reply, bool permanent) {
  // Every connection is likely to get that reply, and shards have heard of it.
  constexpr Duration kTellAgain = std::chrono::seconds(1);
  Rollup& rollup = *queue.rollup;
  const MonotonicTime now = executor_.clock().Now();
  std::optional<MonotonicTime>& told = permanent ? rollup.told_bounced : rollup.told_deferred;
  if (told && now < *told + kTellAgain) return;
  told = now;
  for (const auto& link : links_) {
    if (!link->greeted) continue;
    queue::v1::RollupFailure* said = link->out.header.add_rollup_failures();
    said->set_rollup(rollup.name);
    said->set_vmta(queue.vmta);
    queue::v1::QueueFailure* failure = said->mutable_failure();
    *failure->mutable_reply() = reply;
    failure->set_permanent(permanent);
    failure->set_by_reply(true);
    failure->mutable_attempt()->set_worker(options_.name);
    link->dirty = true;
  }
  FlushLater();
  for (const auto& [name, other] : queues_) {
    if (other.get() == &queue || other->rollup != &rollup) continue;
    QuitAll(*other, false);
    SendPaced(*other);  // what has not begun goes back
    TrimCredits(*other);
    WakeAt(*other, now + kTellAgain);  // where its shard is of a release that leaves it here
  }
}

// The latest word on the mode holds for all queues of the rollup.
void Worker::ShareMode(Queue& queue) {
  Rollup& rollup = *queue.rollup;
  if (queue.mode.since_us() < rollup.mode.since_us()) {
    const bool was = queue.caps.in_backoff;
    queue.mode = rollup.mode;
    ApplyMode(queue, was);
    TellMode(queue, nullptr, nullptr);
    return;
  }
  if (queue.mode.since_us() == rollup.mode.since_us()) return;
  rollup.mode = queue.mode;
  rollup.mode.clear_notify();
  SetCaps(queue);
  if (InBackoff(queue)) CloseExcess(queue);
  for (const auto& [name, other] : queues_) {
    if (other.get() == &queue || other->rollup != &rollup || other->settings == nullptr) continue;
    if (other->mode.since_us() >= rollup.mode.since_us()) continue;
    const bool was = other->caps.in_backoff;
    other->mode = rollup.mode;
    ApplyMode(*other, was);
    TellMode(*other, nullptr, nullptr);
  }
}

// And so of sources that a reply has disabled.
void Worker::ShareSources(Queue& queue) {
  Rollup& rollup = *queue.rollup;
  if (TakeNewer(rollup.disabled, &queue.disabled)) {
    CloseDisabled(queue);
    TellMode(queue, nullptr, nullptr);
  }
  if (!TakeNewer(queue.disabled, &rollup.disabled)) return;
  for (const auto& [name, other] : queues_) {
    if (other.get() == &queue || other->rollup != &rollup || other->settings == nullptr) continue;
    if (!TakeNewer(rollup.disabled, &other->disabled)) continue;
    CloseDisabled(*other);
    TellMode(*other, nullptr, nullptr);
  }
}

}  // namespace sluice::delivery
