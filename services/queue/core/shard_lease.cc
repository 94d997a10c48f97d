// Leases: which rows are out with whom, made durable before they are sent, and what happens to
// those whose worker does not come back.
#include <algorithm>

#include "services/base/check.h"
#include "services/queue/core/lease_view.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

// Rows looked at for one group: those of one message.
constexpr int kRowsPerScan = 4096;
// A frame of leases is sent when it has this many bytes, so that none is large.
constexpr size_t kFrameBytes = size_t{1} << 20;
// How long a late answer of a worker that was given up still counts.
constexpr Duration kRememberLost = std::chrono::hours(1);

DeliveryKey Successor(DeliveryKey key) {
  ++key.recipient;  // recipients stay far below 2^32
  return key;
}

bool Parse(std::string_view text, common::v1::Delivery* delivery) {
  return delivery->ParseFromArray(text.data(), static_cast<int>(text.size()));
}

}  // namespace

int Shard::LeaseFromLane(Queue& queue, Lane& lane, int64_t now_us, int most) {
  WorkerSession& worker = *queue.session;
  const std::string end = DeliveryKey{queue.id, lane.id + 1, 0, 0, 0}.Encode();
  const std::string upper = lane.id == UINT64_MAX ? U64Key(queue.id + 1) : end;
  auto rows = store_.Scan(Family::kDeliveries, lane.cursor.Encode(), upper);
  lane.looked_at = true;
  const uint32_t most_recipients =
      std::max<uint32_t>(1, SettingsOf(queue).max_rcpt_per_transaction());
  int taken = 0;
  int looked = 0;
  while (rows->Valid() && taken < most && looked < kRowsPerScan) {
    const auto first = DeliveryKey::Decode(rows->key());
    if (!first) {
      NoteDamage(Family::kDeliveries, rows->key(), "this is no recipient's key", queue.name);
      ++looked;
      rows->Next();
      continue;
    }
    if (first->due_us > now_us) {
      lane.next_due_us = first->due_us;
      lane.cursor = *first;
      return taken;
    }
    ++looked;
    common::v1::Delivery delivery;
    const bool busy = lane.busy.contains(*first);
    if (busy || !Parse(rows->value(), &delivery)) {
      if (!busy) {
        NoteDamage(Family::kDeliveries, rows->key(), "a recipient's row cannot be read",
                   queue.name);
      }
      lane.cursor = Successor(*first);
      rows->Next();
      continue;
    }
    if (MayExpire() && ExpiryOf(queue, first->storage_key, delivery) <= now_us) {
      lane.cursor = Successor(*first);
      rows->Next();
      Expire(queue, *first, delivery);
      continue;
    }
    if (delivery.has_hold() && delivery.hold().until_us() == 0) {
      lane.cursor = Successor(*first);
      rows->Next();
      continue;
    }
    Standing& standing = worker.standing[queue.queue_ref];
    if (standing.groups == 0) return taken;
    std::shared_ptr<const StoredMessage> message = LoadMessage(first->storage_key);
    if (message == nullptr) {  // it stays, and is seen in listings
      if (std::string gone;
          absl::IsNotFound(store_.Get(Family::kMessages, U64Key(first->storage_key), &gone))) {
        NoteDamage(Family::kMessages, U64Key(first->storage_key),
                   "a message that has recipients is gone", queue.name);
      }
      lane.cursor = Successor(*first);
      rows->Next();
      continue;
    }
    // Its window closed while it waited for a worker.
    if (const int64_t due_us = NextWindow(delivery, now_us); due_us > now_us) {
      DeliveryKey next = *first;
      next.due_us = std::min(due_us, ExpiryOf(queue, first->storage_key, delivery));
      if (next.due_us > now_us) {
        lane.cursor = Successor(*first);
        rows->Next();
        MoveRow(queue, *first, queue, next, delivery, message->envelope);
        continue;
      }
    }
    uint32_t limit = standing.max_recipients == 0
                         ? most_recipients
                         : std::min(most_recipients, standing.max_recipients);
    if (delivery.lost_leases() >= options_.lost_leases_alone) limit = 1;
    if (EachAlone(message->envelope)) limit = 1;
    std::vector<DeliveryKey> keys = {*first};
    std::vector<common::v1::Delivery> group;
    group.push_back(std::move(delivery));
    rows->Next();
    while (rows->Valid() && keys.size() < limit) {
      const auto next = DeliveryKey::Decode(rows->key());
      common::v1::Delivery other;
      if (!next || next->storage_key != first->storage_key || next->due_us != first->due_us ||
          lane.busy.contains(*next) || !Parse(rows->value(), &other) ||
          other.lost_leases() >= options_.lost_leases_alone || other.has_hold()) {
        break;
      }
      keys.push_back(*next);
      group.push_back(std::move(other));
      rows->Next();
    }
    --standing.groups;
    ++taken;
    lane.cursor = Successor(keys.back());
    MakeLease(queue, lane, worker, std::move(keys), std::move(group), std::move(message));
  }
  if (!rows->Valid()) {
    if (rows->status().ok()) {
      lane.next_due_us = kNever;
    } else {
      PutOff(queue, lane, rows->status());
    }
  }
  return taken;
}

Shard::Lease& Shard::MakeLease(Queue& queue, Lane& lane, WorkerSession& session,
                               std::vector<DeliveryKey> keys,
                               std::vector<common::v1::Delivery> deliveries,
                               std::shared_ptr<const StoredMessage> message) {
  auto made = std::make_unique<Lease>();
  Lease& lease = *made;
  lease.id = ++last_lease_id_;
  lease.queue = &queue;
  lease.lane = lane.id;
  lease.worker = session.worker;
  lease.incarnation = session.incarnation;
  lease.session = &session;
  lease.expires = executor_.clock().Now() + options_.lease + options_.lost_contact_grace;
  lease.keys = std::move(keys);
  lease.deliveries = std::move(deliveries);
  lease.message = std::move(message);
  for (const DeliveryKey& key : lease.keys) lane.busy.insert(key);
  WriteLease(lease, false);
  // Nothing due lies behind the cursor, so the next look may begin behind this row.
  if (lane.next_due_us > lease.keys.back().due_us) {
    lane.cursor = std::max(lane.cursor, Successor(lease.keys.back()));
  }
  lane.taken_since_floor += static_cast<uint32_t>(lease.keys.size());
  queue.leased += static_cast<uint32_t>(lease.keys.size());
  queue.active_us = NowUs();
  session.leases.insert(lease.id);
  leases_.emplace(lease.id, std::move(made));
  journal_.WhenDurable([this, id = lease.id](const absl::Status& status) {
    const auto found = leases_.find(id);
    if (!status.ok() || found == leases_.end() || found->second->answered) return;
    if (found->second->session == nullptr) {
      TakeBack(*found->second, false);  // its worker went before it was sent
    } else {
      SendLease(*found->second);
    }
  });
  return lease;
}

void Shard::SendLease(Lease& lease) {
  lease.session->to_send.push_back(lease.id);
  lease.session->dirty = true;
  FlushLater();
}

// Leases that wait to be sent, into the worker's next frame, until it is large.
void Shard::FillFrame(WorkerSession& worker) {
  size_t bytes = 0;
  while (!worker.to_send.empty() && bytes < kFrameBytes) {
    const auto found = leases_.find(worker.to_send.front());
    worker.to_send.pop_front();
    if (found == leases_.end() || found->second->answered || found->second->session != &worker) {
      continue;
    }
    PutIntoFrame(worker, *found->second);
    bytes += found->second->message->body.size() + 256 * (1 + found->second->keys.size());
  }
}

void Shard::PutIntoFrame(WorkerSession& worker, Lease& lease) {
  lease.sent = true;
  lease.expires = executor_.clock().Now() + options_.lease + options_.lost_contact_grace;
  v1::Lease* sent = worker.out.header.add_leases();
  sent->set_lease_id(lease.id);
  sent->set_queue_ref(lease.queue->session == &worker ? lease.queue->queue_ref : 0);
  FillForWorker(lease.message->envelope, sent->mutable_message());
  for (const common::v1::Delivery& delivery : lease.deliveries) {
    FillForWorker(delivery, sent->add_deliveries());
  }
  if (lease.message->chunks > 0) {
    sent->set_large_body_id(lease.keys[0].storage_key);
    sent->set_chunk_count(lease.message->chunks);
  } else {
    sent->set_body_index(static_cast<uint32_t>(worker.out.bodies.size()));
    worker.out.bodies.push_back(lease.message->body);
  }
}

std::shared_ptr<const StoredMessage> Shard::LoadMessage(uint64_t storage_key) {
  if (const auto found = fresh_.find(storage_key); found != fresh_.end()) {
    return found->second.message;
  }
  auto message = std::make_shared<StoredMessage>();
  const std::string key = U64Key(storage_key);
  std::string value;
  const absl::Status got = store_.Get(Family::kMessages, key, &value);
  if (!got.ok() || !message->envelope.ParseFromString(value)) {
    if (!absl::IsNotFound(got)) NoteDamage(Family::kMessages, key, "a message cannot be read");
    return nullptr;
  }
  message->envelope.clear_shard_positions();
  std::string body;
  if (store_.Get(Family::kBodies, key, &body).ok()) {
    message->body = Body(std::move(body));
    return message;
  }
  auto chunks = store_.Scan(Family::kBodies, key, U64Key(storage_key + 1), false);
  for (; chunks->Valid(); chunks->Next()) ++message->chunks;
  if (message->chunks > 0) return message;
  if (!store_.Get(Family::kMessages, key, &value).ok()) return nullptr;  // it just ended
  NoteDamage(Family::kBodies, key, "a message's text is gone or cannot be read");
  return nullptr;
}

// After a restart a lease is keys only.
bool Shard::LoadLease(Lease& lease) {
  if (lease.message == nullptr) lease.message = LoadMessage(lease.keys[0].storage_key);
  if (lease.message == nullptr) return false;
  if (!lease.deliveries.empty()) return true;
  for (const DeliveryKey& key : lease.keys) {
    std::string value;
    common::v1::Delivery& delivery = lease.deliveries.emplace_back();
    const absl::Status status = store_.Get(Family::kDeliveries, key.Encode(), &value);
    if (absl::IsNotFound(status)) {
      // A late answer of another lease ended this one before the restart; the others stand.
      const auto position = static_cast<uint32_t>(lease.deliveries.size() - 1);
      lease.settled.insert(position);
      lease.gone.insert(position);
      lease.queue->LaneOf(key.lane).busy.erase(key);
    } else if (!status.ok() || !delivery.ParseFromString(value)) {
      lease.deliveries.clear();
      return false;
    }
  }
  return true;
}

std::vector<DeliveryKey> Shard::RowsOf(const Lease& lease) {
  if (lease.gone.empty()) return lease.keys;
  std::vector<DeliveryKey> rows;
  for (size_t i = 0; i < lease.keys.size(); ++i) {
    if (!lease.gone.contains(static_cast<uint32_t>(i))) rows.push_back(lease.keys[i]);
  }
  return rows;
}

void Shard::TakeBack(Lease& lease, bool lost) {
  Queue& queue = *lease.queue;
  std::vector<DeliveryKey> old_keys;
  std::vector<DeliveryKey> new_keys;
  const bool loaded = (lost || !lease.delete_asked.empty()) && LoadLease(lease);
  uint32_t ended = 0;
  if (lost) {
    ++stats_.lost_leases;
    if (options_.log != nullptr) {
      options_.log->Warn("lease_lost", "its recipients are tried again",
                         {{"queue", queue.name},
                          {"worker", lease.worker},
                          {"recipients", lease.keys.size() - lease.settled.size()}});
    }
  }
  for (size_t i = 0; i < lease.keys.size(); ++i) {
    const DeliveryKey& key = lease.keys[i];
    if (lease.settled.contains(static_cast<uint32_t>(i))) continue;
    if (loaded && lease.delete_asked.contains(static_cast<uint32_t>(i))) {
      Remove(queue, key, lease.deliveries[i], *lease.message, lease.delete_author,
             lease.delete_reason, lease.delete_bounce);
      ++ended;
      continue;
    }
    DeliveryKey next = key;
    if (loaded && lost) {
      common::v1::Delivery& delivery = lease.deliveries[i];
      delivery.set_lost_leases(delivery.lost_leases() + 1);
      if (delivery.lost_leases() >= options_.lost_leases_held && !delivery.has_hold()) {
        delivery.mutable_hold()->set_reason("its worker was lost five times while it was sent");
        delivery.mutable_hold()->set_author("sluice");
        delivery.mutable_hold()->set_since_us(NowUs());
        next.due_us = ExpiryOf(queue, key.storage_key, delivery);
        CountHeld(next, 1);
        common::v1::Event& event =
            NewEvent(common::v1::EVENT_KIND_HELD, queue, lease.message->envelope, &delivery);
        event.set_author(delivery.hold().author());
        event.set_reason(delivery.hold().reason());
        if (next != key) DropRow(key);
      }
      MoveToRow(queue, next, delivery, lease.message->envelope);
    }
    new_keys.push_back(next);
  }
  if (ended > 0) RecipientsLess(lease.keys[0].storage_key, *lease.message, ended);
  old_keys = RowsOf(lease);
  EndLease(lease, false);
  // A dead process says nothing more; one that only lost contact may.
  if (lost) {
    lost_[lease.id] = {old_keys, executor_.clock().Now() + kRememberLost};
    WriteLease(lease, true);
  }
  FreeWhenDurable(queue, std::move(old_keys), std::move(new_keys));
}

void Shard::WriteLease(const Lease& lease, bool taken_back) {
  v1::LeaseRow row;
  row.set_worker(lease.worker);
  row.set_incarnation(lease.incarnation);
  row.set_storage_key(lease.keys[0].storage_key);
  for (const DeliveryKey& key : lease.keys) row.add_delivery_keys(key.Encode());
  row.set_taken_back(taken_back);
  if (!lease.delete_asked.empty()) {
    for (uint32_t position : lease.delete_asked) row.add_delete_asked(position);
    row.set_delete_author(lease.delete_author);
    row.set_delete_reason(lease.delete_reason);
    row.set_delete_bounce(lease.delete_bounce);
  }
  journal_.batch().Put(Family::kLeases, U64Key(lease.id),
                       row.SerializeAsString() + lease.unknown_fields);
}

void Shard::EndLease(Lease& lease, bool acknowledge) {
  SLUICE_CHECK(!lease.answered);
  lease.answered = true;
  journal_.batch().Delete(Family::kLeases, U64Key(lease.id));
  if (lease.session != nullptr) lease.session->leases.erase(lease.id);
  journal_.WhenDurable(
      [this, id = lease.id, acknowledge,
       count = static_cast<uint32_t>(lease.keys.size())](const absl::Status& status) {
        const auto found = leases_.find(id);
        if (!status.ok() || found == leases_.end()) return;
        const Lease& lease = *found->second;
        lease.queue->leased -= count;
        if (acknowledge) Acknowledge(lease.worker, id);
        leases_.erase(found);
      });
}

void Shard::Acknowledge(const std::string& name, uint64_t lease_id) {
  for (const auto& worker : workers_) {
    if (worker->worker != name || worker->incarnation == 0) continue;
    worker->out.header.add_acknowledged_leases(lease_id);
    worker->dirty = true;
    FlushLater();
  }
}

void Shard::FreeWhenDurable(Queue& queue, std::vector<DeliveryKey> old_keys,
                            std::vector<DeliveryKey> new_keys) {
  ++queue.pending;
  queue.active_us = NowUs();
  for (const DeliveryKey& key : new_keys) queue.LaneOf(key.lane).busy.insert(key);
  journal_.WhenDurable([this, &queue, old_keys = std::move(old_keys),
                        new_keys = std::move(new_keys)](const absl::Status& status) {
    --queue.pending;
    if (!status.ok()) return;
    for (const DeliveryKey& key : old_keys) {
      CountRow(queue, key, -1);
      if (Lane* lane = queue.FindLane(key.lane)) lane->busy.erase(key);
    }
    for (const DeliveryKey& key : new_keys) {
      CountRow(queue, key, 1);
      Lane& lane = queue.LaneOf(key.lane);
      lane.busy.erase(key);
      lane.cursor = std::min(lane.cursor, key);
      lane.next_due_us = std::min(lane.next_due_us, key.due_us);
    }
    uint64_t last_lane = 0;
    for (const DeliveryKey& key : old_keys) {
      if (key.lane == last_lane && &key != &old_keys.front()) continue;
      last_lane = key.lane;
      Lane* lane = queue.FindLane(key.lane);
      if (lane == nullptr) continue;
      MoveFloor(queue, *lane);
      ForgetLaneWhenEmpty(queue, *lane);
    }
    Offer(queue);
    ForgetWhenEmpty(queue);
  });
}

void Shard::MoveToRow(Queue& queue, const DeliveryKey& key, const common::v1::Delivery& delivery,
                      const common::v1::Message& envelope) {
  delivery.SerializeToString(&row_value_);
  const std::string encoded = key.Encode();
  journal_.batch().Put(Family::kDeliveries, encoded, row_value_);
  if (key.storage_key < watermark_) {
    journal_.batch().Put(Family::kIndex, PositionKey(key.storage_key, key.recipient), encoded);
  } else {
    IndexRow(envelope, delivery, key);
  }
  queues_.NoteRow(queue, queue.LaneOf(key.lane), key,
                  SweepTimeOf(queue, key.storage_key, delivery));
}

void Shard::CheckLeases() {
  const MonotonicTime now = executor_.clock().Now();
  std::vector<uint64_t> lost;
  for (const auto& [id, lease] : leases_) {
    if (!lease->answered && lease->sent && lease->expires <= now) lost.push_back(id);
  }
  std::sort(lost.begin(), lost.end());
  for (uint64_t id : lost) {
    Lease& lease = *leases_.at(id);
    if (lease.session != nullptr) {
      lease.session->out.header.add_lost_leases(id);
      lease.session->dirty = true;
      FlushLater();
    }
    TakeBack(lease, true);
  }
  absl::erase_if(lost_, [this, now](const auto& each) {
    if (each.second.forget > now) return false;
    journal_.batch().Delete(Family::kLeases, U64Key(each.first));
    return true;
  });
}

}  // namespace sluice::queue
