// What workers report of a group, recipient by recipient, and what becomes of each.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/utf8.h"
#include "services/queue/core/result_rules.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"
#include "services/queue/core/shard_walk.h"

namespace sluice::queue {
namespace {

// By position; nullptr where the group's outcome holds.
std::vector<const v1::RecipientResult*> OwnResults(const v1::GroupResult& result, size_t count) {
  std::vector<const v1::RecipientResult*> own(count, nullptr);
  for (const v1::RecipientResult& each : result.recipients()) {
    if (each.position() < count) own[each.position()] = &each;
  }
  return own;
}

bool ReachedRemote(const common::v1::Reply& reply, v1::RecipientOutcome outcome) {
  return outcome == v1::RECIPIENT_OUTCOME_DELIVERED || reply.stage() >= common::v1::STAGE_MAIL;
}

}  // namespace

void Shard::OnResult(WorkerSession& session, v1::GroupResult& result) {
  CutReply(*result.mutable_reply());
  for (v1::RecipientResult& each : *result.mutable_recipients()) CutReply(*each.mutable_reply());
  const auto found = leases_.find(result.lease_id());
  if (found == leases_.end()) {
    OnLateResult(session, result);
    return;
  }
  Lease& lease = *found->second;
  if (lease.answered) {  // acknowledged when durable
    if (lost_.contains(lease.id)) OnLateResult(session, result);
    return;
  }
  Queue& queue = *lease.queue;
  if (!LoadLease(lease)) {
    TakeBack(lease, false);
    return;
  }
  // One time for all, so that those deferred together stay together.
  const int64_t now_us = NowUs();
  const std::vector<const v1::RecipientResult*> own = OwnResults(result, lease.keys.size());
  std::vector<DeliveryKey> new_keys;
  const common::v1::Reply* remembered = nullptr;
  bool reached = false;
  const common::v1::Delivery* delivered = nullptr;
  uint32_t ended = 0;
  for (size_t i = 0; i < lease.keys.size(); ++i) {
    const auto position = static_cast<uint32_t>(i);
    if (lease.settled.contains(position)) continue;
    const v1::RecipientOutcome outcome = own[i] != nullptr ? own[i]->outcome() : result.outcome();
    const common::v1::Reply& reply = own[i] != nullptr ? own[i]->reply() : result.reply();
    common::v1::Delivery& delivery = lease.deliveries[i];
    reached |= ReachedRemote(reply, outcome);
    if (outcome == v1::RECIPIENT_OUTCOME_DELIVERED) {
      Delivered(queue, lease.keys[i], delivery, *lease.message, result, reply,
                lease.keys.size() == 1 ? &result : nullptr);
      delivered = &delivery;
      ++ended;
    } else if (outcome == v1::RECIPIENT_OUTCOME_PERMANENT) {
      remembered = &reply;
      delivery.set_attempts(delivery.attempts() + 1);
      Fail(queue, lease.keys[i], delivery, *lease.message, common::v1::EVENT_KIND_FAILED, reply,
           &result.attempt());
      ++ended;
    } else if (lease.delete_asked.contains(position)) {
      Remove(queue, lease.keys[i], delivery, *lease.message, lease.delete_author,
             lease.delete_reason, lease.delete_bounce);
      ++ended;
    } else if (outcome == v1::RECIPIENT_OUTCOME_TRANSIENT) {
      remembered = &reply;
      if (!Deferred(queue, lease.keys[i], delivery, *lease.message, result, reply, now_us,
                    &new_keys)) {
        ++ended;
      }
    } else {
      new_keys.push_back(lease.keys[i]);  // as it was
    }
  }
  // Before the message may go.
  if (delivered != nullptr) {
    CopyUponDelivery(queue, *lease.message, *delivered, lease.keys[0].storage_key);
  }
  if (ended > 0) RecipientsLess(lease.keys[0].storage_key, *lease.message, ended);
  if (remembered != nullptr) {
    queues_.Remember(queue, *remembered, now_us, SettingsOf(queue).max_events_recorded());
  }
  // What was under way when a reply had the queue wait says nothing of that.
  if (!queue.Penalised(now_us)) {
    if (delivered != nullptr && queue.penalties > 0) {
      queue.penalties = 0;
      TouchRow(queue);
    }
    if (reached && !queue.Deferred(now_us)) LeaveRetryMode(queue);
  }
  EndLease(lease, true);
  FreeWhenDurable(queue, lease.gone.empty() ? std::move(lease.keys) : RowsOf(lease),
                  std::move(new_keys));
}

// An answer to a lease that is over. Told twice, or the group was taken back and went its own way:
// what was delivered is delivered all the same.
void Shard::OnLateResult(WorkerSession& session, const v1::GroupResult& result) {
  const auto found = lost_.find(result.lease_id());
  if (found == lost_.end()) {
    Acknowledge(session.worker, result.lease_id());
    return;
  }
  const auto shared = std::make_shared<const v1::GroupResult>(result);
  const std::vector<const v1::RecipientResult*> own =
      OwnResults(*shared, found->second.keys.size());
  for (size_t i = 0; i < own.size(); ++i) {
    const v1::RecipientOutcome outcome = own[i] != nullptr ? own[i]->outcome() : shared->outcome();
    if (outcome == v1::RECIPIENT_OUTCOME_DELIVERED) SettleLate(found->second.keys[i], shared);
  }
  lost_.erase(found);
  journal_.batch().Delete(Family::kLeases, U64Key(shared->lease_id()));
  journal_.WhenDurable(
      [this, name = session.worker, id = shared->lease_id()](const absl::Status& status) {
        if (status.ok()) Acknowledge(name, id);
      });
}

// Ends a recipient as delivered, wherever it is now: in another lease, where it was, or elsewhere.
void Shard::SettleLate(const DeliveryKey& key, std::shared_ptr<const v1::GroupResult> result) {
  for (auto& [id, lease] : leases_) {
    if (lease->answered || lease->keys[0].storage_key != key.storage_key) continue;
    for (size_t i = 0; i < lease->keys.size(); ++i) {
      if (lease->keys[i].recipient != key.recipient) continue;
      if (!LoadLease(*lease) || !lease->settled.insert(static_cast<uint32_t>(i)).second) return;
      Delivered(*lease->queue, lease->keys[i], lease->deliveries[i], *lease->message, *result,
                result->reply());
      CopyUponDelivery(*lease->queue, *lease->message, lease->deliveries[i], key.storage_key);
      RecipientsLess(key.storage_key, *lease->message, 1);
      if (lease->session != nullptr) {
        lease->session->out.header.add_lost_leases(id);
        lease->session->dirty = true;
        FlushLater();
      }
      return;
    }
  }
  std::string value;
  common::v1::Message envelope;
  if (!store_.Get(Family::kMessages, U64Key(key.storage_key), &value).ok() ||
      !envelope.ParseFromString(value)) {
    return;  // it ended otherwise
  }
  auto walk = std::make_shared<Walk>();
  walk->filter.set_message_id(envelope.id());
  walk->limit = 1;
  walk->on_row = [this, key, result](const WalkRow& row) {
    if (row.key.storage_key != key.storage_key || row.key.recipient != key.recipient) return false;
    if (row.busy) {  // it is just being changed: look again when that is done
      journal_.WhenDurable([this, key, result](const absl::Status& status) {
        if (status.ok()) SettleLate(key, result);
      });
      return true;
    }
    const auto message = LoadMessage(key.storage_key);
    if (message == nullptr) return true;
    row.queue->LaneOf(row.key.lane).busy.insert(row.key);
    Delivered(*row.queue, row.key, row.delivery, *message, *result, result->reply());
    CopyUponDelivery(*row.queue, *message, row.delivery, key.storage_key);
    RecipientsLess(key.storage_key, *message, 1);
    FreeWhenDurable(*row.queue, {row.key}, {});
    return true;
  };
  walk->on_end = [](bool, const std::string&) {};
  RunWalk(std::move(walk));
}

void Shard::Delivered(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery,
                      const StoredMessage& message, const v1::GroupResult& result,
                      const common::v1::Reply& reply, v1::GroupResult* spent) {
  ++stats_.delivered;
  ++queue.delivered;
  common::v1::Event& event =
      NewEvent(common::v1::EVENT_KIND_DELIVERED, queue, message.envelope, &delivery);
  const std::string& type = result.attempt().delivery_type();
  const bool relayed = type.empty() || type == "smtp";  // else it is where it was to go
  event.set_dsn_action(relayed ? "relayed" : "delivered");
  event.set_dsn_status(reply.enhanced().empty() ? "2.0.0" : reply.enhanced());
  event.set_dsn_diagnostic(reply.text());
  event.set_dsn_mta(ToUtf8(reply.host()));
  event.set_attempts(delivery.attempts() + 1);
  event.set_stage(reply.stage());
  if (event.time_first_attempt_us() == 0) event.set_time_first_attempt_us(result.time_us());
  if (delivery.has_hold()) CountHeld(key, -1);
  DropRow(key);
  UnindexRow(key, delivery);
  const bool tell = delivery.notify() != 0 && !result.attempt().dsn_passed_on();
  if (spent != nullptr && !tell && &reply == &spent->reply()) {
    event.mutable_reply()->Swap(spent->mutable_reply());
    event.mutable_attempt()->Swap(spent->mutable_attempt());
    return;
  }
  *event.mutable_reply() = reply;
  *event.mutable_attempt() = result.attempt();
  if (tell) {
    SendDsn(queue, delivery, message, key.storage_key, reply, common::v1::EVENT_KIND_DELIVERED,
            relayed);
  }
}

bool Shard::Deferred(Queue& queue, const DeliveryKey& key, common::v1::Delivery& delivery,
                     const StoredMessage& message, const v1::GroupResult& result,
                     const common::v1::Reply& reply, int64_t now_us,
                     std::vector<DeliveryKey>* moved) {
  const auto& settings = SettingsOf(queue);
  delivery.set_attempts(delivery.attempts() + 1);
  if (delivery.first_attempt_us() == 0) delivery.set_first_attempt_us(now_us);
  delivery.set_last_attempt_us(now_us);
  *delivery.mutable_last_reply() = reply;
  const int64_t expires_us = ExpiryOf(queue, key.storage_key, delivery);
  if (MayExpire() && expires_us <= now_us) {
    Fail(queue, key, delivery, message, common::v1::EVENT_KIND_EXPIRED, reply, &result.attempt());
    return false;
  }
  if (settings.max_delivery_attempts() > 0 &&
      delivery.attempts() >= settings.max_delivery_attempts()) {
    Fail(queue, key, delivery, message, common::v1::EVENT_KIND_FAILED, reply, &result.attempt());
    return false;
  }
  ++stats_.transient;
  ++queue.transient;
  int64_t wait_us = settings.retry_recipients_after_us();
  if (const auto& steps = RetryStepsOf(queue); steps.us_size() > 0) {
    const int step = std::min<int>(static_cast<int>(delivery.attempts()) - 1, steps.us_size() - 1);
    wait_us = std::max(wait_us, steps.us(step));
  }
  DeliveryKey next = key;
  const int64_t due_us =
      NextWindow(delivery, OnTheSweep(now_us + wait_us, policy_->global().queue_interval_us()));
  next.due_us = std::max<int64_t>(now_us + 1, std::min(due_us, expires_us));
  common::v1::Event& event =
      NewEvent(common::v1::EVENT_KIND_TRANSIENT, queue, message.envelope, &delivery);
  event.set_dsn_action("delayed");
  event.set_dsn_status(reply.enhanced().empty() ? "4.0.0" : reply.enhanced());
  event.set_dsn_diagnostic(reply.text());
  event.set_dsn_mta(ToUtf8(reply.host()));
  event.set_stage(reply.stage());
  *event.mutable_reply() = reply;
  *event.mutable_attempt() = result.attempt();
  event.set_retry_us(next.due_us);
  DropRow(key);
  MoveToRow(queue, next, delivery, message.envelope);
  moved->push_back(next);
  return true;
}

void Shard::Fail(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery,
                 const StoredMessage& message, common::v1::EventKind kind,
                 const common::v1::Reply& reply, const common::v1::Attempt* attempt,
                 const std::string& author, const std::string& reason) {
  common::v1::Event& event = NewEvent(kind, queue, message.envelope, &delivery);
  event.set_stage(reply.stage());
  *event.mutable_reply() = reply;
  event.set_dsn_diagnostic(reply.text());
  event.set_dsn_mta(ToUtf8(reply.host()));
  event.set_author(author);
  event.set_reason(reason);
  if (attempt != nullptr) {
    *event.mutable_attempt() = *attempt;
    if (event.time_first_attempt_us() == 0) event.set_time_first_attempt_us(event.time_us());
  }
  DropRow(key);
  UnindexRow(key, delivery);
  if (delivery.has_hold()) CountHeld(key, -1);
  if (kind == common::v1::EVENT_KIND_DELETED) return;
  ++queue.failed;
  ++(kind == common::v1::EVENT_KIND_EXPIRED ? stats_.expired : stats_.failed);
  event.set_dsn_action("failed");
  event.set_dsn_status(kind == common::v1::EVENT_KIND_EXPIRED ? "4.4.7"
                       : reply.enhanced().empty()             ? "5.0.0"
                                                              : reply.enhanced());
  SetCategory(reply, &event);
  SendDsn(queue, delivery, message, key.storage_key, reply, kind);
}

// What a line about replies says is the operator's nearer word.
void Shard::SetCategory(const common::v1::Reply& reply, common::v1::Event* event) const {
  if (!reply.bounce_category().empty()) {
    event->set_bounce_category(reply.bounce_category());
    return;
  }
  const std::string text = reply.code() == 0
                               ? std::string(reply.text())
                               : absl::StrCat(reply.code(), " ", std::string(reply.text()));
  auto found = categories_.Match(event->dsn_status(), text);
  event->set_bounce_category(std::move(found.category));
  event->set_bounce_rule(std::move(found.rule));
}

void Shard::DropRow(const DeliveryKey& key) {
  journal_.batch().Delete(Family::kDeliveries, key.Encode());
  NoteDrop(key);
}

void Shard::RecipientsLess(uint64_t storage_key, const StoredMessage& message, uint32_t ended) {
  Batch& batch = journal_.batch();
  if (message.recipients != 1) {
    auto found = counts_.find(storage_key);
    if (found == counts_.end()) {
      std::string value;
      if (store_.Get(Family::kMessages, CountKey(storage_key), &value).ok()) {
        const bool known = value.size() == 4;
        if (!known) {  // then it must not take the others' text with it
          NoteDamage(Family::kMessages, CountKey(storage_key),
                     "how many recipients a message has cannot be read: its text will stay");
        }
        found =
            counts_.emplace(storage_key, Count{known ? ReadU32(value, 0) : UINT32_MAX, 0}).first;
      }
    }
    if (found != counts_.end()) {
      Count& count = found->second;
      ++count.pending;
      journal_.WhenDurable([this, storage_key](const absl::Status&) {
        const auto entry = counts_.find(storage_key);
        if (entry != counts_.end() && --entry->second.pending == 0) counts_.erase(entry);
      });
      count.left -= std::min(count.left, ended);
      if (count.left > 0) {
        std::string value;
        AppendU32(value, count.left);
        batch.Put(Family::kMessages, CountKey(storage_key), value);
        return;
      }
      batch.Delete(Family::kMessages, CountKey(storage_key));
    }
  }
  const std::string key = U64Key(storage_key);
  batch.Delete(Family::kMessages, key);
  if (message.chunks == 0) {
    batch.Delete(Family::kBodies, key);
  } else {
    for (uint32_t chunk = 0; chunk < message.chunks; ++chunk) {
      batch.Delete(Family::kBodies, BodyChunkKey(storage_key, chunk));
    }
  }
  bodies_bytes_ -= std::min<uint64_t>(bodies_bytes_, message.envelope.body_size());
  UnindexMessage(message.envelope, storage_key);
  if (const auto fresh = fresh_.find(storage_key); fresh != fresh_.end()) {
    fresh_bytes_ -= fresh->second.bytes;
    fresh_order_.erase(fresh->second.place);
    fresh_.erase(fresh);
  }
}

int64_t Shard::NextWindow(const common::v1::Delivery& delivery, int64_t when) {
  for (const common::v1::TimeWindow& window : delivery.windows()) {
    if (when < window.end_us()) return std::max(when, window.begin_us());
  }
  return when;
}

int64_t Shard::ExpiryOf(Queue& queue, uint64_t storage_key, const common::v1::Delivery& delivery) {
  if (delivery.expires_us() != 0) return delivery.expires_us();
  // Storage keys are the times of arrival, in microseconds.
  return static_cast<int64_t>(storage_key) + SettingsOf(queue).bounce_after_us();
}

void Shard::Expire(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery) {
  Lane& lane = queue.LaneOf(key.lane, "", 0);
  const std::shared_ptr<const StoredMessage> message = LoadMessage(key.storage_key);
  if (message == nullptr) return;
  lane.busy.insert(key);
  common::v1::Reply reply = delivery.last_reply();
  // One that came with its verdict (accept-invalid-recipients) fails for that, not for its age.
  const bool judged = delivery.attempts() == 0 && reply.local() && reply.code() >= 500;
  if (reply.code() == 0 && reply.text().empty()) {
    // Nothing was said of it alone; of a queue that reaches nobody the last thing said is why.
    const Queue::History* history =
        queue.mode == v1::QUEUE_MODE_RETRY ? queues_.HistoryOf(queue) : nullptr;
    if (history != nullptr && !history->replies.empty()) {
      reply = history->replies[0];
    } else {
      reply.set_local(true);
      reply.set_stage(common::v1::STAGE_QUEUE);
      reply.set_text("message expired before it could be delivered");
    }
  }
  Fail(queue, key, delivery, *message,
       judged ? common::v1::EVENT_KIND_FAILED : common::v1::EVENT_KIND_EXPIRED, reply, nullptr);
  RecipientsLess(key.storage_key, *message, 1);
  FreeWhenDurable(queue, {key}, {});
}

}  // namespace sluice::queue
