// The pace of limits that queues share, recipients and bytes: what each transaction is charged, and
// the line of those that have a group and wait for its token.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {

Worker::Limiter* Worker::SlowestPace(Queue& queue, Conn& conn, MonotonicTime now,
                                     MonotonicTime* allowed) {
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
  if (const MonotonicTime next = NextAfterReplies(queue, now, &after_replies); next > *allowed) {
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
MonotonicTime Worker::NextOfSharedVolume(const Queue& queue, MonotonicTime now, uint64_t bytes,
                                         Limiter** limiter) {
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
  const MonotonicTime now = executor_.clock().Now();
  const MonotonicTime next = NextOfSharedVolume(queue, now, queue.held_bytes, &limiter);
  if (next <= now + ahead) return false;
  Block(queue, VolumeLimit(*limiter), next, HoldsAll(*limiter, queue));
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
  if (!limiter.waiters.empty()) WakeLine(limiter);
}

}  // namespace sluice::delivery
