// Taking mail: from a frame of messages to rows in the batch, and the answers once they are
// durable.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "services/queue/core/queue_domain.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

constexpr int kMaxRecipients = 1'000'000;
// Of a limit or reserve that was passed: room for one part of so many, and mail is taken again.
constexpr uint64_t kRoomShare = 8;

std::string BucketKey(int64_t bucket, const std::string& key) {
  return U64Key(static_cast<uint64_t>(bucket)) + key;
}

// Recipients whose first places are in the message's row; a message with more is indexed at once.
constexpr uint32_t kMostPositions = 64;

struct Group {
  Queue* queue;
  Lane* lane;
  std::vector<uint32_t> members;
};

void AddToGroup(std::vector<Group>& groups, Queue& queue, Lane& lane, uint32_t member) {
  // Recipients mostly come sorted by domain; a group that is not found here goes by the queue.
  constexpr size_t kLookBack = 16;
  for (size_t back = 0; back < std::min(groups.size(), kLookBack); ++back) {
    Group& group = groups[groups.size() - 1 - back];
    if (group.lane != &lane) continue;
    group.members.push_back(member);
    return;
  }
  if (groups.size() >= 2 * kLookBack) return;
  groups.push_back({&queue, &lane, {member}});
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

uint64_t Shard::SpoolLimit() const {
  const uint64_t said = policy_->global().max_queue_size();
  const uint64_t own = options_.spool_limit_bytes;
  return said == 0 || own == 0 ? std::max(said, own) : std::min(said, own);
}

int64_t Shard::KeyBucketsBack() const {
  const int64_t keep_us = std::max(policy_->global().idempotency_keep_us(), kKeyBucketUs);
  return (keep_us + kKeyBucketUs - 1) / kKeyBucketUs;
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
  if (policy_->global().spool_deliver_only()) {
    *detail = "the spool takes no new mail (deliver-only)";
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
  // Once full it stays so until there is some room: what came since the last look at the volume is
  // an estimate, and clients are not to be let in and turned away by turns.
  const bool was_full = std::exchange(full_, true);
  const uint64_t limit = SpoolLimit();
  const uint64_t most = was_full ? limit - limit / kRoomShare : limit;
  const uint64_t spool = health_.live_bytes + bytes_since_health_;
  if (limit > 0 && spool > most) {
    *detail = absl::StrCat("the spool holds ", spool, " bytes; its limit is ", limit);
    if (was_full) absl::StrAppend(detail, "; it takes mail again below ", most);
    return v1::EnqueueResult::OUTCOME_REFUSED_FULL;
  }
  const uint64_t reserve = std::max<uint64_t>(
      options_.reserve_bytes, uint64_t{policy_->global().spool_min_free_space_mb()} << 20);
  const uint64_t least = was_full ? reserve + reserve / kRoomShare : reserve;
  if (health_.volume_free_bytes > 0 &&
      health_.volume_free_bytes < least + 2 * bytes_since_health_) {
    *detail = absl::StrCat("the spool's volume has ", health_.volume_free_bytes, " bytes left, ",
                           reserve, " are kept in reserve");
    if (was_full) absl::StrAppend(detail, "; it takes mail again from ", least);
    return v1::EnqueueResult::OUTCOME_REFUSED_FULL;
  }
  full_ = false;
  return v1::EnqueueResult::OUTCOME_UNSPECIFIED;
}

// Two names for one shard, or a name for another one, is a mistake in the client's flags.
absl::Status Shard::CheckMeant(std::string_view name) const {
  if (name.empty() || name == options_.name) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this is shard ", options_.name, ", not ", std::string(name)));
}

void Shard::OnEnqueue(EnqueueSession& session, Frame<v1::EnqueueRequest> frame) {
  if (absl::Status meant = CheckMeant(frame.header.shard()); !meant.ok()) {
    session.stream->Close(std::move(meant));
    return;
  }
  if (frame.header.messages().empty()) {  // a question for the load
    session.dirty = true;
    FlushLater();
    return;
  }
  for (v1::NewMessage& each : *frame.header.mutable_messages()) {
    journal_.Seal();
    const uint64_t token = each.token();
    common::v1::Message& envelope = *each.mutable_message();
    // A body that came ahead of a message that is not taken goes: nobody can name it any more.
    auto refuse = [this, &session, &each](v1::EnqueueResult::Outcome outcome,
                                          std::string_view why) {
      if (each.body_case() == v1::NewMessage::kUploadId) AbortUpload(each.upload_id());
      session.Answer(each.token(), outcome, each.message().id(), why);
    };
    auto invalid = [&refuse](std::string_view why) {
      refuse(v1::EnqueueResult::OUTCOME_REFUSED_INVALID, why);
    };
    std::string detail;
    if (const auto refusal = Refusal(&detail); refusal != v1::EnqueueResult::OUTCOME_UNSPECIFIED) {
      refuse(refusal, detail);
      continue;
    }
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
        // Not the message's fault: the shard was started again, or the upload was given up.
        refuse(v1::EnqueueResult::OUTCOME_REFUSED_BUSY,
               "no such finished upload on this shard: send the body again");
        continue;
      }
      upload = &found->second;
    } else if (each.body_index() >= static_cast<uint32_t>(frame.bodies.size())) {
      invalid("the body index is beyond the frame's bodies");
      continue;
    }

    const std::string idempotency_key = envelope.idempotency_key();
    if (!idempotency_key.empty()) {
      const int64_t bucket = NowUs() / kKeyBucketUs;
      std::string first_id;
      // The next bucket has those from before the clock was set back.
      bool seen = false;
      for (int64_t back = -1; back <= KeyBucketsBack() && !seen; ++back) {
        seen = store_.Get(Family::kKeys, BucketKey(bucket - back, idempotency_key), &first_id).ok();
      }
      if (seen) {
        envelope.set_id(first_id);
        refuse(v1::EnqueueResult::OUTCOME_DUPLICATE, "");
        continue;
      }
      if (!keys_in_flight_.insert(idempotency_key).second) {
        refuse(v1::EnqueueResult::OUTCOME_IN_FLIGHT, "the same key is being enqueued: try again");
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
      message->body = frame.bodies[each.body_index()];
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

// A pool becomes one of its virtual MTAs, in turn.
void Shard::ChooseVmta(common::v1::Delivery& delivery) {
  if (!delivery.vmta().empty()) return;
  const auto* pool = policy_->FindPool(delivery.pool());
  delivery.set_vmta(
      pool == nullptr || pool->virtual_mtas().empty()
          ? "default"
          : pool->virtual_mtas(static_cast<int>(pool_turn_++ % pool->virtual_mtas().size())));
}

Lane& Shard::LaneFor(Queue& queue, uint64_t id, const std::string& job_id, uint32_t priority) {
  if (Lane* found = queue.FindLane(id)) return *found;
  Lane& lane = queue.LaneOf(id, job_id, priority);
  RefreshPause(queue, lane);
  // A lane of that name may have been here before and left deleted rows behind: what comes now
  // sorts after them, or NoteRow moves this back.
  lane.floor = lane.cursor = DeliveryKey{queue.id, id, NowUs(), 0, 0};
  queues_.Touch(queue, lane);
  return lane;
}

void Shard::AddMessage(std::shared_ptr<StoredMessage> message,
                       std::vector<common::v1::Delivery> deliveries, uint64_t storage_key,
                       Journal::OnDurable on_durable) {
  Batch& batch = journal_.batch();
  common::v1::Message& envelope = message->envelope;
  const std::string key = U64Key(storage_key);
  if (message->chunks == 0) batch.Put(Family::kBodies, key, message->body.view());
  bytes_since_health_ += message->body.size();
  if (envelope.body_size() == 0) envelope.set_body_size(message->body.size());
  bodies_bytes_ += envelope.body_size();
  const auto count = static_cast<uint32_t>(deliveries.size());
  message->recipients = count;
  if (count > 1) {
    std::string value;
    AppendU32(value, count);
    batch.Put(Family::kMessages, CountKey(storage_key), value);
    counts_[storage_key] = {count, 1};
  }

  const int64_t now_us = NowUs();
  std::vector<AddedRow> rows;
  rows.reserve(count);
  // Recipients by queue and lane, for groups that are born leased; in the order of appearance.
  std::vector<Group> groups;
  std::string positions;
  for (uint32_t i = 0; i < count; ++i) {
    common::v1::Delivery& delivery = deliveries[i];
    ChooseVmta(delivery);
    QueueDomainOf(delivery, &domain_);
    Queue* chosen = &queues_.Get(domain_, delivery.vmta(), delivery.pool(), batch);
    if (chosen->settings == nullptr) RefreshPause(*chosen);
    if (RerouteByPolicy(*chosen, delivery)) {
      chosen = &queues_.Get(domain_, delivery.vmta(), delivery.pool(), batch);
      if (chosen->settings == nullptr) RefreshPause(*chosen);
    }
    Queue& queue = *chosen;
    const uint32_t priority = delivery.priority() != 0 ? delivery.priority() : envelope.priority();
    const uint64_t lane_id = LaneOf(delivery.job_id(), priority);
    Lane& lane = LaneFor(queue, lane_id, delivery.job_id(), priority);
    const int64_t start_us = NextWindow(
        delivery, std::max({now_us, envelope.not_before_us(), delivery.not_before_us()}));
    const int64_t expires_us = ExpiryOf(queue, storage_key, delivery);
    const DeliveryKey row_key{queue.id, lane_id, std::min(start_us, expires_us), storage_key, i};
    delivery.SerializeToString(&row_value_);
    batch.Put(Family::kDeliveries, row_key.Encode(), row_value_);
    queues_.NoteRow(queue, lane, row_key,
                    std::min(expires_us, NoticeOf(queue, storage_key, delivery)));
    if (count <= kMostPositions) {
      AppendU64(positions, queue.id);
      AppendU64(positions, lane_id);
      AppendU64(positions, static_cast<uint64_t>(row_key.due_us));
    }
    // An upload has its key from its beginning, so the index may have passed it.
    if (count > kMostPositions || Indexed(storage_key)) IndexRow(envelope, delivery, row_key);
    ++queue.pending;
    lane.busy.insert(row_key);
    rows.push_back({&queue, row_key, 0});
    if (queue.mode == v1::QUEUE_MODE_RETRY && SettingsOf(queue).retry_upon_new_mail() &&
        queue.retry_until_us > now_us && !queue.Penalised(now_us)) {
      queue.retry_until_us = now_us;
      queues_.Touch(queue);
    }
    // A message for a warm connection leaves with its own commit, where nothing waits before it.
    if (queue.session != nullptr && !queue.session->congested && start_us <= now_us &&
        lane.next_due_us > now_us && lane.looked_at && !lane.paused && !delivery.has_hold() &&
        MayDispatch(queue, now_us) && queue.session->standing[queue.queue_ref].groups > 0 &&
        (count == 1 || !EachAlone(envelope))) {
      AddToGroup(groups, queue, lane, i);
    }
  }
  envelope.SerializeToString(&row_value_);
  if (!positions.empty()) {
    common::v1::Message tail;
    tail.set_shard_positions(std::move(positions));
    tail.AppendToString(&row_value_);  // fields of one message, told in two pieces
  }
  batch.Put(Family::kMessages, key, row_value_);

  NewEvent(common::v1::EVENT_KIND_RECEIVED, *rows[0].queue, envelope, &deliveries[0])
      .set_rcpt_count(count);
  ++stats_.accepted;
  stats_.accepted_recipients += count;
  std::shared_ptr<const StoredMessage> shared = message;
  uint32_t leased = 0;
  for (Group& group : groups) {
    Queue& queue = *group.queue;
    Standing& standing = queue.session->standing[queue.queue_ref];
    if (standing.max_bytes != 0 && envelope.body_size() > standing.max_bytes) continue;
    const uint32_t most = std::max<uint32_t>(1, standing.max_recipients != 0
                                                    ? standing.max_recipients
                                                    : SettingsOf(queue).max_rcpt_per_transaction());
    for (size_t begin = 0; begin < group.members.size() && standing.groups > 0; begin += most) {
      --standing.groups;
      std::vector<DeliveryKey> keys;
      std::vector<common::v1::Delivery> members;
      const size_t end = std::min<size_t>(group.members.size(), begin + most);
      for (size_t m = begin; m < end; ++m) {
        keys.push_back(rows[group.members[m]].key);
        members.push_back(std::move(deliveries[group.members[m]]));
      }
      leased += static_cast<uint32_t>(end - begin);
      const uint64_t lease =
          MakeLease(queue, *group.lane, *queue.session, std::move(keys), std::move(members), shared)
              .id;
      for (size_t m = begin; m < end; ++m) rows[group.members[m]].lease_id = lease;
    }
  }
  if (leased < count && message->chunks == 0) KeepFresh(storage_key, std::move(shared));
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
  const int64_t now_us = NowUs();
  for (const AddedRow& row : rows) {
    Queue& queue = *row.queue;
    Lane& lane = *queue.FindLane(row.key.lane);
    --queue.pending;
    CountRow(queue, row.key, 1);
    if (row.lease_id == 0) {
      lane.busy.erase(row.key);
      lane.cursor = std::min(lane.cursor, row.key);
      const bool had_none = lane.next_due_us > now_us;
      lane.next_due_us = std::min(lane.next_due_us, row.key.due_us);
      // Not with each message: a lane that always has some keeps to its turns.
      if (had_none && lane.next_due_us <= now_us && queue.lanes.size() > 1 &&
          SettingsOf(queue).allow_priority_interruption()) {
        queue.PutBeforeLower(lane, now_us);
      }
    }
    queue.active_us = static_cast<int64_t>(row.key.storage_key);
  }
  Queue* last = nullptr;
  for (const AddedRow& row : rows) {
    if (row.queue != last && row.lease_id == 0) Offer(*row.queue);
    last = row.queue;
  }
}

}  // namespace sluice::queue
