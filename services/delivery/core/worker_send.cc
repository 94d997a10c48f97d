// Leases on their way to a connection: what is leased here waits for its moment, goes out, or goes
// back to its shard.
#include <algorithm>

#include "services/delivery/core/large_body.h"
#include "services/delivery/core/worker_internal.h"
#include "services/mail/header_start.h"
#include "services/mail/merge_body.h"

namespace sluice::delivery {

void Worker::OnLease(Link& link, queue::v1::Lease& lease, std::vector<Body>& bodies) {
  const uint64_t id = lease.lease_id();
  const auto found = link.refs.find(lease.queue_ref());
  Queue* queue = found == link.refs.end() ? nullptr : found->second;
  auto give_back = [this, &link, id] {
    ++stats_.returned;
    link.out.header.add_returned_leases(id);
    link.dirty = true;
    FlushLater();
  };
  if (queue == nullptr || !MayUse(*queue)) {
    give_back();
    return;
  }
  for (Ref& ref : queue->refs) {
    if (ref.link != &link || ref.ref != lease.queue_ref()) continue;
    if (ref.credits > 0) --ref.credits;
    const auto recipients = static_cast<uint32_t>(lease.deliveries_size());
    ref.due_estimate = ref.due_estimate > recipients ? ref.due_estimate - recipients : 0;
  }
  if (queue->free_places() <=
      queue->waiting.size()) {  // the connection went while this was on its way
    give_back();
    return;
  }
  // A credit from before the limit came: in one go they would overfill a window.
  if (lease.deliveries_size() > 1 && queue->counts_recipients()) {
    give_back();
    Grant(*queue);
    return;
  }
  Transaction transaction;
  if (lease.body_case() == queue::v1::Lease::kBodyIndex) {
    if (lease.body_index() >= bodies.size()) {
      give_back();
      return;
    }
    transaction.body = bodies[lease.body_index()];
    if (lease.message().is_template() && lease.deliveries_size() > 0) {
      transaction.body =
          Body(mail::MergedBody(transaction.body.view(), lease.message(), lease.deliveries(0),
                                policy_->global().mailmerge_expands_undefined_variables()));
      lease.mutable_message()->set_body_size(transaction.body.size());
      lease.mutable_message()->set_header_size(mail::HeaderSize(transaction.body.view()));
    }
  } else {
    transaction.chunks =
        std::make_unique<FetchedBody>(executor_, *link.address.fetch, lease.large_body_id());
  }
  edits_.Apply(queue->vmta, queue->pool, executor_.clock().WallNow(), &lease, &transaction);
  if (lease.message().verp() && lease.deliveries_size() > 0) {
    const common::v1::Message& message = lease.message();
    const std::string sender =
        message.mail_from_rewritten().empty() ? message.mail_from() : message.mail_from_rewritten();
    lease.mutable_message()->set_mail_from_rewritten(
        mail::VerpSender(sender, lease.deliveries(0).rcpt()));
  }
  link.held[id] = Held{&link, queue->name, static_cast<uint64_t>(lease.deliveries_size()),
                       executor_.clock().Now() + link.lease};
  const uint64_t work_id = ++last_work_id_;
  in_work_[work_id] = {&link, id};
  lease.set_lease_id(work_id);
  transaction.lease = std::make_shared<queue::v1::Lease>(std::move(lease));
  queue->waiting.push_back({work_id, std::move(transaction)});
  SendPaced(*queue);
}

// Sends what waits, each at its moment. A rate is charged here, when RCPT has been written: however
// long that took, the next one counts from there.
void Worker::SendPaced(Queue& queue) {
  const MonotonicTime now = executor_.clock().Now();
  if (!queue.waiting.empty() && !MayUse(queue)) Halt(queue);
  size_t passed_by = 0;  // groups in a row that no connection of these suits
  while (!queue.waiting.empty()) {
    Transaction& next = queue.waiting.front().transaction;
    const uint64_t bytes = next.lease->message().body_size();
    Conn* best = nullptr;
    MonotonicTime from_source = now;  // when its part allows it
    bool unsuited = false;
    for (const auto& conn : queue.conns) {
      if (!conn->may_send()) continue;
      if (!Suits(*conn, next)) {
        unsuited = true;
        continue;
      }
      const MonotonicTime when = conn->part == nullptr ? now : conn->part->pace.Next(now, bytes);
      if (best == nullptr ||
          std::pair(when, conn->under_way) < std::pair(from_source, best->under_way)) {
        best = conn.get();
        from_source = when;
      }
    }
    if (best == nullptr) {
      if (queue.waiting.size() <= queue.free_places()) {
        if (!unsuited) return;  // until one has its result
        // Others go on meanwhile.
        if (++passed_by < queue.waiting.size()) {
          queue.waiting.push_back(std::move(queue.waiting.front()));
          queue.waiting.pop_front();
          continue;
        }
        SeekTls(queue);
        return;
      }
      // Its connection closed: the shard gives it to somebody else, or to us again.
      GiveBack(queue.waiting.back().work_id);
      queue.waiting.pop_back();
      continue;
    }
    const bool paced = best->paced();
    if (paced) {
      // It came before the limit: in one go they would overfill a window.
      if (next.lease->deliveries_size() > 1 && queue.counts_recipients()) {
        GiveBack(queue.waiting.front().work_id);
        queue.waiting.pop_front();
        continue;
      }
      // Not for so long: it may expire meanwhile. No other goes before it.
      if (queue.pace.has_volume() && queue.pace.volume->Next(now, bytes) > now + kPaceAhead) {
        HoldForVolume(queue, bytes,
                      WhyVolume(queue.caps.volume.ToString(), *queue.pace.volume, now),
                      queue.pace.volume->Next(now, bytes));
        return;
      }
      if (from_source > now + kPaceAhead && best->part->pace.has_volume()) {
        HoldForVolume(queue, bytes,
                      WhyVolume(best->part->caps.volume.ToString(), *best->part->pace.volume, now),
                      from_source);
        return;
      }
      Limiter* full = nullptr;
      const MonotonicTime room = NextOfSharedVolume(queue, now, bytes, &full);
      if (room > now + kPaceAhead) {
        if (full->held_bytes == 0 || full->held_queue == queue.name) {
          full->held_queue = queue.name;
          full->held_bytes = bytes;
        }
        HoldForVolume(queue, bytes, VolumeLimit(*full), room);
        return;
      }
      MonotonicTime allowed = std::max({queue.pace.Next(now, bytes), from_source, room});
      Limiter* shared = SlowestPace(queue, *best, now, &allowed);
      if (allowed > now) {
        if (shared != nullptr) {
          AwaitPace(*shared, queue);
        } else {
          WakeAt(queue, allowed);
        }
        return;
      }
      if (!LedgerAllows(queue, *best, bytes)) {
        if (ledger_fails_) {
          HoldForVolume(queue, bytes, "limits on bytes cannot be written down in the data folder",
                        ledger_next_);
        } else {
          ledger_waits_.insert(queue.name);
        }
        return;
      }
      ReserveVolume(queue, *best, bytes);
      queue.last_bytes = bytes;
      queue.held_bytes = 0;
    }
    passed_by = 0;
    if (best->under_way++ == 0) best->busy_since = now;
    ++best->sent;
    EndIdle(*best);
    if (best->idle != 0) executor_.Cancel(std::exchange(best->idle, 0));
    best->work.push_back(queue.waiting.front().work_id);
    if (const auto work = in_work_.find(queue.waiting.front().work_id); work != in_work_.end()) {
      work->second.mode_round = queue.mode_round;
    }
    Transaction transaction = std::move(next);
    const uint64_t recipients = static_cast<uint64_t>(transaction.lease->deliveries_size());
    queue.waiting.pop_front();
    transaction.most_errors = queue.settings->max_errors_per_connection();
    best->connection->Send(std::move(transaction));
    if (paced) ChargePace(queue, *best, recipients);
  }
}

// Nothing leaves before there is room for a message of that size.
void Worker::HoldForVolume(Queue& queue, uint64_t bytes, const std::string& limit,
                           MonotonicTime next) {
  queue.held_bytes = bytes;
  while (!queue.waiting.empty()) {
    GiveBack(queue.waiting.front().work_id);
    queue.waiting.pop_front();
  }
  for (Ref& ref : queue.refs) {
    if (ref.credits > 0) RevokeCredits(ref);
  }
  Block(queue, limit, next);
  if (next != MonotonicTime::max()) WakeAt(queue, next - kConnectAhead);
}

void Worker::GiveBack(uint64_t work_id) {
  const auto found = in_work_.find(work_id);
  if (found == in_work_.end()) return;
  const InWork work = found->second;
  in_work_.erase(found);
  work.link->held.erase(work.lease_id);
  ++stats_.returned;
  work.link->out.header.add_returned_leases(work.lease_id);
  work.link->dirty = true;
  FlushLater();
}

}  // namespace sluice::delivery
