// Queues that shards announced: credits for free places, why there are none, and their end.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/config/queue_mark.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
void Worker::RefreshQueue(Queue& queue) {
  EndModeByTime(queue);
  if (queue.settings != nullptr && queue.policy_version == policy_->version()) return;
  FollowRollup(queue);
  if (queue.settings != nullptr && queue.policy_version == policy_->version()) return;
  const bool was_local = queue.settings != nullptr && IsLocalEnd(*queue.settings);
  queue.settings = SettingsFor(queue);
  if (queue.tls_reports || queue.tls_waived) DropTlsPolicy(queue);
  // What was looked up for the one way says nothing of the other.
  if (was_local != IsLocalEnd(*queue.settings) ||
      (queue.route != nullptr && queue.route->from_dns &&
       !queue.settings->smtp_hosts().values().empty())) {
    queue.route.reset();
  }
  queue.policy_version = policy_->version();
  queue.rules = RulesFor(*queue.settings);
  SetCaps(queue);
  RefreshParts(queue);
  SetDomainLimits(queue);
  QuitOutdated(queue);
}

void Worker::OnReadyQueue(Link& link, const queue::v1::ReadyQueue& ready) {
  if (draining_) return;
  // Mail that does not insist on TLS is of the same queue here, so that all limits hold for both.
  const bool tls_optional = config::IsTlsOptional(ready.domain());
  std::string domain = ready.domain();
  if (tls_optional) domain.erase(0, config::kTlsOptionalMark.size());
  const std::string name = absl::StrCat(domain, "/", ready.vmta());
  std::unique_ptr<Queue>& slot = queues_[name];
  if (slot == nullptr) {
    slot = std::make_unique<Queue>();
    slot->name = name;
    slot->domain = std::move(domain);
    if (slot->domain.starts_with(config::kTlsReportMark)) {
      slot->domain.erase(0, config::kTlsReportMark.size());
      slot->tls_reports = true;
    }
    slot->vmta = ready.vmta();
    slot->pool = ready.pool();
    slot->limits = &LimitsOf(slot->vmta);
    slot->turn = ++first_turn_;  // queues begin with different sources and hosts
    Judge(*slot);
  }
  Queue& queue = *slot;
  auto known = std::find_if(queue.refs.begin(), queue.refs.end(), [&](const Ref& each) {
    return each.link == &link && each.ref == ready.queue_ref();
  });
  const bool is_heard_first = known == queue.refs.end();
  if (is_heard_first) {
    queue.refs.push_back({&link, ready.queue_ref(), 0, 0, 0});
    known = std::prev(queue.refs.end());
    known->told = ready.rollup();
    known->tls_optional = tls_optional;
    link.refs[ready.queue_ref()] = &queue;
    if ((queue.line != nullptr || queue.told_in_line) && !queue.blocked.empty()) {
      TellBlocked(queue, *known);
    } else {
      queue.blocked.clear();  // so that this shard hears of it, too
    }
  }
  const bool moved = std::exchange(known->rollup, ready.rollup()) != ready.rollup();
  const bool is_new = queue.settings == nullptr;
  if (is_new) Recall(queue);
  if (!tls_optional && queue.tls_waived) RestoreTlsPolicy(queue);
  if ((moved || is_heard_first) && !is_new) FollowRollup(queue);  // this shard is told, too
  RefreshQueue(queue);
  LearnMode(queue, *known, ready.mode(), ready.sources());
  if (is_new) FirstPace(queue);
  known->oldest_due_us = ready.oldest_due_us();
  known->due_estimate = ready.due_estimate();
  queue.probe = ready.retry_probe();
  if (is_heard_first) NoteAnnounced(link, ready.queue_ref());
  Pump(queue);
}

// What this queue has sent in the last period, as far as can be known: a limit holds over restarts,
// and from one worker to the next, too.
void Worker::FirstPace(Queue& queue) {
  if (const auto found = resting_.find(queue.name); found != resting_.end()) {
    queue.pace = std::move(found->second);
    SetCaps(queue);
    resting_.erase(found);
    return;
  }
  if (!queue.pace.limited()) return;
  queue.pace.ExhaustRates(started_);
  if (queue.pace.has_volume()) FirstVolume(queue.name, queue.pace.volume.get());
  if (owners_ != nullptr) {
    queue.pace.ExhaustRates(owners_since_);  // another worker may have had it before
    return;
  }
  const auto* vmta = policy_->FindVirtualMta(queue.vmta);
  if (vmta == nullptr) return;
  for (const auto& host : vmta->source_hosts()) {
    std::string local_ip;
    if (OwnsHost(host, &local_ip)) continue;
    queue.pace.Exhaust(executor_.clock().Now());  // another worker may have had it
    return;
  }
}

// For a new queue of that name. Those that have rested are forgotten, now and then: there may be as
// many as there are queues, and each queue that goes comes by here.
void Worker::RememberPace(std::string key, Pace pace) {
  constexpr size_t kFew = 1000;
  constexpr Duration kForgetEvery = std::chrono::minutes(1);
  const MonotonicTime now = executor_.clock().Now();
  if (resting_.size() < kFew || now >= resting_forgotten_ + kForgetEvery) {
    absl::erase_if(resting_, [now](const auto& each) { return each.second.Rested(now); });
    resting_forgotten_ = now;
  }
  if (!pace.Rested(now)) resting_[std::move(key)] = std::move(pace);
}

void Worker::DropRef(Queue& queue, Link& link, uint64_t ref) {
  std::erase_if(queue.refs, [&](const Ref& each) { return each.link == &link && each.ref == ref; });
  link.refs.erase(ref);
}

// Grants what there is room for, and opens connections where there is more mail than room.
void Worker::Pump(Queue& queue) {
  RefreshQueue(queue);
  if (draining_) return;
  if (!MayUse(queue)) {
    Halt(queue);
    if (queue.refs.empty()) LetGo(queue);
    return;
  }
  if (queue.refs.empty()) return;
  if (InBackoff(queue) && queue.mode.until_us() != 0) {
    WakeAt(queue, executor_.clock().Now() + Duration(queue.mode.until_us() - WallUs()));
  }
  Grant(queue);
  const uint64_t due = queue.due();
  size_t most = MostConnections(queue);
  if (queue.probe) most = 1;
  bool paced = false;
  if (queue.pace.paces()) {
    const MonotonicTime now = executor_.clock().Now();
    const MonotonicTime next = queue.pace.Next(now, queue.held_bytes);
    // No connection is made to wait on it.
    if (next > now + kConnectAhead && (due > 0 || next == MonotonicTime::max())) {
      const RateCap& cap = queue.pace.Slowest(queue.caps, now, queue.held_bytes);
      Block(queue,
            &cap == &queue.caps.volume ? WhyVolume(cap.ToString(), *queue.pace.volume, now)
                                       : cap.ToString(),
            next);
      if (next != MonotonicTime::max()) WakeAt(queue, next - kConnectAhead);
      return;
    }
    // As many as can be busy at that pace, if each transaction takes a few seconds.
    const size_t busy = queue.pace.CountWithin(kPaceAhead, queue.last_bytes);
    paced = busy < most;
    most = std::min(most, busy);
  }
  if (due > 0 && BlockBySharedVolume(queue, kConnectAhead)) return;
  if (due > 0 && BlockByDomain(queue, kConnectAhead)) return;
  size_t wanted = std::min<size_t>(most, static_cast<size_t>(std::max<uint64_t>(1, due)));
  if (SeeksTls(queue)) {
    if (queue.conns.size() >= most) MakeRoomForTls(queue);
    wanted = std::min(most, std::max(wanted, queue.conns.size() + 1));
  }
  if (queue.conns.size() < wanted) {
    OpenConnections(queue, wanted);
  } else if (due > 0 && queue.credits() == 0 && queue.conns.size() >= most) {
    Block(queue,
          paced
              ? queue.pace.Slowest(queue.caps, executor_.clock().Now(), queue.held_bytes).ToString()
              : absl::StrCat(queue.caps.connections_directive, " ", most),
          MonotonicTime{});
  }
}

// Standing credits must not keep a place from a shard that has mail for it.
void Worker::TakeIdleCredits(Queue& queue) {
  const bool wanted =
      std::any_of(queue.refs.begin(), queue.refs.end(), [](const Ref& ref) { return ref.wants(); });
  if (!wanted) return;
  for (Ref& ref : queue.refs) {
    if (ref.credits > 0 && ref.due_estimate == 0) RevokeCredits(ref);
  }
}

void Worker::RevokeCredits(Ref& ref) {
  ref.credits = 0;
  ref.link->out.header.add_revokes()->set_queue_ref(ref.ref);
  ref.link->dirty = true;
  FlushLater();
}

// Fewer places than credits: takes them back, to promise anew what there is.
void Worker::TrimCredits(Queue& queue) {
  if (queue.credits() + queue.waiting.size() <= queue.free_places()) return;
  for (Ref& ref : queue.refs) {
    if (ref.credits > 0) RevokeCredits(ref);
  }
}

void Worker::Grant(Queue& queue) {
  if (queue.refs.size() > 1) TakeIdleCredits(queue);
  const size_t places = queue.by_source ? PlacesOfParts(queue) : queue.free_places();
  const size_t promised = queue.credits() + queue.waiting.size();
  if (places <= promised || queue.refs.empty()) return;
  size_t free = places - promised;
  uint32_t recipients = 0;
  for (const auto& conn : queue.conns) {
    if (conn->source->pacer.limited()) recipients = 1;
  }
  if (queue.pace.paces()) {
    // Each a recipient, so that each waits for its own moment, and as many as have theirs soon: one
    // at a time would hold a fast queue to a lease for each of the shard's syncs.
    const size_t ahead = queue.pace.CountWithin(kGrantAhead, queue.last_bytes);
    if (promised >= ahead) return;
    free = std::min(free, ahead - promised);
    const MonotonicTime now = executor_.clock().Now();
    const MonotonicTime next = queue.pace.Next(now, queue.held_bytes);
    if (next > now + kGrantAhead) {
      Block(queue, queue.pace.Slowest(queue.caps, now, queue.held_bytes).ToString(), next);
      if (next != MonotonicTime::max()) WakeAt(queue, next - kGrantAhead);
      return;
    }
  }
  if (BlockBySharedVolume(queue, kGrantAhead)) return;
  for (const DomainLimit* limit : queue.throttles) {
    const size_t ahead = limit->pacer.CellsWithin(kGrantAhead);
    if (promised >= ahead) return;
    free = std::min(free, ahead - promised);
  }
  if (BlockByDomain(queue, kGrantAhead)) return;
  // The same where only a source is limited: its pacer holds each group until its moment.
  if (queue.counts_recipients()) recipients = 1;
  // What a transaction may have at most where no refusal may be one too many.
  const uint32_t most_errors = queue.settings->max_errors_per_connection();
  if (recipients == 0 && (most_errors == 1 || queue.settings->type() == "lmtp")) {
    recipients = most_errors;
  }
  if (queue.most_recipients > 0 && (recipients == 0 || recipients > queue.most_recipients)) {
    recipients = queue.most_recipients;
  }
  queue.blocked.clear();
  while (free > 0) {
    // Those that have mail before those that may get some; of these the oldest, across shards.
    Ref* best = nullptr;
    for (Ref& ref : queue.refs) {
      if (best == nullptr || std::pair(!ref.wants(), ref.oldest_due_us) <
                                 std::pair(!best->wants(), best->oldest_due_us)) {
        best = &ref;
      }
    }
    const uint32_t groups =
        static_cast<uint32_t>(queue.refs.size() == 1 ? free : std::min<size_t>(free, 1));
    best->credits += groups;
    best->answered = true;
    best->oldest_due_us += queue.refs.size() == 1 ? 0 : 1'000'000;  // the next one's turn
    queue::v1::Credit* credit = best->link->out.header.add_credits();
    credit->set_queue_ref(best->ref);
    credit->set_groups(groups);
    credit->set_max_recipients(recipients);
    best->link->dirty = true;
    free -= groups;
  }
  FlushLater();
}

void Worker::Block(Queue& queue, const std::string& limit, MonotonicTime until, bool in_line) {
  queue.stays_in_line = in_line;
  if (queue.blocked == limit && queue.blocked_until == until && queue.told_in_line == in_line) {
    return;
  }
  queue.blocked = limit;
  queue.blocked_until = until;
  queue.told_in_line = in_line;
  for (Ref& ref : queue.refs) TellBlocked(queue, ref);
}

void Worker::TellBlocked(const Queue& queue, Ref& ref) {
  ref.answered = true;
  const MonotonicTime until = queue.blocked_until;
  int64_t until_us = 0;
  if (until != MonotonicTime{} && until != MonotonicTime::max()) {
    until_us = ToUnixMicros(executor_.clock().WallNow() + (until - executor_.clock().Now()));
  }
  queue::v1::Blocked* blocked = ref.link->out.header.add_blocked();
  blocked->set_queue_ref(ref.ref);
  blocked->set_limit(queue.blocked);
  blocked->set_until_unix_us(until_us);
  blocked->set_in_line(queue.told_in_line);
  ref.link->dirty = true;
  FlushLater();
}

void Worker::WakeAt(Queue& queue, MonotonicTime when) {
  if (queue.timer != 0) {
    if (queue.timer_at <= when) return;
    executor_.Cancel(queue.timer);
  }
  queue.timer_at = when;
  queue.timer = executor_.At(when, [this, name = queue.name] {
    const auto found = queues_.find(name);
    if (found == queues_.end()) return;
    found->second->timer = 0;
    SendPaced(*found->second);
    PumpByName(name);
  });
}

// Looks at it anew. Where it need not stand in line any more, its shards may announce another one
// in its place.
void Worker::PumpByName(std::string name) {  // its own would go with it
  const auto found = queues_.find(name);
  if (found == queues_.end()) return;
  found->second->stays_in_line = false;
  Pump(*found->second);
  const auto still = queues_.find(name);
  if (still == queues_.end()) return;
  Queue& queue = *still->second;
  if (queue.told_in_line && !queue.stays_in_line && queue.line == nullptr && !queue.resolving) {
    Block(queue, {}, {});
  }
}

// Nothing is left of it here: the shards may give it to others.
void Worker::LetGo(Queue& queue) {
  if (!queue.conns.empty() || queue.resolving) return;
  while (!queue.waiting.empty()) SendPaced(queue);  // returns them: there is no connection
  for (const Ref& ref : queue.refs) {
    queue::v1::CreditRevoke* revoke = ref.link->out.header.add_revokes();
    revoke->set_queue_ref(ref.ref);
    revoke->set_released(true);
    ref.link->dirty = true;
    ref.link->refs.erase(ref.ref);
  }
  FlushLater();
  if (queue.timer != 0) executor_.Cancel(queue.timer);
  if (queue.dns_timer != 0) executor_.Cancel(queue.dns_timer);
  if (queue.held_bytes > 0) ForgetHeld(queue);
  LeaveLine(queue);
  RememberPace(queue.name, std::move(queue.pace));
  RememberParts(queue);
  RememberMode(queue);
  LeaveDomainLimits(queue);
  queues_.erase(queues_.find(queue.name));
}

}  // namespace sluice::delivery
