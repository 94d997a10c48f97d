// Limits of what a queue sends from each of its sources: source-ip-... and
// max-smtp-out-per-source-ip. A part is made when the queue first looks at the source.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

// In resting_, beside the queue's own.
std::string RestingKey(const std::string& queue, const std::string& source) {
  return absl::StrCat(queue, "\n", source);
}

}  // namespace

Worker::SourcePart* Worker::PartOf(Queue& queue, const Source& source) {
  if (!queue.by_source) return nullptr;
  for (const auto& part : PartsOf(queue)) {
    if (part->source == &source) return part.get();
  }
  PartsOf(queue).push_back(std::make_unique<SourcePart>());
  SourcePart& part = *PartsOf(queue).back();
  part.source = &source;
  part.caps = CapsOf(*queue.settings, source.ip);
  const MonotonicTime now = executor_.clock().Now();
  const auto found = resting_.find(RestingKey(queue.owner_key(), source.ip));
  if (found != resting_.end()) {
    part.pace = std::move(found->second);
    resting_.erase(found);
    part.pace.Limit(part.caps, now);
    return &part;
  }
  part.pace.Limit(part.caps, now);
  // What was sent before, by this worker or another one, is not known.
  part.pace.ExhaustRates(started_);
  if (part.pace.has_volume())
    FirstVolume(RestingKey(queue.owner_key(), source.ip), part.pace.volume.get());
  if (owners_ != nullptr) part.pace.ExhaustRates(owners_since_);
  return &part;
}

void Worker::EnterPart(Conn& conn) {
  conn.part = PartOf(*conn.queue, *conn.source);
  if (conn.part != nullptr) ++conn.part->connections;
}

void Worker::LeavePart(Conn& conn) {
  if (SourcePart* part = std::exchange(conn.part, nullptr)) --part->connections;
}

// After the queue's settings have changed, or its rollup's.
void Worker::RefreshParts(Queue& queue) {
  queue.by_source = HasCapsBySource(*queue.settings);
  for (const auto& part : PartsOf(queue)) {
    part->caps = CapsOf(*queue.settings, part->source->ip);
    part->pace.Limit(part->caps, executor_.clock().Now());
  }
  if (!queue.by_source) return;
  for (const auto& conn : queue.conns) {
    if (conn->part == nullptr) EnterPart(*conn);
  }
}

void Worker::RememberParts(Queue& queue) {
  for (const auto& part : queue.parts) {  // a rollup's stay
    RememberPace(RestingKey(queue.name, part->source->ip), std::move(part->pace));
  }
}

// For a connection that is to be made (`connect`), or that another queue has done with.
bool Worker::PartHasRoom(Queue& queue, const Source& source, bool connect) {
  const SourcePart* part = PartOf(queue, source);
  if (part == nullptr) return true;
  const MonotonicTime now = executor_.clock().Now();
  if (part->caps.connections > 0 && part->connections >= part->caps.connections) return false;
  if (connect && !IsLocalEnd(*queue.settings) && part->pace.connects.Next(now) > now) return false;
  // As many as can be busy at that pace, if each transaction takes a few seconds.
  if (part->pace.paces() &&
      part->connections >= part->pace.CountWithin(kPaceAhead, queue.last_bytes)) {
    return false;
  }
  return part->pace.Next(now, queue.held_bytes) <= now + kConnectAhead;
}

// Whether limits by source are all that keeps the queue from a connection; it then says which one
// ends first, and looks again.
bool Worker::BlockByParts(Queue& queue) {
  const MonotonicTime now = executor_.clock().Now();
  MonotonicTime soonest = MonotonicTime::max();
  std::string limit;
  for (const auto& part : PartsOf(queue)) {
    if (!MayUse(*part->source) || part->source->closed_until > now) continue;
    if (PartHasRoom(queue, *part->source, true)) return false;
    MonotonicTime until = part->pace.connects.Next(now);
    const RateCap* cap = &part->caps.connects;
    const MonotonicTime message = part->pace.Next(now, queue.held_bytes);
    if (message > now + kConnectAhead && message - kConnectAhead > until) {
      until = message;
      cap = &part->pace.Slowest(part->caps, now, queue.held_bytes);
    }
    if (until > now && until < soonest) {
      soonest = until;
      limit = WhyPart(*part, *cap, now);
    }
    if (!limit.empty()) continue;
    // Until one of them closes.
    const uint32_t most = part->caps.connections;
    limit =
        most > 0 && part->connections >= most
            ? absl::StrCat(part->caps.connections_directive, " ", most, " (", part->source->ip, ")")
            : WhyPart(*part, part->pace.Slowest(part->caps, now, queue.held_bytes), now);
  }
  if (limit.empty()) return false;
  Block(queue, limit, soonest == MonotonicTime::max() ? MonotonicTime{} : soonest);
  if (soonest != MonotonicTime::max()) WakeAt(queue, std::max(now + Duration(1), soonest));
  return true;
}

// Places on connections from which something may leave soon. Where there is none, it looks again.
size_t Worker::PlacesOfParts(Queue& queue) {
  const MonotonicTime now = executor_.clock().Now();
  size_t places = 0;
  const SourcePart* next_part = nullptr;
  MonotonicTime next = MonotonicTime::max();
  for (const auto& conn : queue.conns) {
    const size_t free = conn->free_places();
    if (conn->part == nullptr || !conn->part->pace.paces() || free == 0) {
      places += free;
      continue;
    }
    const Pace& pace = conn->part->pace;
    const MonotonicTime when = pace.Next(now, queue.held_bytes);
    if (when <= now + kGrantAhead) {
      places += std::min(free, pace.CountWithin(kGrantAhead, queue.last_bytes));
    } else if (when < next) {
      next = when;
      next_part = conn->part;
    }
  }
  if (places == 0 && next_part != nullptr) {
    const RateCap& cap = next_part->pace.Slowest(next_part->caps, now, queue.held_bytes);
    Block(queue, WhyPart(*next_part, cap, now), next);
    WakeAt(queue, next - kGrantAhead);
  }
  return places;
}

}  // namespace sluice::delivery
