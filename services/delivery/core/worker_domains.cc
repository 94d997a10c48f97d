// <limits>: rates of a domain over the whole cluster. Each worker has the part of a rate that its
// sources are of all, so that the sum holds without a conversation. What a worker gets from others
// it leaves alone for the rate's period, for it may have been used up by them: so no window sees
// both.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/config/cluster_rates.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

bool HasCode(const std::vector<std::string>& codes, uint32_t code) {
  const std::string text = absl::StrCat(code);
  return std::any_of(codes.begin(), codes.end(), [&text](const std::string& each) {
    return each.size() == text.size() && each[0] == text[0] &&
           (each.ends_with("xx") || each == text);
  });
}

}  // namespace

// After the policy, the table of owners or the lease has changed.
void Worker::SetDomainParts() {
  for (const auto& [key, limit] : domain_limits_) SetDomainPart(*limit);
  FreedSlot();
}

uint64_t Worker::PartOf(const DomainLimit& limit, MonotonicTime* next_change) {
  if (limit.whole) return limit.count;
  const Division& division = DivisionOf(limit.pool);
  if (division.count == 0) return limit.count;
  const MonotonicTime now = executor_.clock().Now();
  uint64_t least = UINT64_MAX;
  for (const auto& [until, places] : division.held) {
    const bool present = until == MonotonicTime::max();
    if (!present && until + limit.period <= now) continue;
    least = std::min(least, division.PartOf(limit.count, places));
    if (!present) *next_change = std::min(*next_change, until + limit.period);
  }
  return least;
}

void Worker::SetDomainPart(DomainLimit& limit) {
  const MonotonicTime now = executor_.clock().Now();
  if (limit.raise != 0) executor_.Cancel(std::exchange(limit.raise, 0));
  MonotonicTime next_change = MonotonicTime::max();
  const uint64_t part = PartOf(limit, &next_change);
  limit.pacer = RatePacer::InPlaceOf(limit.pacer, part, limit.period, 1,
                                     limit.replies() ? now : unknown_since_);
  limit.busy = limit.replies() ? SIZE_MAX : BusyAt(limit.pacer);
  limit.what = part < limit.count ? absl::StrCat(limit.name, " (this worker's part: ", part, ")")
                                  : limit.name;
  if (next_change == MonotonicTime::max()) return;
  limit.raise = executor_.At(next_change, [this, &limit] {
    limit.raise = 0;
    SetDomainPart(limit);
    std::vector<std::string> names;
    for (const auto& [name, queue] : queues_) {
      const auto& throttles = queue->throttles;
      if (std::find(throttles.begin(), throttles.end(), &limit) != throttles.end()) {
        names.push_back(name);
      }
    }
    RearmPace(limit);
    for (const std::string& name : names) {
      if (const auto found = queues_.find(name); found != queues_.end()) Pump(*found->second);
    }
    FreedSlot();
  });
}

// The queue's, after its settings were read: those of its domain, and those of its rollup.
void Worker::SetDomainLimits(Queue& queue) {
  const std::vector<DomainLimit*> had = std::exchange(queue.throttles, {});
  const std::vector<DomainLimit*> had_replies = std::exchange(queue.reply_throttles, {});
  if (queue.rollup == nullptr) {
    AddDomainLimits(queue, *queue.settings, queue.domain, queue.name);
  } else {
    const auto own = policy_->ForQueue(queue.domain, queue.vmta, queue.pool);
    AddDomainLimits(queue, *own, queue.domain, queue.name);
    AddDomainLimits(queue, *queue.settings, queue.rollup->name, queue.rollup->key);
  }
  const size_t connections = queue.conns.size();
  for (DomainLimit* limit : queue.throttles) limit->connections += connections;
  for (DomainLimit* limit : had) limit->connections -= connections;
  for (DomainLimit* limit : had) --limit->queues;
  for (DomainLimit* limit : had_replies) --limit->queues;
}

void Worker::AddDomainLimits(Queue& queue, const policy::v1::QueueSettings& settings,
                             const std::string& domain, const std::string& name) {
  for (const config::ClusterRateLine& line : config::ClusterRates(settings)) {
    const policy::v1::Rate& rate = line.said->rate();
    if (rate.unlimited()) continue;
    const std::string of = line.span == config::Span::kDomain ? domain
                           : line.span == config::Span::kPool
                               ? absl::StrCat(domain, " by pool ", queue.pool)
                               : name;
    std::unique_ptr<DomainLimit>& slot =
        domain_limits_[absl::StrCat(std::string(line.directive), " ", of)];
    const bool is_new = slot == nullptr;
    if (is_new) slot = std::make_unique<DomainLimit>();
    DomainLimit& limit = *slot;
    const std::vector<std::string> codes(line.said->codes().begin(), line.said->codes().end());
    const Duration period(static_cast<int64_t>(rate.period_us()));
    if (is_new || limit.count != rate.count() || limit.period != period || limit.codes != codes) {
      limit.directive = "<limits>";
      limit.pool = line.span == config::Span::kPool ? queue.pool : "";
      limit.whole = line.span == config::Span::kBinding;
      limit.queue = limit.whole ? name : "";
      limit.count = rate.count();
      limit.period = period;
      limit.codes = codes;
      limit.name = absl::StrCat("<limits> ", std::string(line.directive), " ", rate.count(), "/",
                                rate.period_us() / 1'000'000, "s of ", of);
      SetDomainPart(limit);
    }
    ++limit.queues;
    (limit.replies() ? queue.reply_throttles : queue.throttles).push_back(&limit);
  }
}

void Worker::LeaveDomainLimits(Queue& queue) {
  for (DomainLimit* limit : queue.throttles) --limit->queues;
  for (DomainLimit* limit : queue.reply_throttles) --limit->queues;
  queue.throttles.clear();
  queue.reply_throttles.clear();
}

// Those of which a new one would not differ. From a timer alone: lines are being served otherwise.
void Worker::ForgetDomainLimits() {
  const MonotonicTime now = executor_.clock().Now();
  absl::erase_if(domain_limits_, [&](const auto& each) {
    DomainLimit& limit = *each.second;
    if (limit.queues > 0 || limit.crowded || !limit.pacer.Rested(now) || now < limit.until) {
      return false;
    }
    for (const TimerId timer : {limit.timer, limit.raise}) {
      if (timer != 0) executor_.Cancel(timer);
    }
    return true;
  });
}

// A reply that is no delivery's, to the queue's mail or connection.
void Worker::HeedThrottles(Queue& queue, const common::v1::Reply& reply) {
  if (queue.reply_throttles.empty() || reply.local() || reply.code() == 0) return;
  const MonotonicTime now = executor_.clock().Now();
  for (DomainLimit* limit : queue.reply_throttles) {
    if (!HasCode(limit->codes, reply.code())) continue;
    if (now >= limit->until) limit->pacer.Exhaust(now);
    limit->until = now + limit->period;
  }
}

bool Worker::AfterReplies(const Queue& queue) const {
  if (queue.reply_throttles.empty()) return false;
  const MonotonicTime now = executor_.clock().Now();
  return std::any_of(queue.reply_throttles.begin(), queue.reply_throttles.end(),
                     [now](const DomainLimit* limit) { return now < limit->until; });
}

MonotonicTime Worker::NextAfterReplies(const Queue& queue, MonotonicTime now,
                                       const DomainLimit** limit) const {
  if (queue.reply_throttles.empty()) return {};
  MonotonicTime next = now;
  for (const DomainLimit* each : queue.reply_throttles) {
    if (now >= each->until) continue;
    const MonotonicTime when = std::min(each->pacer.Next(now), each->until);
    if (when <= next) continue;
    next = when;
    *limit = each;
  }
  return next;
}

// True where nothing may leave for so long: it says so, and looks again before that.
bool Worker::BlockByDomain(Queue& queue, Duration ahead) {
  if (queue.throttles.empty() && queue.reply_throttles.empty()) return false;
  const MonotonicTime now = executor_.clock().Now();
  const DomainLimit* slowest = nullptr;
  MonotonicTime next = std::max(now, NextAfterReplies(queue, now, &slowest));
  for (const DomainLimit* each : queue.throttles) {
    const MonotonicTime when = each->pacer.Next(now);
    if (when <= next) continue;
    next = when;
    slowest = each;
  }
  if (next <= now + ahead) return false;
  Block(queue, slowest->what, next);
  // Where it has no part of the rate, it is woken when that changes.
  if (next != MonotonicTime::max()) WakeAt(queue, next - ahead);
  return true;
}

}  // namespace sluice::delivery
