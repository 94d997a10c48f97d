// The streams to the shards: hello, leases in, results out until they are acknowledged.
#include <algorithm>

#include "services/base/check.h"
#include "services/delivery/core/worker_internal.h"

namespace sluice::delivery {

void Worker::OpenLink(Link& link) {
  link.reconnect = 0;
  link.stream = link.address.dispatch->Open(executor_);
  link.stream->Start(&link);
  SendHello(link);
}

void Worker::SendHello(Link& link) {
  Frame<queue::v1::DispatchRequest> frame;
  queue::v1::WorkerHello* hello = frame.header.mutable_hello();
  hello->set_worker(options_.name);
  hello->set_shard(link.address.name);
  hello->set_incarnation(options_.incarnation);
  hello->set_stream(++link.streams);
  hello->set_snapshot_version(policy_->version());
  for (const std::string& vmta : owned_vmtas_) hello->add_vmtas(vmta);
  for (const auto& [id, held] : link.held) hello->add_held_leases()->set_lease_id(id);
  for (const auto& [id, result] : link.unacknowledged) {
    hello->add_held_leases()->set_lease_id(id);
  }
  link.renewals.clear();
  if (hello->held_leases_size() > 0) link.renewals.push_back(executor_.clock().Now());
  link.stream->Send(std::move(frame));
  // Those that an older stream may have lost.
  link.out = {};
  for (const auto& [id, result] : link.unacknowledged) {
    SLUICE_CHECK(link.out.header.add_results()->ParseFromString(result));
  }
  link.out.header.set_draining(draining_);
  link.dirty = true;
  FlushLater();
}

void Worker::NoteLinkClosed(Link& link, const absl::Status& status) const {
  const bool wrong = absl::IsFailedPrecondition(status);
  const MonotonicTime now = executor_.clock().Now();
  if (!wrong && link.outage.Failed(now) && options_.log != nullptr) {
    options_.log->Warn("shard_unreachable", std::string(status.message()),
                       {{"shard", link.address.name}, {"seconds", link.outage.seconds(now)}});
  }
  if (options_.log == nullptr || (!link.greeted && !wrong)) return;
  options_.log->Write(wrong ? LogLevel::kError : LogLevel::kWarn,
                      wrong ? "shard_wrong" : "shard_lost", std::string(status.message()),
                      {{"shard", link.address.name},
                       {"leases", link.held.size()},
                       {"unacknowledged", link.unacknowledged.size()}});
}

void Worker::OnLinkClosed(Link& link) {
  link.stream.reset();
  link.greeted = false;
  link.out = {};
  link.dirty = false;
  DropRefs(link);
  if (draining_ && link.held.empty() && link.unacknowledged.empty()) {
    CheckDrained();
    return;
  }
  link.backoff = link.backoff.count() == 0 ? options_.reconnect_min
                                           : std::min(link.backoff * 2, options_.reconnect_max);
  link.reconnect = executor_.After(link.backoff, [this, &link] { OpenLink(link); });
}

// The stream is over. What the shard does not name again on the next one is forgotten: it may have
// gone to another worker meanwhile, or have no mail any more.
void Worker::DropRefs(Link& link) {
  constexpr Duration kForget = std::chrono::minutes(1);
  std::vector<std::string> left;
  for (const auto& [ref, queue] : std::exchange(link.refs, {})) {
    std::erase_if(queue->refs, [&link](const Ref& each) { return each.link == &link; });
    if (queue->refs.empty()) left.push_back(queue->name);
  }
  if (left.empty()) return;
  executor_.After(kForget, [this, alive = std::weak_ptr<bool>(alive_), left = std::move(left)] {
    if (alive.expired()) return;
    for (const std::string& name : left) {
      const auto found = queues_.find(name);
      if (found != queues_.end() && found->second->refs.empty()) LetGo(*found->second);
    }
  });
}

void Worker::OnShardFrame(Link& link, Frame<queue::v1::DispatchResponse> frame) {
  queue::v1::DispatchResponse& response = frame.header;
  const MonotonicTime now = executor_.clock().Now();
  if (response.has_hello()) {
    link.greeted = true;
    link.outage.Over();
    link.backoff = {};
    link.lease = std::chrono::seconds(std::max<uint32_t>(2, response.hello().lease_seconds()));
  }
  if (response.has_vouch()) OnVouch(link, response.vouch());
  for (uint64_t id : response.acknowledged_leases()) link.unacknowledged.erase(id);
  if (response.renewed_leases_size() > 0 && !link.renewals.empty()) {
    // Never counted from a later renewal than the one that this answers: that one may get lost.
    const MonotonicTime until = link.renewals.front() + link.lease;
    link.renewals.pop_front();
    for (uint64_t id : response.renewed_leases()) {
      const auto found = link.held.find(id);
      if (found != link.held.end()) found->second.until = std::max(found->second.until, until);
    }
  }
  for (uint64_t id : response.lost_leases()) {
    // Not to be finished: MayFinish says no. A result that is there already is still welcome.
    const auto found = link.held.find(id);
    if (found != link.held.end()) found->second.until = now;
  }
  for (uint64_t ref : response.gone_queues()) {
    const auto found = link.refs.find(ref);
    if (found == link.refs.end()) continue;
    Queue& queue = *found->second;
    DropRef(queue, link, ref);
    if (queue.refs.empty()) LetGo(queue);
  }
  for (const queue::v1::QueueModeChange& change : response.modes()) {
    const auto found = link.refs.find(change.queue_ref());
    if (found == link.refs.end()) continue;
    Queue& queue = *found->second;
    for (Ref& ref : queue.refs) {
      if (ref.link != &link || ref.ref != change.queue_ref()) continue;
      LearnMode(queue, ref, change.mode(), change.sources());
      break;
    }
    SendPaced(queue);
    Pump(queue);
  }
  for (queue::v1::Lease& lease : *response.mutable_leases()) OnLease(link, lease, frame.bodies);
  for (const queue::v1::ReadyQueue& ready : response.ready()) OnReadyQueue(link, ready);
  if (draining_) CheckDrained();
}

// One renewal for all leases of a stream, three times within their length.
void Worker::Renew() {
  Duration next = std::chrono::seconds(20);
  for (const auto& link : links_) {
    next = std::min(next, link->lease / 3);
    if (!link->greeted || link->held.empty()) {
      link->renewals.clear();
      continue;
    }
    const MonotonicTime now = executor_.clock().Now();
    // One that found nothing to renew had no answer, and is worth nothing by now.
    while (!link->renewals.empty() && link->renewals.front() + link->lease <= now) {
      link->renewals.pop_front();
    }
    link->renewals.push_back(now);
    link->out.header.set_renew_all(true);
    link->dirty = true;
    FlushLater();
  }
  ForgetDomainLimits();
  ForgetHostLimits();
  renew_timer_ = executor_.After(next, [this] { Renew(); });
}

void Worker::Report(Queue& queue, queue::v1::GroupResult result) {
  result.mutable_attempt()->set_worker(options_.name);
  if (queue.route != nullptr) result.mutable_attempt()->set_site(queue.route->site);
  const auto work = in_work_.find(result.lease_id());
  if (work == in_work_.end()) return;
  Link& link = *work->second.link;
  result.set_lease_id(work->second.lease_id);
  in_work_.erase(work);
  const auto found = link.held.find(result.lease_id());
  if (found == link.held.end()) return;
  const uint64_t recipients = found->second.recipients;
  link.held.erase(found);
  uint64_t named = 0;
  auto count = [this](queue::v1::RecipientOutcome outcome, uint64_t n) {
    if (outcome == queue::v1::RECIPIENT_OUTCOME_DELIVERED) stats_.delivered += n;
    if (outcome == queue::v1::RECIPIENT_OUTCOME_TRANSIENT) stats_.transient += n;
    if (outcome == queue::v1::RECIPIENT_OUTCOME_PERMANENT) stats_.permanent += n;
  };
  for (const auto& recipient : result.recipients()) {
    count(recipient.outcome(), 1);
    ++named;
  }
  count(result.outcome(), recipients - std::min(recipients, named));
  link.unacknowledged.emplace(result.lease_id(), result.SerializeAsString());
  *link.out.header.add_results() = std::move(result);
  link.dirty = true;
  FlushLater();
}

void Worker::FlushLater() {
  if (std::exchange(flush_posted_, true)) return;
  executor_.Post([this, alive = std::weak_ptr<bool>(alive_)] {
    if (!alive.expired()) Flush();
  });
}

void Worker::Flush() {
  flush_posted_ = false;
  for (const auto& link : links_) {
    if (!link->dirty || link->stream == nullptr) continue;
    link->dirty = false;
    link->stream->Send(std::exchange(link->out, {}));
  }
}

}  // namespace sluice::delivery
