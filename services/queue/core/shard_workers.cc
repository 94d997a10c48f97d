// Workers' streams: hello, what their frames say, renewals, and what remains of one that is gone.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

// A process of before whose hello comes late is not believed for so long after a later one was
// heard of; then its clock may have been set back, and it is the one that lives.
constexpr Duration kNewerComesBack = std::chrono::seconds(30);
// The latest stream of a worker that is away.
constexpr Duration kRememberStream = std::chrono::hours(1);

}  // namespace

void Shard::OnResults(WorkerSession& session, v1::DispatchRequest& request) {
  for (v1::GroupResult& result : *request.mutable_results()) {
    journal_.Seal();
    OnResult(session, result);
  }
}

void Shard::OnDispatch(WorkerSession& session, Frame<v1::DispatchRequest> frame) {
  v1::DispatchRequest& request = frame.header;
  if (request.has_hello()) {
    OnHello(session, request.hello());
    return;
  }
  if (session.incarnation == 0) {
    if (session.worker.empty()) {
      session.stream->Close(absl::FailedPreconditionError("the first frame must be a hello"));
      return;
    }
    // A later stream of its worker has taken over. What was answered is true all the same.
    OnResults(session, request);
    if (request.results().empty()) {
      session.stream->Close(
          absl::FailedPreconditionError("a later stream of this worker has taken over"));
    }
    return;
  }
  for (const v1::QueueModeChange& change : request.modes()) {
    const auto found = refs_.find(change.queue_ref());
    if (found != refs_.end()) OnModeChange(*found->second, change);
  }
  OnResults(session, request);
  if (request.renew_all() || request.renewals_size() > 0) RenewLeases(session, request);
  if (request.has_vouch() && owners_ != nullptr && request.vouch().epoch() == owners_->epoch()) {
    *session.out.header.mutable_vouch() = request.vouch();
    session.dirty = true;
    FlushLater();
  }
  for (uint64_t id : request.returned_leases()) {
    const auto found = leases_.find(id);
    if (found != leases_.end() && !found->second->answered) TakeBack(*found->second, false);
  }
  for (const v1::QueueFailure& failure : request.failures()) {
    const auto found = refs_.find(failure.queue_ref());
    if (found != refs_.end()) OnQueueFailure(*found->second, failure);
  }
  for (const v1::RollupFailure& failure : request.rollup_failures()) OnRollupFailure(failure);
  if (request.draining() && !std::exchange(session.draining, true)) {
    ReleaseAll(session);
  }
  for (const v1::QueueRollup& rollup : request.rollups()) OnRollup(session, rollup);
  for (const v1::Blocked& blocked : request.blocked()) {
    const auto found = refs_.find(blocked.queue_ref());
    if (found == refs_.end() || found->second->session != &session) continue;
    Queue& queue = *found->second;
    queue.blocked_limit =
        blocked.limit().empty() ? nullptr : std::make_unique<const std::string>(blocked.limit());
    queue.blocked_until_us = blocked.until_unix_us();
    SetInLine(queue, blocked.in_line(), blocked.limit());
    Answered(queue, session, session.standing[blocked.queue_ref()]);
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
    Answered(queue, session, standing);
    SetInLine(queue, false, {});
    standing.groups += credit.groups();
    standing.max_recipients = credit.max_recipients();
    standing.max_bytes = credit.max_bytes();
    queue.blocked_limit.reset();
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
  if (absl::Status meant = CheckMeant(hello.shard()); !meant.ok()) {
    session.stream->Close(std::move(meant));
    return;
  }
  session.worker = hello.worker();
  if (absl::Status latest = CheckLatest(hello); !latest.ok()) {
    session.stream->Close(std::move(latest));
    return;
  }
  session.incarnation = hello.incarnation();
  session.vmtas.clear();
  session.vmtas.insert(hello.vmtas().begin(), hello.vmtas().end());
  if (options_.log != nullptr) {
    options_.log->Info("worker_connected", "",
                       {{"shard", options_.name},
                        {"worker", session.worker},
                        {"peer", session.stream->peer()},
                        {"vmtas", session.vmtas.size()},
                        {"held_leases", hello.held_leases_size()}});
  }
  // The same worker on an older stream: that one is over.
  for (const auto& other : workers_) {
    if (other.get() == &session || other->worker != session.worker) continue;
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
  for (const v1::HeldLease& lease : hello.held_leases()) {
    if (held.contains(lease.lease_id())) session.out.header.add_lost_leases(lease.lease_id());
  }
  FlushLater();
  // What it has more right to than another worker goes over to it.
  for (const auto& other : workers_) {
    if (other.get() == &session || other->incarnation == 0) continue;
    ReleaseForeign(*other);
  }
  PumpWaitingLater();
}

absl::Status Shard::CheckLatest(const v1::WorkerHello& hello) {
  LastStream& last = last_streams_[hello.worker()];
  const bool connected = std::any_of(workers_.begin(), workers_.end(), [&](const auto& each) {
    return each->worker == hello.worker() && each->incarnation == last.incarnation &&
           each->incarnation != 0;
  });
  if (hello.incarnation() < last.incarnation &&
      (connected || executor_.clock().Now() < last.lost + kNewerComesBack)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "worker ", hello.worker(), " has a newer incarnation: two processes share its name"));
  }
  if (hello.incarnation() == last.incarnation && hello.stream() != 0 &&
      hello.stream() <= last.stream) {
    return absl::FailedPreconditionError("a later stream of this worker has taken over");
  }
  last.incarnation = hello.incarnation();
  last.stream = hello.stream();
  return absl::OkStatus();
}

void Shard::ForgetWorkers() {
  const MonotonicTime now = executor_.clock().Now();
  absl::erase_if(last_streams_, [this, now](const auto& each) {
    return now >= each.second.lost + kRememberStream &&
           std::none_of(workers_.begin(), workers_.end(),
                        [&](const auto& worker) { return worker->worker == each.first; });
  });
}

void Shard::ReleaseAll(WorkerSession& session) {
  std::vector<uint64_t> refs;
  for (const auto& [ref, standing] : session.standing) refs.push_back(ref);
  std::sort(refs.begin(), refs.end());
  for (uint64_t ref : refs) {
    const auto found = refs_.find(ref);
    if (found == refs_.end()) continue;
    Queue& queue = *found->second;
    Release(queue, session.incarnation != 0);
    AwaitWorker(queue);
  }
  PumpWaitingLater();
}

void Shard::Detach(WorkerSession& session) {
  for (uint64_t id : session.leases) {
    const auto found = leases_.find(id);
    if (found == leases_.end()) continue;
    found->second->session = nullptr;
    found->second->expires = executor_.clock().Now() + options_.lease + options_.lost_contact_grace;
  }
  session.leases.clear();
  if (session.incarnation != 0) last_streams_[session.worker].lost = executor_.clock().Now();
  session.incarnation = 0;
  for (uint64_t id : std::exchange(session.to_send, {})) {  // never sent: free at once
    const auto found = leases_.find(id);
    if (found != leases_.end() && !found->second->answered) TakeBack(*found->second, false);
  }
  ReleaseAll(session);
}

void Shard::OnWorkerGone(WorkerSession& session) {
  if (options_.log != nullptr && !session.worker.empty()) {
    options_.log->Info(
        "worker_gone", "",
        {{"shard", options_.name}, {"worker", session.worker}, {"leases", session.leases.size()}});
  }
  Detach(session);
  workers_.remove_if([&session](const auto& each) { return each.get() == &session; });
}

void Shard::OnWorkerWritable(WorkerSession& session) {
  session.congested = false;
  std::vector<uint64_t> refs;
  for (const auto& [ref, standing] : session.standing) {
    if (standing.groups > 0) refs.push_back(ref);
  }
  std::sort(refs.begin(), refs.end());
  for (uint64_t ref : refs) {
    if (const auto found = refs_.find(ref); found != refs_.end()) MarkReady(*found->second);
  }
  FlushLater();
}

void Shard::RenewLeases(WorkerSession& session, const v1::DispatchRequest& request) {
  std::vector<uint64_t> ids(request.renewals().begin(), request.renewals().end());
  if (request.renew_all()) ids.assign(session.leases.begin(), session.leases.end());
  std::sort(ids.begin(), ids.end());
  const MonotonicTime expires =
      executor_.clock().Now() + options_.lease + options_.lost_contact_grace;
  for (uint64_t id : ids) {
    const auto found = leases_.find(id);
    if (found == leases_.end() || found->second->session != &session) {
      session.out.header.add_lost_leases(id);
      continue;
    }
    found->second->expires = expires;
    session.out.header.add_renewed_leases(id);
  }
  session.dirty = true;
  FlushLater();
}

}  // namespace sluice::queue
