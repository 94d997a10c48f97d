// Lines of queues before limits that they share: a queue that finds one exhausted waits there, and
// each place that comes free goes to the next one.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {
namespace {

// A connection that has served a queue for so long while others wait goes to the next.
constexpr Duration kTurn = std::chrono::seconds(10);
// A line as long as shards make it, or nearly so (ShardOptions::max_in_line).
constexpr size_t kLongLine = 1024;

}  // namespace

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
    if ((instead == nullptr || !CountsAgainst(*instead, *pool)) && full(*pool)) return pool;
  }
  return nullptr;
}

void Worker::EachLimiter(const Conn& conn, absl::FunctionRef<void(Limiter&)> use) const {
  use(total_);
  use(*conn.source);
  use(conn.queue->limits->own);
  for (Limiter* pool : conn.queue->limits->pools) use(*pool);
  for (Limiter* host : conn.hosts) use(*host);
  for (DomainLimit* limit : conn.queue->throttles) use(*limit);
}

bool Worker::CountsAgainst(const Conn& conn, const Limiter& limiter) const {
  bool any = false;
  EachLimiter(conn, [&](Limiter& each) { any |= &each == &limiter; });
  return any;
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

std::string Worker::FullName(const Limiter& limiter) {
  return absl::StrCat(limiter.directive, " ", limiter.most, " (", limiter.what,
                      limiter.divided ? ", this worker's part)" : ")");
}

// The queue joins the line, and says why it waits.
void Worker::Await(Limiter& limiter, Queue& queue) {
  const MonotonicTime now = executor_.clock().Now();
  const MonotonicTime next = limiter.pacer.Next(now);
  const bool in_line = HoldsAll(limiter, queue);
  const std::string rate = limiter.rate.empty()
                               ? absl::StrCat("rate of ", limiter.what)
                               : absl::StrCat(limiter.rate, " (", limiter.what, ")");
  if (limiter.closed_until > now) {
    MonotonicTime until = MonotonicTime::max();
    const std::string why = WhySuspended(queue, &until);
    Block(queue, absl::StrCat("every source of the virtual MTA is suspended", why),
          limiter.closed_until, in_line);
    PaceLater(limiter, limiter.closed_until);
  } else if (next == MonotonicTime::max()) {
    Block(queue, limiter.rate.empty() ? absl::StrCat("rate 0 of ", limiter.what) : rate, next,
          in_line);
  } else if (next > now + kPaceAhead) {
    Block(queue, rate, next, in_line);
    PaceLater(limiter, next - kPaceAhead);
  } else if (limiter.busy < limiter.most) {
    Block(queue, rate, {}, in_line);
  } else {
    Block(queue, FullName(limiter), {}, in_line);
  }
  if (queue.line == nullptr) {
    if (!std::exchange(limiter.crowded, true)) crowded_.push_back(&limiter);
    queue.line = &limiter;
    queue.place_in_line = limiter.waiters.insert(limiter.waiters.end(), queue.name);
  }
  if (limiter.closed_until <= now) MakeRoom(limiter, queue);
}

void Worker::LeaveLine(Queue& queue) {
  if (Limiter* const line = std::exchange(queue.line, nullptr)) {
    line->waiters.erase(queue.place_in_line);
  }
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
    limiter->crowded = false;
    // One more than there are places: it may take over a connection that has nothing to do.
    bool spare = !idle_.empty();
    for (size_t left = limiter->waiters.size(); left > 0; --left) {
      const bool place = limiter->HasRoom(executor_.clock().Now());
      if (!place && !std::exchange(spare, false)) break;
      if (limiter->waiters.empty()) break;  // others left it meanwhile
      const std::string name = limiter->waiters.front();
      Queue& queue = *queues_.at(name);
      LeaveLine(queue);
      serving_ = &queue;
      PumpByName(name);
      serving_ = nullptr;
      if (place) continue;
      // There was none for it: it stays the first.
      const auto still = queues_.find(name);
      if (still == queues_.end() || still->second->line != limiter) continue;
      limiter->waiters.splice(limiter->waiters.begin(), limiter->waiters,
                              still->second->place_in_line);
    }
    if (limiter->waiters.empty()) continue;
    if (!std::exchange(limiter->crowded, true)) crowded_.push_back(limiter);
    WakeLine(*limiter);
  }
}

// A place alone does not help where the limit is closed, or no token is near: nothing else would
// wake the line.
void Worker::WakeLine(Limiter& limiter) {
  const MonotonicTime now = executor_.clock().Now();
  const MonotonicTime next = limiter.pacer.Next(now);
  if (next == MonotonicTime::max()) return;  // until it has changed
  const MonotonicTime when = std::max(limiter.closed_until, next - kPaceAhead);
  if (when > now) PaceLater(limiter, when);
}

// Whether the connection's place should go to the next in line.
bool Worker::TurnIsOver(const Conn& conn) const {
  if (crowded_.empty() || executor_.clock().Now() < conn.serving_since + kTurn) return false;
  bool awaited = false;
  EachLimiter(conn, [&](const Limiter& limiter) { awaited |= !limiter.waiters.empty(); });
  return awaited;
}

}  // namespace sluice::delivery
