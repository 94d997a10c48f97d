#include "services/queue/core/key_codec.h"

namespace sluice::queue {
namespace {

template <class Value>
Value Read(std::string_view key, size_t offset) {
  Value value = 0;
  if (key.size() >= sizeof(value) && offset <= key.size() - sizeof(value)) {
    for (size_t i = 0; i < sizeof(value); ++i) {
      value = value << 8 | static_cast<unsigned char>(key[offset + i]);
    }
  } else {
    for (size_t i = offset; i < offset + sizeof(value); ++i) {
      value = value << 8 | (i < key.size() ? static_cast<unsigned char>(key[i]) : 0);
    }
  }
  return value;
}

}  // namespace

void AppendU64(std::string& key, uint64_t value) {
  char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(value >> (56 - 8 * i));
  key.append(bytes, sizeof(bytes));
}

void AppendU32(std::string& key, uint32_t value) {
  char bytes[4];
  for (int i = 0; i < 4; ++i) bytes[i] = static_cast<char>(value >> (24 - 8 * i));
  key.append(bytes, sizeof(bytes));
}

uint64_t ReadU64(std::string_view key, size_t offset) { return Read<uint64_t>(key, offset); }

uint32_t ReadU32(std::string_view key, size_t offset) { return Read<uint32_t>(key, offset); }

std::string U64Key(uint64_t value) {
  std::string key;
  AppendU64(key, value);
  return key;
}

std::string PrefixEnd(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

std::string DeliveryKey::Encode() const {
  std::string key;
  key.reserve(kBytes);
  AppendU64(key, queue_id);
  AppendU64(key, lane);
  AppendU64(key, static_cast<uint64_t>(due_us));
  AppendU64(key, storage_key);
  AppendU32(key, recipient);
  return key;
}

std::optional<DeliveryKey> DeliveryKey::Decode(std::string_view key) {
  if (key.size() != kBytes) return std::nullopt;
  DeliveryKey decoded;
  decoded.queue_id = ReadU64(key, 0);
  decoded.lane = ReadU64(key, 8);
  decoded.due_us = static_cast<int64_t>(ReadU64(key, 16));
  decoded.storage_key = ReadU64(key, 24);
  decoded.recipient = ReadU32(key, 32);
  return decoded;
}

std::string QueueRowKey(uint64_t queue_id) {
  std::string key = "Q";
  AppendU64(key, queue_id);
  return key;
}

std::string LaneRowKey(uint64_t queue_id, uint64_t lane) {
  std::string key = "L";
  AppendU64(key, queue_id);
  AppendU64(key, lane);
  return key;
}

std::string CountKey(uint64_t storage_key) { return U64Key(storage_key) + "c"; }

std::string BodyChunkKey(uint64_t storage_key, uint32_t chunk) {
  std::string key = U64Key(storage_key);
  AppendU32(key, chunk);
  return key;
}

std::string UploadRowKey(uint64_t storage_key) { return "U" + U64Key(storage_key); }

std::string IndexPrefix(IndexKind kind, std::string_view field) {
  std::string key(1, static_cast<char>(kind));
  key.append(field);
  key.push_back('\0');
  return key;
}

std::string IndexKey(IndexKind kind, std::string_view field, uint64_t storage_key) {
  std::string key = IndexPrefix(kind, field);
  AppendU64(key, storage_key);
  return key;
}

std::string PositionKey(uint64_t storage_key, uint32_t recipient) {
  std::string key = "p";
  AppendU64(key, storage_key);
  AppendU32(key, recipient);
  return key;
}

uint64_t LaneOf(std::string_view job_id, uint32_t priority) {
  if (job_id.empty() && (priority == 0 || priority == kDefaultPriority)) return 0;
  // FNV-1a, 64 bits: short, and defined for ever.
  uint64_t hash = 14695981039346656037ULL;
  for (char c : job_id) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  hash = (hash ^ priority) * 1099511628211ULL;
  return hash == 0 ? 1 : hash;
}

}  // namespace sluice::queue
