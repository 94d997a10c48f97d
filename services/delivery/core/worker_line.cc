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
    const bool same = instead != nullptr && std::find(instead->queue->limits->pools.begin(),
                                                      instead->queue->limits->pools.end(),
                                                      pool) != instead->queue->limits->pools.end();
    if (!same && full(*pool)) return pool;
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
  if (next == MonotonicTime::max()) {
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
  bool awaited = false;
  EachLimiter(conn, [&](const Limiter& limiter) { awaited |= !limiter.waiters.empty(); });
  return awaited;
}

}  // namespace sluice::delivery
