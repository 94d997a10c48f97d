#include "services/queue/core/queue_table.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sluice::queue {
namespace {
// Ids are never used twice, also not those of removed queues: the highest one is kept here.
constexpr char kLastIdKey[] = "last-queue-id";
// Ids taken at once from the stored mark, so that not every new queue writes it.
constexpr uint64_t kIdStep = 1024;
}  // namespace

Lane& Queue::LaneOf(uint64_t lane, std::string_view job_id, uint32_t priority) {
  if (Lane* found = FindLane(lane)) return *found;
  Lane& made = lanes.emplace_back();
  made.id = lane;
  made.job_id = std::string(job_id);
  made.priority = priority == 0 ? kDefaultPriority : priority;
  made.cursor = made.floor = DeliveryKey{id, lane, 0, 0, 0};
  made.next_due_us = kNever;
  return made;
}

Lane* Queue::FindLane(uint64_t lane) {
  for (Lane& each : lanes) {
    if (each.id == lane) return &each;
  }
  return nullptr;
}

void Queue::Remember(const common::v1::Reply& reply, int64_t now_us) {
  if (history == nullptr) history = std::make_unique<History>();
  history->replies.insert(history->replies.begin(), reply);
  history->times_us.insert(history->times_us.begin(), now_us);
  if (history->replies.size() > kKeptReplies) {
    history->replies.pop_back();
    history->times_us.pop_back();
  }
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
  std::string name(domain);
  name.append("/").append(vmta);
  std::unique_ptr<Queue>& slot = by_name_[name];
  if (slot != nullptr) return *slot;
  slot = std::make_unique<Queue>();
  slot->id = ++last_id_;
  if (last_id_ > id_mark_) {
    id_mark_ = last_id_ + kIdStep;
    batch.Put(Family::kMeta, kLastIdKey, U64Key(id_mark_));
  }
  slot->domain = std::string(domain);
  slot->vmta = std::string(vmta);
  slot->pool = std::string(pool);
  slot->name = std::move(name);
  slot->LaneOf(0, "", 0);
  by_id_[slot->id] = slot.get();
  slot->stored_next_due_us = 0;
  WriteRow(*slot, batch);
  return *slot;
}

void QueueTable::WriteRow(Queue& queue, Batch& batch) {
  v1::QueueRow row;
  row.set_domain(queue.domain);
  row.set_vmta(queue.vmta);
  row.set_pool(queue.pool);
  row.set_mode(queue.mode);
  row.set_retry_until_us(queue.retry_until_us);
  row.set_retry_step(queue.retry_step);
  row.set_floor(queue.lanes[0].floor.Encode());
  if (queue.history != nullptr) {
    for (const auto& reply : queue.history->replies) *row.add_last_replies() = reply;
    for (int64_t time_us : queue.history->times_us) row.add_last_reply_times_us(time_us);
  }
  batch.Put(Family::kQueues, QueueRowKey(queue.id), row.SerializeAsString());
}

void QueueTable::Remove(Queue& queue, Batch& batch) {
  batch.Delete(Family::kQueues, QueueRowKey(queue.id));
  for (const Lane& lane : queue.lanes) {
    if (lane.id != 0) batch.Delete(Family::kQueues, LaneRowKey(queue.id, lane.id));
  }
  by_id_.erase(queue.id);
  by_name_.erase(by_name_.find(queue.name));
}

absl::Status QueueTable::Load(const Store& store) {
  std::string mark;
  if (store.Get(Family::kMeta, kLastIdKey, &mark).ok() && mark.size() == 8) {
    last_id_ = id_mark_ = ReadU64(mark, 0);
  }
  std::vector<std::pair<std::string, std::string>> lanes;
  auto cursor = store.Scan(Family::kQueues, "", "", false);
  for (; cursor->Valid(); cursor->Next()) {
    const std::string_view key = cursor->key();
    if (key.size() == 17 && key[0] == 'L') {
      lanes.emplace_back(key, cursor->value());
      continue;
    }
    v1::QueueRow row;
    if (key.size() != 9 || key[0] != 'Q' ||
        !row.ParseFromArray(cursor->value().data(), static_cast<int>(cursor->value().size()))) {
      return absl::DataLossError("a row of the queues family cannot be read");
    }
    auto queue = std::make_unique<Queue>();
    queue->id = ReadU64(key, 1);
    queue->domain = row.domain();
    queue->vmta = row.vmta();
    queue->pool = row.pool();
    queue->name = row.domain() + "/" + row.vmta();
    queue->mode = row.mode();
    queue->retry_until_us = row.retry_until_us();
    queue->retry_step = row.retry_step();
    queue->earliest_expiry_us = 0;  // unknown: the sweep will look
    Lane& lane = queue->LaneOf(0, "", 0);
    lane.next_due_us = 0;
    if (auto floor = DeliveryKey::Decode(row.floor())) lane.cursor = lane.floor = *floor;
    for (int i = row.last_replies_size() - 1; i >= 0; --i) {
      queue->Remember(row.last_replies(i),
                      i < row.last_reply_times_us_size() ? row.last_reply_times_us(i) : 0);
    }
    last_id_ = std::max(last_id_, queue->id);
    by_id_[queue->id] = queue.get();
    by_name_[queue->name] = std::move(queue);
  }
  if (!cursor->status().ok()) return cursor->status();
  for (const auto& [key, value] : lanes) {
    v1::LaneRow row;
    Queue* queue = FindById(ReadU64(key, 1));
    if (queue == nullptr) continue;  // its queue's row went first
    if (!row.ParseFromString(value)) return absl::DataLossError("a lane row cannot be read");
    Lane& lane = queue->LaneOf(ReadU64(key, 9), row.job_id(), row.priority());
    lane.next_due_us = 0;
    if (auto floor = DeliveryKey::Decode(row.floor())) lane.cursor = lane.floor = *floor;
  }
  return absl::OkStatus();
}

}  // namespace sluice::queue
