// Taking mail: from a frame of messages to rows in the batch, and the answers once they are
// durable.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

constexpr int kMaxRecipients = 1'000'000;

std::string BucketKey(int64_t bucket, const std::string& key) {
  return U64Key(static_cast<uint64_t>(bucket)) + key;
}

std::string_view DomainOf(std::string_view address) {
  const size_t at = address.rfind('@');
  return at == std::string_view::npos ? std::string_view() : address.substr(at + 1);
}

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

}  // namespace

void Shard::EnqueueSession::Answer(uint64_t token, v1::EnqueueResult::Outcome outcome,
                                   std::string_view message_id, std::string_view detail) {
  v1::EnqueueResult* result = out.header.add_results();
  result->set_token(token);
  result->set_outcome(outcome);
  result->set_message_id(message_id.data(), message_id.size());
  result->set_detail(detail.data(), detail.size());
  dirty = true;
  shard.FlushLater();
}

v1::EnqueueResult::Outcome Shard::Refusal(std::string* detail) {
  if (!serving_) {
    *detail = "the store failed; the shard must be opened again";
    return v1::EnqueueResult::OUTCOME_STORE_FAILED;
  }
  if (draining_) {
    *detail = "shutting down";
    return v1::EnqueueResult::OUTCOME_REFUSED_BUSY;
  }
  if (journal_.pending_bytes() > options_.max_pending_bytes) {
    *detail = "the disk is behind: too much waits for its sync";
    return v1::EnqueueResult::OUTCOME_REFUSED_BUSY;
  }
  if (health_.stalling) {
    *detail = health_.detail;
    return v1::EnqueueResult::OUTCOME_REFUSED_BUSY;
  }
  if (options_.spool_limit_bytes > 0 && health_.live_bytes > options_.spool_limit_bytes) {
    *detail = absl::StrCat("the spool holds ", health_.live_bytes, " bytes; its limit is ",
                           options_.spool_limit_bytes);
    return v1::EnqueueResult::OUTCOME_REFUSED_FULL;
  }
  if (health_.volume_free_bytes > 0 && health_.volume_free_bytes < options_.reserve_bytes) {
    *detail = absl::StrCat("the spool's volume has ", health_.volume_free_bytes, " bytes left, ",
                           options_.reserve_bytes, " are kept in reserve");
    return v1::EnqueueResult::OUTCOME_REFUSED_FULL;
  }
  return v1::EnqueueResult::OUTCOME_UNSPECIFIED;
}

void Shard::OnEnqueue(EnqueueSession& session, Frame<v1::EnqueueRequest> frame) {
  if (frame.header.messages().empty()) {  // a question for the load
    session.dirty = true;
    FlushLater();
    return;
  }
  for (v1::NewMessage& each : *frame.header.mutable_messages()) {
    const uint64_t token = each.token();
    common::v1::Message& envelope = *each.mutable_message();
    std::string detail;
    if (const auto refusal = Refusal(&detail); refusal != v1::EnqueueResult::OUTCOME_UNSPECIFIED) {
      session.Answer(token, refusal, envelope.id(), detail);
      continue;
    }
    auto invalid = [&session, token, &envelope](std::string_view why) {
      session.Answer(token, v1::EnqueueResult::OUTCOME_REFUSED_INVALID, envelope.id(), why);
    };
    if (envelope.id().size() != 16) {
      invalid("the message id must have 16 bytes");
      continue;
    }
    if (each.deliveries().empty() || each.deliveries_size() > kMaxRecipients) {
      invalid("a message needs between 1 and 1,000,000 recipients");
      continue;
    }
    bool addresses_ok = true;
    for (const v1::NewDelivery& delivery : each.deliveries()) {
      addresses_ok &=
          !delivery.delivery().rcpt().empty() && (!delivery.delivery().queue_domain().empty() ||
                                                  !DomainOf(delivery.delivery().rcpt()).empty());
    }
    if (!addresses_ok) {
      invalid("a recipient has no domain, and no queue domain was given");
      continue;
    }

    auto message = std::make_shared<StoredMessage>();
    uint64_t storage_key = 0;
    const Upload* upload = nullptr;
    if (each.body_case() == v1::NewMessage::kUploadId) {
      const auto found = uploads_.find(each.upload_id());
      if (found == uploads_.end() || !found->second.complete) {
        invalid("no such finished upload on this shard: send the body again");
        continue;
      }
      upload = &found->second;
    } else if (each.body_index() >= static_cast<uint32_t>(frame.bodies.size())) {
      invalid("the body index is beyond the frame's bodies");
      continue;
    }

    const std::string idempotency_key = envelope.idempotency_key();
    if (!idempotency_key.empty()) {
      const int64_t bucket = NowUs() / options_.key_bucket.count();
      std::string first_id;
      if (store_.Get(Family::kKeys, BucketKey(bucket, idempotency_key), &first_id).ok() ||
          store_.Get(Family::kKeys, BucketKey(bucket - 1, idempotency_key), &first_id).ok()) {
        session.Answer(token, v1::EnqueueResult::OUTCOME_DUPLICATE, first_id, "");
        continue;
      }
      if (!keys_in_flight_.insert(idempotency_key).second) {
        session.Answer(token, v1::EnqueueResult::OUTCOME_IN_FLIGHT, envelope.id(),
                       "the same key is being enqueued: try again");
        continue;
      }
      journal_.batch().Put(Family::kKeys, BucketKey(bucket, idempotency_key), envelope.id());
    }

    if (upload != nullptr) {
      storage_key = upload->storage_key;
      message->chunks = upload->chunks;
      journal_.batch().Delete(Family::kMeta, UploadRowKey(storage_key));
      uploads_.erase(each.upload_id());
    } else {
      storage_key = NextStorageKey();
      message->body = std::move(frame.bodies[each.body_index()]);
      envelope.set_body_size(message->body.size());
    }
    message->envelope = std::move(envelope);
    std::vector<common::v1::Delivery> deliveries;
    deliveries.reserve(static_cast<size_t>(each.deliveries_size()));
    for (v1::NewDelivery& delivery : *each.mutable_deliveries()) {
      deliveries.push_back(std::move(*delivery.mutable_delivery()));
    }
    std::string id = message->envelope.id();
    AddMessage(std::move(message), std::move(deliveries), storage_key,
               [this, weak = std::weak_ptr<EnqueueSession*>(session.self), token,
                id = std::move(id), idempotency_key](const absl::Status& status) {
                 keys_in_flight_.erase(idempotency_key);
                 auto session = weak.lock();
                 if (session == nullptr || *session == nullptr) return;
                 (*session)->Answer(token,
                                    status.ok() ? v1::EnqueueResult::OUTCOME_QUEUED
                                                : v1::EnqueueResult::OUTCOME_STORE_FAILED,
                                    id, status.ok() ? "" : "the message could not be made durable");
               });
  }
}

std::string Shard::ChooseVmta(common::v1::Delivery& delivery) {
  if (!delivery.vmta().empty()) return delivery.vmta();
  std::string vmta = "default";
  if (const auto* pool = policy_->FindPool(delivery.pool());
      pool != nullptr && pool->virtual_mtas_size() > 0) {
    vmta = pool->virtual_mtas(static_cast<int>(pool_turn_++ % pool->virtual_mtas().size()));
  }
  delivery.set_vmta(vmta);
  return vmta;
}

void Shard::AddMessage(std::shared_ptr<StoredMessage> message,
                       std::vector<common::v1::Delivery> deliveries, uint64_t storage_key,
                       Journal::OnDurable on_durable) {
  Batch& batch = journal_.batch();
  const common::v1::Message& envelope = message->envelope;
  const std::string key = U64Key(storage_key);
  batch.Put(Family::kMessages, key, envelope.SerializeAsString());
  if (message->chunks == 0) batch.Put(Family::kBodies, key, message->body.view());
  const auto count = static_cast<uint32_t>(deliveries.size());
  if (count > 1) {
    std::string value;
    AppendU32(value, count);
    batch.Put(Family::kMessages, CountKey(storage_key), value);
    counts_[storage_key] = {count, 1};
  }

  const int64_t now_us = NowUs();
  std::vector<AddedRow> rows;
  rows.reserve(count);
  // Recipients by queue and lane, for groups that are born leased.
  absl::flat_hash_map<std::pair<Queue*, uint64_t>, std::vector<uint32_t>> groups;
  for (uint32_t i = 0; i < count; ++i) {
    common::v1::Delivery& delivery = deliveries[i];
    const std::string vmta = ChooseVmta(delivery);
    const std::string domain = LowerCase(delivery.queue_domain().empty() ? DomainOf(delivery.rcpt())
                                                                         : delivery.queue_domain());
    Queue& queue = queues_.Get(domain, vmta, delivery.pool(), batch);
    if (queue.settings == nullptr) queue.pause = policy_->FindPause(queue.name, "");
    const uint32_t priority = delivery.priority() != 0 ? delivery.priority() : envelope.priority();
    const uint64_t lane_id = LaneOf(delivery.job_id(), priority);
    Lane* lane = queue.FindLane(lane_id);
    if (lane == nullptr) {
      lane = &queue.LaneOf(lane_id, delivery.job_id(), priority);
      lane->paused = policy_->FindPause(queue.name, lane->job_id) != nullptr;
      v1::LaneRow row;
      row.set_job_id(lane->job_id);
      row.set_priority(lane->priority);
      batch.Put(Family::kQueues, LaneRowKey(queue.id, lane_id), row.SerializeAsString());
    }
    const int64_t start_us = std::max({now_us, envelope.not_before_us(), delivery.not_before_us()});
    const int64_t expires_us = ExpiryOf(queue, storage_key, delivery);
    queue.earliest_expiry_us = std::min(queue.earliest_expiry_us, expires_us);
    const DeliveryKey row_key{queue.id, lane_id, std::min(start_us, expires_us), storage_key, i};
    batch.Put(Family::kDeliveries, row_key.Encode(), delivery.SerializeAsString());
    ++queue.pending;
    rows.push_back({&queue, row_key, 0});
    // A message for a warm connection leaves with its own commit, where nothing waits before it.
    if (queue.session != nullptr && start_us <= now_us && lane->next_due_us > now_us &&
        !lane->paused && !delivery.has_hold() && MayDispatch(queue, now_us) &&
        queue.session->standing[queue.queue_ref].groups > 0) {
      groups[{&queue, lane_id}].push_back(i);
    }
  }

  NewEvent(common::v1::EVENT_KIND_RECEIVED, *rows[0].queue, envelope, &deliveries[0])
      .set_rcpt_count(count);
  ++stats_.accepted;
  stats_.accepted_recipients += count;
  std::shared_ptr<const StoredMessage> shared = message;
  for (auto& [where, members] : groups) {
    Queue& queue = *where.first;
    Standing& standing = queue.session->standing[queue.queue_ref];
    const uint32_t most = std::max<uint32_t>(1, standing.max_recipients != 0
                                                    ? standing.max_recipients
                                                    : SettingsOf(queue).max_rcpt_per_transaction());
    for (size_t begin = 0; begin < members.size() && standing.groups > 0; begin += most) {
      if (standing.max_bytes != 0 && envelope.body_size() > standing.max_bytes) break;
      --standing.groups;
      std::vector<DeliveryKey> keys;
      std::vector<common::v1::Delivery> group;
      const size_t end = std::min(members.size(), begin + most);
      for (size_t m = begin; m < end; ++m) {
        keys.push_back(rows[members[m]].key);
        group.push_back(deliveries[members[m]]);
      }
      Lease& lease = MakeLease(queue, *queue.FindLane(where.second), *queue.session,
                               std::move(keys), std::move(group), shared);
      for (size_t m = begin; m < end; ++m) rows[members[m]].lease_id = lease.id;
    }
  }
  const bool fresh =
      std::any_of(rows.begin(), rows.end(), [](const AddedRow& row) { return row.lease_id == 0; });
  if (fresh && message->chunks == 0) KeepFresh(storage_key, shared);
  journal_.WhenDurable([this, rows = std::move(rows), storage_key, count,
                        on_durable = std::move(on_durable)](const absl::Status& status) mutable {
    if (count > 1) {
      const auto found = counts_.find(storage_key);
      if (found != counts_.end() && --found->second.pending == 0) counts_.erase(found);
    }
    if (status.ok()) RowsAreDurable(rows);
    if (on_durable) on_durable(status);
  });
}

void Shard::RowsAreDurable(std::span<const AddedRow> rows) {
  Queue* last = nullptr;
  for (const AddedRow& row : rows) {
    Queue& queue = *row.queue;
    --queue.pending;
    CountRow(queue, row.key, 1);
    if (row.lease_id == 0) {
      Lane& lane = *queue.FindLane(row.key.lane);
      lane.cursor = std::min(lane.cursor, row.key);
      lane.next_due_us = std::min(lane.next_due_us, row.key.due_us);
    }
    if (&queue != last) Offer(queue);
    last = &queue;
  }
}

}  // namespace sluice::queue
