// The index: which message an id, sender, recipient or job leads to, for mail that stays. Written
// when a recipient first moves, or when its message has been here for a minute; never for mail that
// goes straight through.
#include <algorithm>

#include "services/queue/core/shard.h"
#include "services/queue/core/shard_walk.h"

namespace sluice::queue {
namespace {

constexpr int64_t kIndexAfterUs = 60'000'000;
constexpr int kMessagesPerTurn = 200;
constexpr uint32_t kWholeMessage = UINT32_MAX;

std::string Key(IndexKind kind, std::string_view field, uint64_t storage_key, uint32_t recipient) {
  std::string key = IndexKey(kind, field, storage_key);
  AppendU32(key, recipient);
  return key;
}

}  // namespace

void Shard::IndexRow(const common::v1::Message& envelope, const common::v1::Delivery& delivery,
                     const DeliveryKey& key) {
  Batch& batch = journal_.batch();
  if (key.storage_key >= watermark_ && indexed_.insert(key.storage_key).second) {
    IndexMessage(envelope, key.storage_key);
  }
  batch.Put(
      Family::kIndex,
      Key(IndexKind::kRecipient, IndexedAddress(delivery.rcpt()), key.storage_key, key.recipient),
      {});
  if (!delivery.job_id().empty()) {
    batch.Put(Family::kIndex,
              Key(IndexKind::kJob, delivery.job_id(), key.storage_key, key.recipient), {});
  }
  batch.Put(Family::kIndex, PositionKey(key.storage_key, key.recipient), key.Encode());
}

void Shard::IndexMessage(const common::v1::Message& envelope, uint64_t storage_key) {
  Batch& batch = journal_.batch();
  batch.Put(Family::kIndex, Key(IndexKind::kId, envelope.id(), storage_key, kWholeMessage), {});
  batch.Put(
      Family::kIndex,
      Key(IndexKind::kSender, IndexedAddress(envelope.mail_from()), storage_key, kWholeMessage),
      {});
}

void Shard::UnindexRow(const DeliveryKey& key, const common::v1::Delivery& delivery) {
  if (!Indexed(key.storage_key)) return;
  Batch& batch = journal_.batch();
  batch.Delete(Family::kIndex, Key(IndexKind::kRecipient, IndexedAddress(delivery.rcpt()),
                                   key.storage_key, key.recipient));
  if (!delivery.job_id().empty()) {
    batch.Delete(Family::kIndex,
                 Key(IndexKind::kJob, delivery.job_id(), key.storage_key, key.recipient));
  }
  batch.Delete(Family::kIndex, PositionKey(key.storage_key, key.recipient));
}

void Shard::UnindexMessage(const common::v1::Message& envelope, uint64_t storage_key) {
  if (Indexed(storage_key)) {
    Batch& batch = journal_.batch();
    batch.Delete(Family::kIndex, Key(IndexKind::kId, envelope.id(), storage_key, kWholeMessage));
    batch.Delete(Family::kIndex, Key(IndexKind::kSender, IndexedAddress(envelope.mail_from()),
                                     storage_key, kWholeMessage));
    indexed_.erase(storage_key);
  }
  if (static_cast<int64_t>(storage_key) + kIndexAfterUs / 2 > NowUs()) return;
  // The store still shows it until this batch is durable: it must not be indexed meanwhile.
  ending_.insert(storage_key);
  journal_.WhenDurable([this, storage_key](const absl::Status&) { ending_.erase(storage_key); });
}

// The store still shows the row where it was until this batch is durable: it must not be indexed
// there meanwhile.
void Shard::NoteDrop(const DeliveryKey& key) {
  if (static_cast<int64_t>(key.storage_key) + kIndexAfterUs / 2 > NowUs()) return;
  const std::pair place(key.storage_key, key.recipient);
  ++dropping_[place];
  journal_.WhenDurable([this, place](const absl::Status&) {
    const auto found = dropping_.find(place);
    if (found != dropping_.end() && --found->second == 0) dropping_.erase(found);
  });
}

void Shard::AdvanceWatermark() {
  index_timer_ = 0;
  const auto target = static_cast<uint64_t>(std::max<int64_t>(0, NowUs() - kIndexAfterUs));
  if (!serving_ || target <= watermark_) {
    index_timer_ = executor_.After(std::chrono::seconds(1), [this] { AdvanceWatermark(); });
    return;
  }
  // When all that came before now is durable, the store shows every message up to the target.
  journal_.WhenDurable([this, target](const absl::Status& status) {
    if (status.ok()) IndexUntil(target);
  });
}

void Shard::IndexUntil(uint64_t target) {
  // Not far at a time: mail that went straight through left deleted rows here.
  const uint64_t until =
      std::min(target, watermark_ + std::max<uint64_t>(1'000'000, (target - watermark_) / 64));
  auto rows = store_.Scan(Family::kMessages, U64Key(watermark_), U64Key(until), false);
  uint64_t position = until;
  int messages = 0;
  for (; rows->Valid(); rows->Next()) {
    if (rows->key().size() != 8) continue;
    const uint64_t storage_key = ReadU64(rows->key(), 0);
    if (messages >= kMessagesPerTurn) {
      position = storage_key;
      break;
    }
    common::v1::Message message;
    if (ending_.contains(storage_key) ||
        !message.ParseFromArray(rows->value().data(), static_cast<int>(rows->value().size()))) {
      continue;
    }
    ++messages;
    if (indexed_.insert(storage_key).second) IndexMessage(message, storage_key);
    const std::string& positions = message.shard_positions();
    for (uint32_t i = 0; (i + 1) * kPositionBytes <= positions.size(); ++i) {
      const size_t at = i * kPositionBytes;
      const DeliveryKey key{ReadU64(positions, at), ReadU64(positions, at + 8),
                            static_cast<int64_t>(ReadU64(positions, at + 16)), storage_key, i};
      std::string value;
      common::v1::Delivery delivery;
      // One that is not there has moved, and was indexed then, or has ended.
      if (!dropping_.contains({storage_key, i}) &&
          store_.Get(Family::kDeliveries, key.Encode(), &value).ok() &&
          delivery.ParseFromString(value)) {
        IndexRow(message, delivery, key);
      }
    }
    indexed_.erase(storage_key);
  }
  watermark_ = position;
  const bool has_mail = stats_.accepted != indexed_accepted_;
  if (messages > 0 || (has_mail && watermark_ == target)) {
    if (messages == 0) indexed_accepted_ = stats_.accepted;
    journal_.batch().Put(Family::kMeta, kWatermarkKey, U64Key(watermark_));
  }
  journal_.WhenDurable([this, position](const absl::Status& status) {
    if (status.ok()) durable_watermark_ = std::max(durable_watermark_, position);
  });
  journal_.Seal();
  const Duration pause =
      watermark_ < target ? std::chrono::milliseconds(5) : std::chrono::milliseconds(1000);
  index_timer_ = executor_.After(pause, [this] { AdvanceWatermark(); });
}

}  // namespace sluice::queue
