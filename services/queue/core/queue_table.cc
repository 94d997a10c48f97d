#include "services/queue/core/queue_table.h"

#include <algorithm>

#include "absl/status/status.h"
#include "services/base/check.h"
#include "services/queue/core/queue_domain.h"
#include "services/queue/core/unknown_fields.h"

namespace sluice::queue {
namespace {

// Ids are never used twice, also not those of removed queues: the highest one is kept here.
constexpr char kLastIdKey[] = "last-queue-id";
// Ids taken at once from the stored mark, so that not every new queue writes it.
constexpr uint64_t kIdStep = 1024;
// From this many lanes on they are found by a hash.
constexpr size_t kLanesInLine = 8;
// Of a reply kept for its queue.
constexpr size_t kReplyTextBytes = 512;

// No row of the lane that is neither stored nor leased lies before this.
DeliveryKey FirstKey(uint64_t queue_id, uint64_t lane) { return {queue_id, lane, 0, 0, 0}; }

}  // namespace

const std::string& Lane::job_id() const {
  static const auto& kNone = *new std::string();
  return job == nullptr ? kNone : *job;
}

Lane& Queue::LaneOf(uint64_t lane, std::string_view job_id, uint32_t priority) {
  if (Lane* found = FindLane(lane)) return *found;
  Lane& made = lanes.emplace_back();
  made.place = std::prev(lanes.end());
  made.id = lane;
  if (!job_id.empty()) made.job = std::make_unique<const std::string>(job_id);
  made.priority = priority == 0 ? kDefaultPriority : priority;
  made.cursor = made.floor = FirstKey(id, lane);
  made.next_due_us = kNever;
  if (lane == 0) main_lane = &made;
  if (lane_index != nullptr) {
    lane_index->emplace(lane, &made);
  } else if (lanes.size() > kLanesInLine) {
    lane_index = std::make_unique<absl::flat_hash_map<uint64_t, Lane*>>();
    for (Lane& each : lanes) lane_index->emplace(each.id, &each);
  }
  return made;
}

void Queue::PutBeforeLower(Lane& lane, int64_t now_us) {
  constexpr int kMostLooks = 64;
  int looks = 0;
  for (auto it = lanes.begin(); it != lane.place && ++looks <= kMostLooks; ++it) {
    if (it->priority >= lane.priority && it->next_due_us <= now_us) continue;
    lanes.splice(it, lanes, lane.place);
    lane.deficit = 0;
    return;
  }
}

Lane* Queue::FindLane(uint64_t lane) {
  if (lane == 0) return main_lane;
  if (lane_index != nullptr) {
    const auto found = lane_index->find(lane);
    return found == lane_index->end() ? nullptr : found->second;
  }
  for (Lane& each : lanes) {
    if (each.id == lane) return &each;
  }
  return nullptr;
}

void Queue::DropLane(Lane& lane) {
  SLUICE_CHECK(&lane != main_lane);
  if (lane_index != nullptr) lane_index->erase(lane.id);
  lanes.remove_if([&lane](const Lane& each) { return &each == &lane; });
}

Queue* QueueTable::Find(std::string_view name) {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second.get();
}

Queue* QueueTable::FindById(uint64_t id) {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

Queue& QueueTable::Get(std::string_view domain, std::string_view vmta, std::string_view pool,
                       Batch& batch) {
  lookup_.assign(domain).append("/").append(vmta);
  if (Queue* found = Find(lookup_)) return *found;
  auto made = std::make_unique<Queue>();
  Queue& queue = *made;
  queue.id = ++last_id_;
  if (last_id_ > id_mark_) {
    id_mark_ = last_id_ + kIdStep;
    batch.Put(Family::kMeta, kLastIdKey, U64Key(id_mark_));
  }
  queue.name = lookup_;
  queue.domain_bytes = static_cast<uint32_t>(domain.size());
  queue.pool = Shared(pool);
  queue.LaneOf(0);
  by_id_[queue.id] = &queue;
  by_name_.emplace(std::string_view(queue.name), std::move(made));
  Touch(queue);
  return queue;
}

void QueueTable::NoteRow(Queue& queue, Lane& lane, const DeliveryKey& key, int64_t expires_us) {
  if (key < lane.floor) {
    lane.floor = key;
    Touch(queue, lane);
  }
  if (key.due_us < queue.stored_next_due_us) {
    queue.stored_next_due_us = key.due_us;
    Touch(queue);
  }
  queue.expiry_added_us = std::min(queue.expiry_added_us, expires_us);
  if (expires_us < queue.earliest_expiry_us) {
    queue.earliest_expiry_us = expires_us;
    Touch(queue);
  }
}

void QueueTable::Touch(Queue& queue) {
  if (queue.dirty) return;
  queue.dirty = true;
  touched_.push_back(&queue);
}

void QueueTable::Touch(Queue& queue, Lane& lane) {
  if (lane.id != 0) lane.dirty = true;
  Touch(queue);
}

void QueueTable::WriteTouched(Batch& batch) {
  for (Queue* queue : touched_) {
    queue->dirty = false;
    WriteRow(*queue, batch);
    for (Lane& lane : queue->lanes) {
      if (!lane.dirty) continue;
      lane.dirty = false;
      v1::LaneRow row;
      row.set_job_id(lane.job_id());
      row.set_priority(lane.priority);
      row.set_floor(lane.floor.Encode());
      Put(LaneRowKey(queue->id, lane.id), row, batch);
    }
  }
  touched_.clear();
}

void QueueTable::WriteRow(Queue& queue, Batch& batch) {
  HistoryOf(queue);  // a rewrite must not lose what only the row has
  v1::QueueRow row;
  row.set_domain(std::string(queue.domain()));
  row.set_vmta(std::string(queue.vmta()));
  row.set_pool(*queue.pool);
  if (queue.rollup != nullptr) row.set_rollup(*queue.rollup);
  row.set_mode(queue.mode);
  row.set_retry_until_us(queue.retry_until_us);
  row.set_retry_step(queue.retry_step);
  row.set_penalties(queue.penalties);
  row.set_penalty_until_us(queue.penalty_until_us);
  row.set_deferred(queue.deferred);
  row.set_floor(queue.main_lane->floor.Encode());
  row.set_next_due_us(queue.stored_next_due_us);
  row.set_earliest_expiry_us(queue.earliest_expiry_us);
  if (queue.backoff != nullptr) {
    *row.mutable_backoff() = queue.backoff->mode;
    for (const auto& source : queue.backoff->sources) *row.add_sources() = source;
  }
  if (queue.history != nullptr) {
    for (const auto& reply : queue.history->replies) *row.add_last_replies() = reply;
    for (int64_t time_us : queue.history->times_us) row.add_last_reply_times_us(time_us);
    queue.history->unsaved = false;
  }
  if (on_write_) on_write_(queue, row);
  Put(QueueRowKey(queue.id), row, batch);
}

void QueueTable::Put(const std::string& key, const google::protobuf::Message& row,
                     Batch& batch) const {
  std::string value = row.SerializeAsString();
  if (const auto kept = unknown_.find(key); kept != unknown_.end()) value += kept->second;
  batch.Put(Family::kQueues, key, value);
}

void QueueTable::KeepUnknown(std::string_view key, const google::protobuf::Message& row) {
  std::string fields = UnknownFieldsOf(row);
  if (!fields.empty()) unknown_[std::string(key)] = std::move(fields);
}

v1::QueueRow QueueTable::StoredRow(const Queue& queue) const {
  std::string value;
  v1::QueueRow row;
  if (!store_.Get(Family::kQueues, QueueRowKey(queue.id), &value).ok() ||
      !row.ParseFromString(value)) {
    row.Clear();
  }
  return row;
}

void QueueTable::Remove(Queue& queue, Batch& batch) {
  if (queue.dirty) std::erase(touched_, &queue);
  if (queue.history != nullptr) histories_.erase(queue.history->place);
  const auto drop = [&](const std::string& key) {
    batch.Delete(Family::kQueues, key);
    unknown_.erase(key);
  };
  drop(QueueRowKey(queue.id));
  for (const Lane& lane : queue.lanes) {
    if (lane.id != 0) drop(LaneRowKey(queue.id, lane.id));
  }
  by_id_.erase(queue.id);
  by_name_.erase(by_name_.find(queue.name));
}

void QueueTable::RemoveLane(Queue& queue, Lane& lane, Batch& batch) {
  const std::string key = LaneRowKey(queue.id, lane.id);
  batch.Delete(Family::kQueues, key);
  unknown_.erase(key);
  queue.DropLane(lane);
}

const std::string* QueueTable::Shared(std::string_view name) {
  const auto found = shared_.find(name);
  return found != shared_.end() ? &*found : &*shared_.emplace(name).first;
}

void QueueTable::Remember(Queue& queue, const common::v1::Reply& reply, int64_t now_us,
                          uint32_t most) {
  most = std::min(most, kMostKeptReplies);
  if (most == 0) return;
  HistoryOf(queue);
  if (queue.history == nullptr) {
    queue.history = std::make_unique<Queue::History>();
    KeepHistory(queue);
  }
  Queue::History& history = *queue.history;
  history.unsaved = true;
  common::v1::Reply& kept = *history.replies.insert(history.replies.begin(), reply);
  if (kept.text().size() > kReplyTextBytes) kept.mutable_text()->resize(kReplyTextBytes);
  history.times_us.insert(history.times_us.begin(), now_us);
  if (history.replies.size() > most) {
    history.replies.resize(most);
    history.times_us.resize(most);
  }
}

const Queue::History* QueueTable::HistoryOf(Queue& queue) {
  if (queue.history != nullptr) {
    histories_.splice(histories_.begin(), histories_, queue.history->place);
  } else if (queue.stored_replies) {
    queue.stored_replies = false;
    if (const v1::QueueRow row = StoredRow(queue); row.last_replies_size() > 0) {
      LoadHistory(queue, row);
      KeepHistory(queue);
    }
  }
  return queue.history.get();
}

void QueueTable::LoadHistory(Queue& queue, const v1::QueueRow& row) {
  queue.history = std::make_unique<Queue::History>();
  for (int i = 0; i < row.last_replies_size() && i < static_cast<int>(kMostKeptReplies); ++i) {
    queue.history->replies.push_back(row.last_replies(i));
    queue.history->times_us.push_back(
        i < row.last_reply_times_us_size() ? row.last_reply_times_us(i) : 0);
  }
}

void QueueTable::KeepHistory(Queue& queue) {
  histories_.push_front(&queue);
  queue.history->place = histories_.begin();
  // Leaves one that is written already; those to be written go later.
  for (size_t tries = 0; histories_.size() > most_histories_ && tries < 2; ++tries) {
    Queue& oldest = *histories_.back();
    if (oldest.history->unsaved) {
      Touch(oldest);
      histories_.splice(histories_.begin(), histories_, oldest.history->place);
      continue;
    }
    histories_.pop_back();
    oldest.history.reset();
    oldest.stored_replies = true;
  }
}

absl::Status QueueTable::Load() {
  std::string mark;
  if (store_.Get(Family::kMeta, kLastIdKey, &mark).ok() && mark.size() == 8) {
    last_id_ = id_mark_ = ReadU64(mark, 0);
  }
  std::vector<std::pair<std::string, std::string>> lanes;
  auto cursor = store_.Scan(Family::kQueues, "", "", false);
  for (; cursor->Valid(); cursor->Next()) {
    const std::string_view key = cursor->key();
    if (key.size() == 17 && key[0] == 'L') {
      lanes.emplace_back(key, cursor->value());
      continue;
    }
    if (key.size() != 9 || key[0] != 'Q') continue;  // of a later release
    v1::QueueRow row;
    if (!row.ParseFromArray(cursor->value().data(), static_cast<int>(cursor->value().size()))) {
      damaged_.push_back({std::string(key), std::string(cursor->value()), "", ""});
      continue;
    }
    auto made = std::make_unique<Queue>();
    Queue& queue = *made;
    queue.id = ReadU64(key, 1);
    queue.name = row.domain() + "/" + row.vmta();
    if (const Queue* other = Find(queue.name)) {
      // One of the rows is the other's, and nothing but their mail tells which.
      damaged_.push_back({QueueRowKey(other->id), "", "", ""});
      if (auto status = store_.Get(Family::kQueues, damaged_.back().key, &damaged_.back().value);
          !status.ok()) {
        return status;
      }
      damaged_.push_back({std::string(key), std::string(cursor->value()), "", ""});
      by_id_.erase(other->id);
      by_name_.erase(by_name_.find(queue.name));
      continue;
    }
    queue.domain_bytes = static_cast<uint32_t>(row.domain().size());
    queue.pool = Shared(row.pool());
    if (!row.rollup().empty()) queue.rollup = Shared(row.rollup());
    queue.mode = row.mode();
    queue.retry_until_us = row.retry_until_us();
    queue.retry_step = row.retry_step();
    queue.penalties = row.penalties();
    queue.penalty_until_us = row.penalty_until_us();
    queue.deferred = row.deferred();
    queue.stored_next_due_us = row.next_due_us();
    queue.earliest_expiry_us = row.earliest_expiry_us();
    queue.stored_replies = row.last_replies_size() > 0;
    if (row.has_backoff() || row.sources_size() > 0) {
      queue.backoff = std::make_unique<Queue::Backoff>();
      queue.backoff->mode = row.backoff();
      queue.backoff->sources.assign(row.sources().begin(), row.sources().end());
    }
    queue.paused = row.paused();
    KeepUnknown(key, row);
    Lane& lane = queue.LaneOf(0);
    lane.next_due_us = row.next_due_us();
    lane.looked_at = false;
    if (auto floor = DeliveryKey::Decode(row.floor())) lane.cursor = lane.floor = *floor;
    AddLoaded(std::move(made));
  }
  if (!cursor->status().ok()) return cursor->status();
  for (Damaged& damaged : damaged_) Rebuild(damaged);
  for (const auto& [key, value] : lanes) {
    v1::LaneRow row;
    Queue* queue = FindById(ReadU64(key, 1));
    if (queue == nullptr) continue;  // its queue's row went first
    const bool damaged = !row.ParseFromString(value);
    if (damaged) {
      common::v1::Delivery first;
      row.Clear();
      if (FirstDelivery(key.substr(1), &first)) {
        row.set_job_id(first.job_id());
        row.set_priority(first.priority());
      }
      damaged_.push_back({key, value,
                          "the row of a job or priority was damaged: made anew from its mail",
                          queue->name});
    } else {
      KeepUnknown(key, row);
    }
    Lane& lane = queue->LaneOf(ReadU64(key, 9), row.job_id(), row.priority());
    lane.next_due_us = queue->stored_next_due_us;
    lane.looked_at = false;
    if (auto floor = DeliveryKey::Decode(row.floor())) lane.cursor = lane.floor = *floor;
    if (damaged) Touch(*queue, lane);
  }
  return absl::OkStatus();
}

void QueueTable::AddLoaded(std::unique_ptr<Queue> made) {
  Queue& queue = *made;
  last_id_ = std::max(last_id_, queue.id);
  by_id_[queue.id] = &queue;
  by_name_.emplace(std::string_view(queue.name), std::move(made));
}

// The first one below a prefix of deliveries' keys that can be read.
bool QueueTable::FirstDelivery(const std::string& prefix, common::v1::Delivery* delivery) const {
  constexpr int kMostRows = 1000;
  auto rows = store_.Scan(Family::kDeliveries, prefix, PrefixEnd(prefix), false);
  for (int i = 0; rows->Valid() && i < kMostRows; rows->Next(), ++i) {
    if (delivery->ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size())) &&
        !delivery->rcpt().empty()) {
      return true;
    }
  }
  return false;
}

void QueueTable::Rebuild(Damaged& row) {
  const uint64_t id = ReadU64(row.key, 1);
  last_id_ = std::max(last_id_, id);  // never given again
  common::v1::Delivery first;
  if (!FirstDelivery(U64Key(id), &first)) {
    row.what = "the row of a queue is damaged, and it has no mail that tells which one it was";
    return;
  }
  std::string domain;
  QueueDomainOf(first, &domain);
  auto made = std::make_unique<Queue>();
  made->id = id;
  made->name = domain + "/" + first.vmta();
  made->domain_bytes = static_cast<uint32_t>(domain.size());
  made->pool = Shared(first.pool());
  if (Find(made->name) != nullptr) {
    row.what = "the row of a queue is damaged, and there is another one of the name " + made->name;
    return;
  }
  // Lower bounds of what is not known: the first look finds out.
  made->stored_next_due_us = 0;
  made->earliest_expiry_us = 0;
  Lane& lane = made->LaneOf(0);
  lane.next_due_us = 0;
  lane.looked_at = false;
  row.what = "the row of a queue was damaged: made anew from its mail; its mode begins anew";
  row.queue = made->name;
  Queue& queue = *made;
  AddLoaded(std::move(made));
  Touch(queue);
}

}  // namespace sluice::queue
