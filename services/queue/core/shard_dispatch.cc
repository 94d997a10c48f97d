// Which worker gets which queue: announcements, credits, and the turns of queues and lanes.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

// A queue with mail and without credits is announced anew after this, so that the worker sees how
// much waits.
constexpr Duration kAnnounceEvery = std::chrono::milliseconds(20);
// Groups leased in one turn of the loop, and of one queue in one turn of its own.
constexpr int kGroupsPerTurn = 256;
constexpr int kGroupsPerQueue = 16;

}  // namespace

bool Shard::MayDispatch(const Queue& queue, int64_t now_us) const {
  return serving_ && !draining_ && queue.pause == nullptr &&
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

// Looks whether the queue has something to do, and starts it.
void Shard::Offer(Queue& queue) {
  const int64_t now_us = NowUs();
  if (!MayDispatch(queue, now_us)) {
    if (queue.pause == nullptr && queue.mode == v1::QUEUE_MODE_RETRY &&
        queue.retry_until_us > now_us) {
      Wake(queue, queue.retry_until_us);
    }
    return;
  }
  int64_t next_us = kNever;
  for (const Lane& lane : queue.lanes) {
    if (!lane.paused) next_us = std::min(next_us, lane.next_due_us);
  }
  if (next_us > now_us) {
    Wake(queue, next_us);
    return;
  }
  if (queue.session == nullptr) {
    // One worker at a time: one that lost contact may still be sending.
    WorkerSession* best = nullptr;
    for (const auto& worker : workers_) {
      if (worker->incarnation == 0 || worker->draining || !worker->vmtas.contains(queue.vmta) ||
          worker->unanswered >= options_.max_unanswered) {
        continue;
      }
      if (queue.leased > 0 && worker->worker != queue.last_worker) continue;
      if (best == nullptr || worker->standing.size() < best->standing.size()) best = worker.get();
    }
    if (best == nullptr) {
      Wake(queue, now_us + 1'000'000);
      return;
    }
    queue.session = best;
    queue.last_worker = best->worker;
    queue.queue_ref = next_queue_ref_++;
    refs_[queue.queue_ref] = &queue;
    best->standing[queue.queue_ref];
    ++best->unanswered;
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

void Shard::Announce(Queue& queue) {
  WorkerSession& worker = *queue.session;
  worker.standing[queue.queue_ref].announced = executor_.clock().Now();
  v1::ReadyQueue* ready = worker.out.header.add_ready();
  ready->set_queue_ref(queue.queue_ref);
  ready->set_domain(queue.domain);
  ready->set_vmta(queue.vmta);
  ready->set_pool(queue.pool);
  int64_t oldest_us = kNever;
  for (const Lane& lane : queue.lanes) oldest_us = std::min(oldest_us, lane.next_due_us);
  ready->set_oldest_due_us(oldest_us);
  ready->set_due_estimate(static_cast<uint32_t>(std::clamp<uint64_t>(
      queue.recipients > queue.leased ? queue.recipients - queue.leased : 1, 1, UINT32_MAX)));
  ready->set_priority(SettingsOf(queue).queue_priority());
  ready->set_retry_probe(queue.mode == v1::QUEUE_MODE_RETRY);
  worker.dirty = true;
  FlushLater();
}

// Takes the queue from its worker; what is leased stays leased.
void Shard::Release(Queue& queue, bool tell_worker) {
  WorkerSession* worker = std::exchange(queue.session, nullptr);
  if (worker == nullptr) return;
  refs_.erase(queue.queue_ref);
  const auto standing = worker->standing.find(queue.queue_ref);
  if (standing != worker->standing.end()) {
    if (!standing->second.answered && worker->unanswered > 0) --worker->unanswered;
    worker->standing.erase(standing);
  }
  queue.blocked_limit.clear();
  queue.blocked_until_us = 0;
  if (!tell_worker) return;
  worker->out.header.add_gone_queues(queue.queue_ref);
  worker->dirty = true;
  FlushLater();
}

void Shard::MarkReady(Queue& queue) {
  if (!queue.in_ready_list) {
    queue.in_ready_list = true;
    ready_.push_back(queue.id);
  }
  if (run_posted_) return;
  run_posted_ = true;
  executor_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) RunReady();
  });
}

// Round robin over the queues that have credits and mail; each takes a few groups a turn.
void Shard::RunReady() {
  run_posted_ = false;
  int budget = kGroupsPerTurn;
  for (size_t turns = ready_.size(); turns > 0 && budget > 0; --turns) {
    Queue* queue = queues_.FindById(ready_.front());
    ready_.pop_front();
    if (queue == nullptr) continue;
    queue->in_ready_list = false;
    int own = std::min(budget, kGroupsPerQueue);
    const int before = own;
    const bool more = LeaseDue(*queue, own);
    budget -= before - own;
    if (more) {
      MarkReady(*queue);
    } else {
      Offer(*queue);  // a timer, or another announcement
    }
  }
  if (ready_.empty() || run_posted_) return;
  run_posted_ = true;
  executor_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) RunReady();
  });
}

bool Shard::LeaseDue(Queue& queue, int& budget) {
  const int64_t now_us = NowUs();
  size_t idle_lanes = 0;
  while (budget > 0 && idle_lanes < queue.lanes.size()) {
    if (queue.session == nullptr || !MayDispatch(queue, now_us) ||
        queue.session->standing[queue.queue_ref].groups == 0) {
      return false;
    }
    if (queue.next_lane >= queue.lanes.size()) queue.next_lane = 0;
    Lane& lane = queue.lanes[queue.next_lane];
    if (lane.paused || lane.next_due_us > now_us) {
      lane.deficit = 0;
      ++queue.next_lane;
      ++idle_lanes;
      continue;
    }
    // Deficit round robin (Shreedhar and Varghese, 1995); the unit is a group, the quantum grows
    // with the lane's priority.
    if (lane.deficit <= 0) lane.deficit += static_cast<int32_t>(1 + lane.priority / 10);
    const int taken = LeaseFromLane(queue, lane, now_us, std::min(budget, lane.deficit));
    budget -= std::max(1, taken);
    lane.deficit -= taken;
    if (taken > 0) idle_lanes = 0;
    if (lane.deficit <= 0 || taken == 0) ++queue.next_lane;
    if (taken == 0 && lane.next_due_us > now_us) ++idle_lanes;
  }
  return budget <= 0;
}

void Shard::OnDispatch(WorkerSession& session, Frame<v1::DispatchRequest> frame) {
  v1::DispatchRequest& request = frame.header;
  if (request.has_hello()) {
    OnHello(session, request.hello());
    return;
  }
  if (session.incarnation == 0) {
    session.stream->Close(absl::FailedPreconditionError("the first frame must be a hello"));
    return;
  }
  for (v1::GroupResult& result : *request.mutable_results()) OnResult(session, result);
  if (request.renew_all() || request.renewals_size() > 0) RenewLeases(session);
  for (uint64_t id : request.returned_leases()) {
    const auto found = leases_.find(id);
    if (found != leases_.end() && !found->second->answered) TakeBack(*found->second, false);
  }
  for (const v1::QueueFailure& failure : request.failures()) {
    const auto found = refs_.find(failure.queue_ref());
    if (found != refs_.end()) OnQueueFailure(*found->second, failure);
  }
  if (request.draining()) session.draining = true;
  for (const v1::Blocked& blocked : request.blocked()) {
    const auto found = refs_.find(blocked.queue_ref());
    if (found == refs_.end() || found->second->session != &session) continue;
    found->second->blocked_limit = blocked.limit();
    found->second->blocked_until_us = blocked.until_unix_us();
    Standing& standing = session.standing[blocked.queue_ref()];
    if (!std::exchange(standing.answered, true) && session.unanswered > 0) --session.unanswered;
  }
  for (const v1::CreditRevoke& revoke : request.revokes()) {
    const auto found = refs_.find(revoke.queue_ref());
    if (found == refs_.end() || found->second->session != &session) continue;
    Queue& queue = *found->second;
    session.standing[revoke.queue_ref()].groups = 0;
    if (!revoke.released()) continue;
    Release(queue, false);
    Offer(queue);
    ForgetWhenEmpty(queue);
  }
  for (const v1::Credit& credit : request.credits()) {
    const auto found = refs_.find(credit.queue_ref());
    if (found == refs_.end() || found->second->session != &session) continue;
    Queue& queue = *found->second;
    Standing& standing = session.standing[credit.queue_ref()];
    if (!std::exchange(standing.answered, true) && session.unanswered > 0) --session.unanswered;
    standing.groups += credit.groups();
    standing.max_recipients = credit.max_recipients();
    standing.max_bytes = credit.max_bytes();
    queue.blocked_limit.clear();
    queue.blocked_until_us = 0;
    Offer(queue);
  }
}

void Shard::OnHello(WorkerSession& session, const v1::WorkerHello& hello) {
  if (hello.incarnation() == 0 || hello.worker().empty()) {
    session.stream->Close(
        absl::InvalidArgumentError("a worker's hello needs its name and an incarnation above 0"));
    return;
  }
  session.worker = hello.worker();
  session.incarnation = hello.incarnation();
  session.vmtas.clear();
  session.vmtas.insert(hello.vmtas().begin(), hello.vmtas().end());
  // The same worker on an older stream: that one is over.
  for (const auto& other : workers_) {
    if (other.get() == &session || other->worker != session.worker) continue;
    if (other->incarnation > session.incarnation) {
      session.stream->Close(absl::FailedPreconditionError(absl::StrCat(
          "worker ", session.worker, " has a newer incarnation: two processes share its name")));
      session.incarnation = 0;
      return;
    }
    if (other->incarnation != 0) Detach(*other);
  }
  session.out.header.mutable_hello()->set_shard(options_.name);
  session.out.header.mutable_hello()->set_epoch(epoch_);
  session.out.header.mutable_hello()->set_lease_seconds(
      static_cast<uint32_t>(options_.lease / std::chrono::seconds(1)));
  session.dirty = true;

  absl::flat_hash_set<uint64_t> held;
  for (const v1::HeldLease& lease : hello.held_leases()) held.insert(lease.lease_id());
  std::vector<uint64_t> gone;
  for (auto& [id, lease] : leases_) {
    if (lease->worker != session.worker || lease->answered) continue;
    if (held.contains(id)) {
      lease->session = &session;
      lease->incarnation = session.incarnation;
      lease->expires = executor_.clock().Now() + options_.lease + options_.lost_contact_grace;
      session.leases.insert(id);
      held.erase(id);
    } else {
      gone.push_back(id);
    }
  }
  std::sort(gone.begin(), gone.end());
  for (uint64_t id : gone) {
    Lease& lease = *leases_.at(id);
    // An older incarnation died with it; the same one never got it.
    TakeBack(lease, lease.incarnation != session.incarnation && lease.sent);
  }
  for (uint64_t id : held) session.out.header.add_lost_leases(id);
  FlushLater();
  for (const auto& [name, queue] : queues_.all()) {
    if (queue->session == nullptr && session.vmtas.contains(queue->vmta)) Offer(*queue);
  }
}

void Shard::Detach(WorkerSession& session) {
  std::vector<uint64_t> refs;
  for (const auto& [ref, standing] : session.standing) refs.push_back(ref);
  std::sort(refs.begin(), refs.end());
  for (uint64_t id : session.leases) {
    const auto found = leases_.find(id);
    if (found == leases_.end()) continue;
    found->second->session = nullptr;
    found->second->expires = executor_.clock().Now() + options_.lease + options_.lost_contact_grace;
  }
  session.leases.clear();
  session.incarnation = 0;
  std::vector<Queue*> queues;
  for (uint64_t ref : refs) {
    const auto found = refs_.find(ref);
    if (found == refs_.end()) continue;
    queues.push_back(found->second);
    Release(*found->second, false);
  }
  for (Queue* queue : queues) Offer(*queue);
}

void Shard::OnWorkerGone(WorkerSession& session) {
  Detach(session);
  workers_.remove_if([&session](const auto& each) { return each.get() == &session; });
}

void Shard::RenewLeases(WorkerSession& session) {
  const MonotonicTime expires =
      executor_.clock().Now() + options_.lease + options_.lost_contact_grace;
  for (uint64_t id : session.leases) {
    const auto found = leases_.find(id);
    if (found == leases_.end()) continue;
    found->second->expires = expires;
    session.out.header.add_renewed_leases(id);
  }
  session.dirty = true;
  FlushLater();
}

}  // namespace sluice::queue
