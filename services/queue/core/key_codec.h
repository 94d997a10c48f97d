// Keys of the shard's database: fixed-width big-endian fields, so that they sort as numbers
// (services/queue/doc/storage_format.md). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::queue {

void AppendU64(std::string& key, uint64_t value);
void AppendU32(std::string& key, uint32_t value);
// Reads at `offset`; what a key lacks is zero, as a damaged disk may give one back.
uint64_t ReadU64(std::string_view key, size_t offset);
uint32_t ReadU32(std::string_view key, size_t offset);

std::string U64Key(uint64_t value);

// The least string above every key that begins with `prefix`; empty where there is none.
std::string PrefixEnd(std::string_view prefix);

// Deliveries: one recipient that waits.
struct DeliveryKey {
  uint64_t queue_id = 0;
  uint64_t lane = 0;
  int64_t due_us = 0;  // wall clock; min(next try, expiry); not negative
  uint64_t storage_key = 0;
  uint32_t recipient = 0;

  static constexpr size_t kBytes = 36;
  std::string Encode() const;
  // Nothing where the size is not that of a delivery key.
  static std::optional<DeliveryKey> Decode(std::string_view key);
  friend auto operator<=>(const DeliveryKey&, const DeliveryKey&) = default;
};

std::string QueueRowKey(uint64_t queue_id);                // Q|id
std::string LaneRowKey(uint64_t queue_id, uint64_t lane);  // L|id|lane
std::string CountKey(uint64_t storage_key);                // Messages: key|c
std::string BodyChunkKey(uint64_t storage_key, uint32_t chunk);
std::string UploadRowKey(uint64_t storage_key);  // Meta: U|key

// Index rows, kind|field 0x00 key: of the storage keys of mail that stays.
enum class IndexKind : char { kId = 'i', kSender = 's', kRecipient = 'r', kJob = 'j' };
std::string IndexPrefix(IndexKind kind, std::string_view field);
std::string IndexKey(IndexKind kind, std::string_view field, uint64_t storage_key);

// Where a recipient's row is now, once it has moved: p|storage key|recipient -> delivery key.
std::string PositionKey(uint64_t storage_key, uint32_t recipient);

// The lane of a job and a priority within a queue. Zero is the default lane: no job, default
// priority. Stable for ever: it is in stored keys.
uint64_t LaneOf(std::string_view job_id, uint32_t priority);

inline constexpr uint32_t kDefaultPriority = 50;

}  // namespace sluice::queue
