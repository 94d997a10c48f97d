// Which worker gets which queue: announcements, credits, and the turns of queues and lanes.
#include <algorithm>

#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

// A queue with mail and without credits is announced anew after this, so that the worker sees how
// much waits.
constexpr Duration kAnnounceEvery = std::chrono::milliseconds(20);
// Groups leased in one turn of the loop.
constexpr int kGroupsPerTurn = 256;
// Queues without a worker that one turn looks at.
constexpr int kWaitingPerTurn = 256;
// Before the worker's name in the name of a line that waits for it alone.
constexpr char kForLast = '\n';

// FNV-1a: the same in every process, as shards must agree without talking.
uint64_t StableHash(std::string_view a, std::string_view b) {
  uint64_t hash = 0xcbf29ce484222325;
  for (std::string_view part : {a, std::string_view("\0", 1), b}) {
    for (char c : part) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash ^ (hash >> 29);
}

}  // namespace

void Shard::PostTask(absl::AnyInvocable<void()> task) {
  executor_.Post([alive = std::weak_ptr<bool>(alive_), task = std::move(task)]() mutable {
    if (!alive.expired()) task();
  });
}

bool Shard::MayDispatch(const Queue& queue, int64_t now_us) const {
  return serving_ && !draining_ && !queue.paused &&
         // Retry mode ends with the answer to one group.
         (queue.mode != v1::QUEUE_MODE_RETRY ||
          (queue.retry_until_us <= now_us && queue.leased == 0));
}

void Shard::Wake(Queue& queue, int64_t when_us) {
  if (when_us == kNever) return;
  if (queue.timer != 0) {
    if (queue.timer_us <= when_us) return;
    executor_.Cancel(queue.timer);
  }
  queue.timer_us = when_us;
  const Duration delay(std::max<int64_t>(0, when_us - NowUs()));
  queue.timer = executor_.After(delay, [this, id = queue.id] {
    Queue* queue = queues_.FindById(id);
    if (queue == nullptr) return;
    queue->timer = 0;
    Offer(*queue);
  });
}

void Shard::LookAt(Queue& queue, Lane& lane) {
  lane.looked_at = true;
  const std::string lower = lane.cursor.Encode();
  auto rows =
      store_.Scan(Family::kDeliveries, lower, PrefixEnd(std::string_view(lower).substr(0, 16)));
  for (; rows->Valid(); rows->Next()) {
    const auto key = DeliveryKey::Decode(rows->key());
    if (!key || lane.busy.contains(*key)) continue;
    lane.cursor = *key;
    lane.next_due_us = key->due_us;
    return;
  }
  if (rows->status().ok()) {
    lane.next_due_us = kNever;
  } else {
    PutOff(queue, lane, rows->status());
  }
}

void Shard::Offer(Queue& queue, bool in_turn) {
  const int64_t now_us = NowUs();
  if (queue.paused || queue.lanes_resume_us <= now_us) RefreshPause(queue);
  if (queue.backoff != nullptr) EndByTime(queue);
  if (queue.rollup_wish != queue.rollup) HeedRollup(queue);
  if (!failing_.empty() && failing_.contains(queue.id)) return;
  if (!MayDispatch(queue, now_us)) {
    if (!queue.paused && queue.mode == v1::QUEUE_MODE_RETRY && queue.retry_until_us > now_us) {
      Wake(queue, queue.retry_until_us);
    }
    return;
  }
  int64_t next_us = kNever;
  for (Lane& lane : queue.lanes) {
    if (lane.paused) continue;
    if (!lane.looked_at && lane.next_due_us <= now_us) {
      LookAt(queue, lane);
    }
    next_us = std::min(next_us, lane.next_due_us);
  }
  if (next_us > now_us) {
    Wake(queue, next_us);
    return;
  }
  if (queue.session == nullptr) {
    // Those that wait already go first.
    const bool behind = !in_turn && !waiting_.empty() && waiting_.contains(LineOf(queue));
    WorkerSession* best = behind ? nullptr : ChooseWorker(queue);
    if (best == nullptr) {
      AwaitWorker(queue);
      if (behind) PumpWaitingLater();
      return;
    }
    queue.session = best;
    queue.waiting = false;
    queue.last_worker = queues_.Shared(best->worker);
    queue.queue_ref = next_queue_ref_++;
    queue.rollup_wish = queue.rollup;
    refs_[queue.queue_ref] = &queue;
    best->standing[queue.queue_ref];
    ++best->unanswered;
    ++best->LineOf(queue.vmta()).unanswered;
    Announce(queue);
    return;
  }
  Standing& standing = queue.session->standing[queue.queue_ref];
  if (standing.groups > 0) {
    MarkReady(queue);
  } else if (standing.answered) {
    const MonotonicTime next = standing.announced + kAnnounceEvery;
    const MonotonicTime now = executor_.clock().Now();
    if (now >= next) {
      Announce(queue);
    } else {
      Wake(queue, now_us + (next - now).count());
    }
  }
}

void Shard::SetOwners(std::shared_ptr<const config::Owners> owners) {
  owners_ = std::move(owners);
  if (!serving_) return;
  LineUpAnew();
  for (const auto& worker : workers_) ReleaseForeign(*worker);
  PumpWaitingLater();
}

void Shard::LineUpAnew() {
  const auto waiting = std::exchange(waiting_, {});
  std::vector<Queue*> queues;
  for (const auto& [line, ids] : waiting) {
    for (uint64_t id : ids) {
      Queue* queue = queues_.FindById(id);
      if (queue != nullptr && std::exchange(queue->waiting, false)) queues.push_back(queue);
    }
  }
  for (Queue* queue : queues) AwaitWorker(*queue);
}

void Shard::ReleaseForeign(WorkerSession& worker) {
  std::vector<uint64_t> refs;
  for (const auto& [ref, standing] : worker.standing) refs.push_back(ref);
  std::sort(refs.begin(), refs.end());
  for (uint64_t ref : refs) {
    const auto found = refs_.find(ref);
    if (found == refs_.end() || MayServe(worker, *found->second)) continue;
    Queue& queue = *found->second;
    Release(queue, true);
    AwaitWorker(queue);
  }
}

bool Shard::MayServe(const WorkerSession& worker, const Queue& queue) const {
  if (owners_ == nullptr) return MayServe(worker, queue.vmta());
  return worker.incarnation != 0 && !worker.draining && worker.vmtas.contains(queue.vmta()) &&
         owners_->OwnerOf(OwnerKey(queue), queue.vmta()) == worker.worker;
}

std::string Shard::LineOf(const Queue& queue) const {
  std::string line(queue.vmta());
  if (owners_ != nullptr) {
    line.push_back('/');  // is in no virtual MTA's name
    line.append(owners_->OwnerOf(OwnerKey(queue), queue.vmta()));
  }
  if (WaitsForLast(queue)) {
    line.push_back(kForLast);
    line.append(*queue.last_worker);
  }
  return line;
}

bool Shard::WaitsForLast(const Queue& queue) const {
  return queue.leased > 0 && queue.last_worker != nullptr &&
         (owners_ == nullptr || (queue.rollup_since_us != 0 && IsConnected(*queue.last_worker)));
}

// Without a policy service: where a virtual MTA has one source IP, one worker has it, whatever host
// names the IP goes by: the one that all shards find by themselves among those that are connected
// (highest random weight).
bool Shard::MayServe(const WorkerSession& worker, std::string_view vmta) const {
  if (worker.incarnation == 0 || worker.draining || !worker.vmtas.contains(vmta)) return false;
  const auto* section = policy_->FindVirtualMta(vmta);
  if (section == nullptr || section->source_hosts_size() != 1) return true;
  const std::string& ip = section->source_hosts(0).ip();
  const uint64_t own = StableHash(ip, worker.worker);
  for (const auto& other : workers_) {
    if (other->incarnation != 0 && !other->draining && other->vmtas.contains(vmta) &&
        StableHash(ip, other->worker) > own) {
      return false;
    }
  }
  return true;
}

bool Shard::IsConnected(std::string_view worker) const {
  return std::any_of(workers_.begin(), workers_.end(), [worker](const auto& each) {
    return each->worker == worker && each->incarnation != 0;
  });
}

WorkerSession* Shard::ChooseWorker(Queue& queue) {
  WorkerSession* best = nullptr;
  const bool only_last = WaitsForLast(queue);
  for (const auto& worker : workers_) {
    if (!HasRoom(*worker, queue.vmta()) || !MayServe(*worker, queue)) continue;
    if (only_last && worker->worker != *queue.last_worker) continue;
    if (best == nullptr || worker->standing.size() < best->standing.size()) best = worker.get();
  }
  return best;
}

void Shard::AwaitWorker(Queue& queue) {
  const bool for_last = WaitsForLast(queue);
  if (queue.waiting && queue.waits_for_last == for_last) return;
  // What it may have left in another line is passed over there.
  queue.waiting = true;
  queue.waits_for_last = for_last;
  waiting_[LineOf(queue)].push_back(queue.id);
}

void Shard::PumpWaitingLater() {
  if (std::exchange(pump_posted_, true)) return;
  PostTask([this] { PumpWaiting(); });
}

void Shard::PumpWaiting() {
  pump_posted_ = false;
  int budget = kWaitingPerTurn;
  bool more = false;
  for (auto& [name, line] : waiting_) {
    const size_t at = name.find(kForLast);
    const bool for_last = at != std::string::npos;
    const std::string_view last = for_last ? std::string_view(name).substr(at + 1) : "";
    for (size_t left = line.size(); left > 0; --left) {
      Queue* const queue = queues_.FindById(line.front());
      const bool stands_here = queue != nullptr && queue->waiting &&
                               queue->waits_for_last == for_last &&
                               (!for_last || *queue->last_worker == last);
      const bool changed = stands_here && WaitsForLast(*queue) != for_last;
      // All that stand here wait for the same workers: where there is none for the first, there is
      // none for the others.
      if (stands_here && !changed && ChooseWorker(*queue) == nullptr) break;
      if (--budget < 0) {
        more = true;
        break;
      }
      line.pop_front();
      if (!stands_here) continue;
      queue->waiting = false;
      if (changed) {
        AwaitWorker(*queue);
        PumpWaitingLater();
      } else {
        Offer(*queue, true);
      }
    }
    if (more) break;
  }
  std::erase_if(waiting_, [](const auto& each) { return each.second.empty(); });
  if (more) PumpWaitingLater();
}

void Shard::Announce(Queue& queue) {
  WorkerSession& worker = *queue.session;
  worker.standing[queue.queue_ref].announced = executor_.clock().Now();
  v1::ReadyQueue* ready = worker.out.header.add_ready();
  ready->set_queue_ref(queue.queue_ref);
  ready->set_domain(std::string(queue.domain()));
  ready->set_vmta(std::string(queue.vmta()));
  ready->set_pool(*queue.pool);
  if (queue.rollup != nullptr) ready->set_rollup(*queue.rollup);
  int64_t oldest_us = kNever;
  for (const Lane& lane : queue.lanes) oldest_us = std::min(oldest_us, lane.next_due_us);
  ready->set_oldest_due_us(oldest_us);
  ready->set_due_estimate(static_cast<uint32_t>(std::clamp<uint64_t>(
      queue.recipients > queue.leased ? queue.recipients - queue.leased : 1, 1, UINT32_MAX)));
  ready->set_priority(SettingsOf(queue).queue_priority());
  ready->set_retry_probe(queue.mode == v1::QUEUE_MODE_RETRY);
  if (queue.backoff != nullptr) {
    *ready->mutable_mode() = queue.backoff->mode;
    for (const auto& source : queue.backoff->sources) *ready->add_sources() = source;
    ready->mutable_mode()->clear_notify();
    for (auto& source : *ready->mutable_sources()) source.clear_notify();
  }
  worker.dirty = true;
  FlushLater();
}

// The worker said what it makes of an announcement, so there is room for another one.
void Shard::Answered(const Queue& queue, WorkerSession& worker, Standing& standing) {
  if (std::exchange(standing.answered, true) || worker.unanswered == 0) return;
  --worker.unanswered;
  --worker.LineOf(queue.vmta()).unanswered;
  worker.ForgetLine(queue.vmta());
  if (!waiting_.empty()) PumpWaitingLater();
}

bool Shard::HasRoom(const WorkerSession& worker, std::string_view vmta) const {
  if (worker.unanswered >= options_.max_unanswered) return false;
  const auto line = worker.lines.find(vmta);
  return line == worker.lines.end() || !line->second.IsFull(options_.max_in_line);
}

const WorkerLine* Shard::FullLineOf(const Queue& queue) const {
  for (const auto& worker : workers_) {
    if (!MayServe(*worker, queue)) continue;
    const auto line = worker->lines.find(queue.vmta());
    if (line != worker->lines.end() && line->second.IsFull(options_.max_in_line)) {
      return &line->second;
    }
  }
  return nullptr;
}

void Shard::SetInLine(Queue& queue, bool in_line, const std::string& limit) {
  WorkerSession& worker = *queue.session;
  const auto standing = worker.standing.find(queue.queue_ref);
  if (standing == worker.standing.end()) return;
  if (std::exchange(standing->second.in_line, in_line) == in_line) return;
  WorkerLine& line = worker.LineOf(queue.vmta());
  if (in_line) {
    ++line.in_line;
    line.limit = limit;
    return;
  }
  --line.in_line;
  worker.ForgetLine(queue.vmta());
  if (!waiting_.empty()) PumpWaitingLater();
}

// Takes the queue from its worker; what is leased stays leased.
void Shard::Release(Queue& queue, bool tell_worker) {
  if (queue.session == nullptr) return;
  SetInLine(queue, false, {});
  WorkerSession* worker = std::exchange(queue.session, nullptr);
  refs_.erase(queue.queue_ref);
  const auto standing = worker->standing.find(queue.queue_ref);
  if (standing != worker->standing.end()) {
    Answered(queue, *worker, standing->second);
    worker->standing.erase(standing);
  }
  queue.blocked_limit.reset();
  queue.blocked_until_us = 0;
  if (!tell_worker) return;
  worker->out.header.add_gone_queues(queue.queue_ref);
  worker->dirty = true;
  FlushLater();
}

void Shard::MarkReady(Queue& queue) {
  order_.Add(queue);
  RunReadyLater();
}

void Shard::RunReadyLater() {
  if (std::exchange(run_posted_, true)) return;
  PostTask([this] { RunReady(); });
}

void Shard::RunReady() {
  run_posted_ = false;
  int budget = kGroupsPerTurn;
  while (budget > 0 && !order_.empty()) {
    const DispatchOrder::Turn turn =
        order_.Next([this](Queue& queue) { return SettingsOf(queue).queue_priority(); });
    int groups = std::min(budget, turn.groups);
    const int before = groups;
    const bool more = LeaseDue(*turn.queue, groups);
    const int took = before - groups;
    budget -= std::max(1, took);
    order_.Done(*turn.queue, took, more);
    if (!more) Offer(*turn.queue);  // a timer, or another announcement
  }
  if (!order_.empty()) RunReadyLater();
}

// Lanes take turns, each as many groups as its priority weighs.
bool Shard::LeaseDue(Queue& queue, int& budget) {
  const int64_t now_us = NowUs();
  size_t idle_lanes = 0;
  while (budget > 0 && idle_lanes < queue.lanes.size()) {
    if (queue.session == nullptr || queue.session->congested || !MayDispatch(queue, now_us) ||
        queue.session->standing[queue.queue_ref].groups == 0) {
      return false;
    }
    Lane& lane = queue.lanes.front();
    if (lane.paused || lane.next_due_us > now_us) {
      lane.deficit = 0;
      queue.NextLane();
      ++idle_lanes;
      continue;
    }
    if (lane.deficit <= 0) lane.deficit += static_cast<int32_t>(1 + lane.priority / 10);
    // Each look costs a seek: a lane alone takes all at one.
    const bool alone = queue.lanes.size() == 1;
    const int taken =
        LeaseFromLane(queue, lane, now_us, alone ? budget : std::min(budget, lane.deficit));
    budget -= std::max(1, taken);
    lane.deficit = alone ? 0 : lane.deficit - taken;
    if (taken > 0) idle_lanes = 0;
    if (lane.deficit <= 0 || taken == 0) queue.NextLane();
    if (taken == 0) ++idle_lanes;
  }
  return budget <= 0;
}

}  // namespace sluice::queue
