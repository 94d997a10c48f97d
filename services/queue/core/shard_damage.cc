// Rows that cannot be read. One of them stops neither its queue nor the start: it stays as it is,
// an operator is told of it once, and sees it in the shard's status and in listings.
#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"
#include "services/queue/core/shard_walk.h"

namespace sluice::queue {
namespace {

// Told of and remembered; what is beyond is counted.
constexpr size_t kMostRemembered = 10'000;
constexpr int kMostShown = 100;
// A stretch of the database that cannot be read is tried again after this.
constexpr int64_t kReadAgainUs = 10'000'000;

std::string_view NameOf(Family family) {
  switch (family) {
    case Family::kMeta:
      return "meta";
    case Family::kQueues:
      return "queues";
    case Family::kMessages:
      return "messages";
    case Family::kBodies:
      return "bodies";
    case Family::kDeliveries:
      return "deliveries";
    case Family::kLeases:
      return "leases";
    case Family::kEvents:
      return "events";
    case Family::kIndex:
      return "index";
    case Family::kKeys:
      return "keys";
  }
  return "?";
}

}  // namespace

std::string HexOf(std::string_view key) {
  return absl::BytesToHexString(absl::string_view(key.data(), key.size()));
}

void Shard::NoteDamage(Family family, std::string_view key, std::string_view what,
                       std::string_view queue) {
  const std::pair place(family, std::string(key));
  if (damaged_.contains(place)) return;
  ++stats_.damaged;
  if (damaged_.size() < kMostRemembered) {
    damaged_.emplace(place, DamagedRow{std::string(what), std::string(queue), NowUs()});
  }
  if (options_.log == nullptr) return;
  options_.log->Error("row_damaged", what,
                      {{"shard", options_.name},
                       {"family", NameOf(family)},
                       {"key", HexOf(key)},
                       {"queue", queue}});
}

void Shard::FillDamage(v1::GetShardStatusResponse* status) const {
  status->set_damaged_rows_total(stats_.damaged);
  int shown = 0;
  for (const auto& [place, damage] : damaged_) {
    if (shown++ == kMostShown) break;
    v1::DamagedRow* row = status->add_damaged_rows();
    row->set_family(std::string(NameOf(place.first)));
    row->set_key(HexOf(place.second));
    row->set_what(damage.what);
    row->set_queue(damage.queue);
    row->set_seen_us(damage.seen_us);
  }
}

// What the table found at the start: its rows are written anew as far as the deliveries tell what
// was in them, and the old bytes are kept beside.
void Shard::KeepDamagedQueueRows() {
  for (const QueueTable::Damaged& row : queues_.TakeDamaged()) {
    NoteDamage(Family::kQueues, row.key, row.what, row.queue);
    if (row.queue.empty()) continue;
    journal_.batch().Put(Family::kMeta, absl::StrCat("X", row.key), row.value);
  }
}

// The largest key of eight bytes or more in a family, by its first eight; 0: none.
uint64_t Shard::HighestKey(Family family) const {
  uint64_t low = 0;
  uint64_t high = UINT64_MAX;
  while (low < high) {
    const uint64_t middle = high - (high - low) / 2;
    if (store_.Scan(family, U64Key(middle), "", false)->Valid()) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// A number of the meta family; `otherwise` where its row has none. 0 where there is no row.
uint64_t Shard::StoredNumber(std::string_view key, absl::FunctionRef<uint64_t()> otherwise) {
  std::string value;
  const absl::Status got = store_.Get(Family::kMeta, key, &value);
  if (got.ok() && value.size() == 8) return ReadU64(value, 0);
  if (absl::IsNotFound(got)) return 0;
  NoteDamage(Family::kMeta, key, "a number cannot be read; it is made anew from other rows");
  return otherwise();
}

void Shard::PutOff(Queue& queue, Lane& lane, const absl::Status& status) {
  NoteDamage(Family::kDeliveries, lane.cursor.Encode(),
             absl::StrCat("the rows from here on cannot be read: ", status.message()), queue.name);
  lane.next_due_us = NowUs() + kReadAgainUs;
}

// An operator deletes what cannot be read. Its message goes with the last of its recipients.
void Shard::RemoveDamaged(const v1::DeleteMessagesRequest& request, const WalkRow& row) {
  Queue& queue = *row.queue;
  std::shared_ptr<const StoredMessage> message = LoadMessage(row.key.storage_key);
  if (message == nullptr) {
    auto unread = std::make_shared<StoredMessage>();
    const std::string key = U64Key(row.key.storage_key);
    auto chunks = store_.Scan(Family::kBodies, key, U64Key(row.key.storage_key + 1), false);
    for (; chunks->Valid(); chunks->Next()) unread->chunks += chunks->key().size() > key.size();
    message = std::move(unread);
  }
  queue.LaneOf(row.key.lane).busy.insert(row.key);
  common::v1::Event& event =
      NewEvent(common::v1::EVENT_KIND_DELETED, queue, message->envelope, nullptr);
  event.set_rcpt(row.delivery.rcpt());
  event.set_author(request.author());
  event.set_reason(absl::StrCat(request.reason(), " (it could not be read)"));
  DropRow(row.key);
  journal_.batch().Delete(Family::kIndex, PositionKey(row.key.storage_key, row.key.recipient));
  RecipientsLess(row.key.storage_key, *message, 1);
  FreeWhenDurable(queue, {row.key}, {});
  damaged_.erase(std::pair(Family::kDeliveries, row.key.Encode()));
  damaged_.erase(std::pair(Family::kMessages, U64Key(row.key.storage_key)));
}

}  // namespace sluice::queue
