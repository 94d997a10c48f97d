// What workers report of a group, recipient by recipient, and what becomes of each.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

constexpr size_t kMaxReplyTextBytes = 2048;

void CutReply(common::v1::Reply& reply) {
  if (reply.text().size() > kMaxReplyTextBytes) reply.mutable_text()->resize(kMaxReplyTextBytes);
}

bool ReachedRemote(const common::v1::Reply& reply, v1::RecipientOutcome outcome) {
  return outcome == v1::RECIPIENT_OUTCOME_DELIVERED || reply.stage() >= common::v1::STAGE_MAIL;
}

}  // namespace

void Shard::OnResult(WorkerSession& session, v1::GroupResult& result) {
  const auto found = leases_.find(result.lease_id());
  if (found == leases_.end()) {
    // Told twice: it was recorded, or the lease was taken back and the row went its own way.
    session.out.header.add_acknowledged_leases(result.lease_id());
    session.dirty = true;
    FlushLater();
    return;
  }
  Lease& lease = *found->second;
  if (lease.answered) return;  // acknowledged when durable
  Queue& queue = *lease.queue;
  if (!LoadLease(lease)) {
    TakeBack(lease, false);
    return;
  }
  CutReply(*result.mutable_reply());
  std::vector<const v1::RecipientResult*> own(lease.keys.size(), nullptr);
  for (v1::RecipientResult& each : *result.mutable_recipients()) {
    CutReply(*each.mutable_reply());
    if (each.position() < own.size()) own[each.position()] = &each;
  }
  std::vector<DeliveryKey> new_keys;
  const common::v1::Reply* remembered = nullptr;
  bool reached = false;
  for (size_t i = 0; i < lease.keys.size(); ++i) {
    const v1::RecipientOutcome outcome = own[i] != nullptr ? own[i]->outcome() : result.outcome();
    const common::v1::Reply& reply = own[i] != nullptr ? own[i]->reply() : result.reply();
    reached |= ReachedRemote(reply, outcome);
    const bool unwanted = lease.delete_asked.contains(static_cast<uint32_t>(i));
    switch (outcome) {
      case v1::RECIPIENT_OUTCOME_DELIVERED:
        Delivered(queue, lease.keys[i], lease.deliveries[i], *lease.message, result, reply);
        break;
      case v1::RECIPIENT_OUTCOME_PERMANENT:
        remembered = &reply;
        lease.deliveries[i].set_attempts(lease.deliveries[i].attempts() + 1);
        Fail(queue, lease.keys[i], lease.deliveries[i], *lease.message,
             common::v1::EVENT_KIND_FAILED, reply, &result.attempt());
        break;
      default:
        if (unwanted) {
          Fail(queue, lease.keys[i], lease.deliveries[i], *lease.message,
               common::v1::EVENT_KIND_DELETED, reply, nullptr);
        } else if (outcome == v1::RECIPIENT_OUTCOME_TRANSIENT) {
          remembered = &reply;
          Deferred(queue, lease.keys[i], std::move(lease.deliveries[i]), *lease.message, result,
                   reply, &new_keys);
        } else {
          new_keys.push_back(lease.keys[i]);  // as it was
        }
    }
  }
  if (remembered != nullptr) queue.Remember(*remembered, NowUs());
  if (reached) LeaveRetryMode(queue);
  EndLease(lease, &session);
  FreeWhenDurable(queue, lease.keys, std::move(new_keys));
}

void Shard::Delivered(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery,
                      const StoredMessage& message, const v1::GroupResult& result,
                      const common::v1::Reply& reply) {
  ++stats_.delivered;
  ++queue.delivered;
  common::v1::Event& event =
      NewEvent(common::v1::EVENT_KIND_DELIVERED, queue, message.envelope, &delivery);
  event.set_dsn_action("relayed");
  event.set_dsn_status(reply.enhanced().empty() ? "2.0.0" : reply.enhanced());
  event.set_attempts(delivery.attempts() + 1);
  event.set_stage(reply.stage());
  *event.mutable_reply() = reply;
  *event.mutable_attempt() = result.attempt();
  if (event.time_first_attempt_us() == 0) event.set_time_first_attempt_us(result.time_us());
  DropRow(key);
  OneRecipientLess(key.storage_key, message.envelope);
}

void Shard::Deferred(Queue& queue, const DeliveryKey& key, common::v1::Delivery delivery,
                     const StoredMessage& message, const v1::GroupResult& result,
                     const common::v1::Reply& reply, std::vector<DeliveryKey>* moved) {
  const int64_t now_us = NowUs();
  const auto& settings = SettingsOf(queue);
  delivery.set_attempts(delivery.attempts() + 1);
  if (delivery.first_attempt_us() == 0) delivery.set_first_attempt_us(now_us);
  delivery.set_last_attempt_us(now_us);
  *delivery.mutable_last_reply() = reply;
  const int64_t expires_us = ExpiryOf(queue, key.storage_key, delivery);
  if (expires_us <= now_us) {
    Fail(queue, key, delivery, message, common::v1::EVENT_KIND_EXPIRED, reply, &result.attempt());
    return;
  }
  if (settings.max_delivery_attempts() > 0 &&
      delivery.attempts() >= settings.max_delivery_attempts()) {
    Fail(queue, key, delivery, message, common::v1::EVENT_KIND_FAILED, reply, &result.attempt());
    return;
  }
  ++stats_.transient;
  ++queue.transient;
  int64_t wait_us = settings.retry_recipients_after_us();
  if (const auto& steps = settings.retry_after(); steps.us_size() > 0) {
    const int step = std::min<int>(static_cast<int>(delivery.attempts()) - 1, steps.us_size() - 1);
    wait_us = std::max(wait_us, steps.us(step));
  }
  DeliveryKey next = key;
  next.due_us = std::min(now_us + wait_us, expires_us);
  common::v1::Event& event =
      NewEvent(common::v1::EVENT_KIND_TRANSIENT, queue, message.envelope, &delivery);
  event.set_dsn_action("delayed");
  event.set_dsn_status(reply.enhanced().empty() ? "4.0.0" : reply.enhanced());
  event.set_dsn_diagnostic(reply.text());
  event.set_stage(reply.stage());
  *event.mutable_reply() = reply;
  *event.mutable_attempt() = result.attempt();
  event.set_retry_us(next.due_us);
  journal_.batch().Delete(Family::kDeliveries, key.Encode());
  journal_.batch().Put(Family::kDeliveries, next.Encode(), delivery.SerializeAsString());
  moved->push_back(next);
}

void Shard::Fail(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery,
                 const StoredMessage& message, common::v1::EventKind kind,
                 const common::v1::Reply& reply, const common::v1::Attempt* attempt) {
  common::v1::Event& event = NewEvent(kind, queue, message.envelope, &delivery);
  event.set_stage(reply.stage());
  *event.mutable_reply() = reply;
  event.set_dsn_diagnostic(reply.text());
  event.set_dsn_mta(std::string(reply.host()));
  if (attempt != nullptr) *event.mutable_attempt() = *attempt;
  DropRow(key);
  OneRecipientLess(key.storage_key, message.envelope);
  if (kind == common::v1::EVENT_KIND_DELETED) return;
  ++queue.failed;
  ++(kind == common::v1::EVENT_KIND_EXPIRED ? stats_.expired : stats_.failed);
  event.set_dsn_action("failed");
  event.set_dsn_status(kind == common::v1::EVENT_KIND_EXPIRED ? "4.4.7"
                       : reply.enhanced().empty()             ? "5.0.0"
                                                              : reply.enhanced());
  SendDsn(queue, delivery, message, key.storage_key, reply, kind);
}

void Shard::DropRow(const DeliveryKey& key) {
  journal_.batch().Delete(Family::kDeliveries, key.Encode());
}

void Shard::OneRecipientLess(uint64_t storage_key, const common::v1::Message& envelope) {
  Batch& batch = journal_.batch();
  auto found = counts_.find(storage_key);
  if (found == counts_.end()) {
    std::string value;
    if (store_.Get(Family::kMessages, CountKey(storage_key), &value).ok() && value.size() == 4) {
      found = counts_.emplace(storage_key, Count{ReadU32(value, 0), 0}).first;
    }
  }
  if (found != counts_.end()) {
    Count& count = found->second;
    ++count.pending;
    journal_.WhenDurable([this, storage_key](const absl::Status&) {
      const auto entry = counts_.find(storage_key);
      if (entry != counts_.end() && --entry->second.pending == 0) counts_.erase(entry);
    });
    if (count.left > 0) --count.left;
    if (count.left > 0) {
      std::string value;
      AppendU32(value, count.left);
      batch.Put(Family::kMessages, CountKey(storage_key), value);
      return;
    }
    batch.Delete(Family::kMessages, CountKey(storage_key));
  }
  const std::string key = U64Key(storage_key);
  batch.Delete(Family::kMessages, key);
  if (envelope.body_size() <= kMaxInlineBodyBytes) {
    batch.Delete(Family::kBodies, key);
  } else {
    batch.DeleteRange(Family::kBodies, key, U64Key(storage_key + 1));
  }
  if (const auto fresh = fresh_.find(storage_key); fresh != fresh_.end()) {
    fresh_bytes_ -= fresh->second.bytes;
    fresh_order_.erase(fresh->second.place);
    fresh_.erase(fresh);
  }
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
  if (reply.code() == 0 && reply.text().empty()) {
    reply.set_local(true);
    reply.set_stage(common::v1::STAGE_QUEUE);
    reply.set_text("message expired before it could be delivered");
  }
  Fail(queue, key, delivery, *message, common::v1::EVENT_KIND_EXPIRED, reply, nullptr);
  FreeWhenDurable(queue, {key}, {});
}

void Shard::OnQueueFailure(Queue& queue, const v1::QueueFailure& failure) {
  const int64_t now_us = NowUs();
  common::v1::Reply reply = failure.reply();
  CutReply(reply);
  queue.Remember(reply, now_us);
  if (failure.permanent()) {
    Release(queue, false);
    FailDue(queue, failure);
    return;
  }
  const auto& settings = SettingsOf(queue);
  int64_t wait_us = settings.retry_after_dns_error_us();
  if (!failure.dns()) {
    const auto& steps = settings.retry_after();
    wait_us =
        steps.us_size() == 0
            ? 600'000'000
            : steps.us(std::min<int>(static_cast<int>(queue.retry_step), steps.us_size() - 1));
  }
  queue.mode = v1::QUEUE_MODE_RETRY;
  ++queue.retry_step;
  queue.retry_until_us = now_us + wait_us;
  queues_.WriteRow(queue, journal_.batch());
  common::v1::Event& event =
      NewEvent(common::v1::EVENT_KIND_QUEUE_TRANSIENT, queue, common::v1::Message(), nullptr);
  *event.mutable_reply() = reply;
  *event.mutable_attempt() = failure.attempt();
  event.set_stage(reply.stage());
  event.set_retry_us(queue.retry_until_us);
  Release(queue, false);
  Offer(queue);
}

void Shard::LeaveRetryMode(Queue& queue) {
  if (queue.mode != v1::QUEUE_MODE_RETRY) return;
  queue.mode = v1::QUEUE_MODE_UNSPECIFIED;
  queue.retry_step = 0;
  queue.retry_until_us = 0;
  queues_.WriteRow(queue, journal_.batch());
}

// No such domain: every recipient that is due fails, a bounded number a turn.
void Shard::FailDue(Queue& queue, const v1::QueueFailure& failure) {
  constexpr int kRowsPerTurn = 500;
  const int64_t now_us = NowUs();
  int failed = 0;
  std::vector<DeliveryKey> keys;
  for (Lane& lane : queue.lanes) {
    if (lane.paused) continue;
    const std::string upper = DeliveryKey{queue.id, lane.id, now_us + 1, 0, 0}.Encode();
    auto rows = store_.Scan(Family::kDeliveries, lane.cursor.Encode(), upper);
    for (; rows->Valid() && failed < kRowsPerTurn; rows->Next()) {
      const auto key = DeliveryKey::Decode(rows->key());
      common::v1::Delivery delivery;
      if (!key || lane.busy.contains(*key) ||
          !delivery.ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size())) ||
          (delivery.has_hold() && delivery.hold().until_us() == 0)) {
        continue;
      }
      const auto message = LoadMessage(key->storage_key);
      if (message == nullptr) continue;
      ++failed;
      lane.busy.insert(*key);
      keys.push_back(*key);
      delivery.set_attempts(delivery.attempts() + 1);
      Fail(queue, *key, delivery, *message, common::v1::EVENT_KIND_FAILED, failure.reply(),
           &failure.attempt());
    }
    if (!rows->Valid() && rows->status().ok()) lane.next_due_us = now_us + 1'000'000;
  }
  if (keys.empty()) return;
  FreeWhenDurable(queue, std::move(keys), {});
  if (failed < kRowsPerTurn) return;
  journal_.WhenDurable([this, id = queue.id, failure](const absl::Status& status) {
    Queue* queue = queues_.FindById(id);
    if (status.ok() && queue != nullptr) FailDue(*queue, failure);
  });
}

}  // namespace sluice::queue
