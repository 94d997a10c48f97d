// Rows that a damaged disk gives back: decoding them ends in a value or an error, never in a crash;
// and a shard whose whole database is such bytes starts, or says that it cannot. The first byte
// chooses what the others are.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/base/testing/manual_executor.h"
#include "services/queue/core/key_codec.h"
#include "services/queue/core/memory_store.h"
#include "services/queue/core/shard.h"
#include "services/queue/testing/virtual_committer.h"
#include "sluice/queue/v1/storage.pb.h"

namespace {

using sluice::queue::Batch;
using sluice::queue::DeliveryKey;
using sluice::queue::Family;

// What parses is written and read again without a change.
template <class Row>
void Decode(std::string_view bytes) {
  Row row;
  if (!row.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  const std::string once = row.SerializeAsString();
  Row again;
  SLUICE_CHECK(again.ParseFromString(once));
  SLUICE_CHECK(again.ByteSizeLong() == once.size());
}

void DecodeKey(std::string_view bytes) {
  const auto key = DeliveryKey::Decode(bytes);
  SLUICE_CHECK(key.has_value() == (bytes.size() == DeliveryKey::kBytes));
  if (key) SLUICE_CHECK(key->Encode() == bytes);
  const std::string end = sluice::queue::PrefixEnd(bytes);
  SLUICE_CHECK(end.empty() || end > bytes);
}

// Rows of: family (1 byte), size of the key (1), size of the value (2), key, value.
void StartShard(std::string_view bytes) {
  sluice::testing::ManualExecutor executor;
  sluice::queue::MemoryStore store;
  auto batch = store.NewBatch();
  const auto byte = [&bytes](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  while (bytes.size() >= 4) {
    const auto family = static_cast<Family>(byte(0) % sluice::queue::kFamilyCount);
    const size_t key = byte(1);
    const size_t value = byte(2) << 8 | byte(3);
    bytes.remove_prefix(4);
    if (bytes.size() < key + value) break;
    batch->Put(family, bytes.substr(0, key), bytes.substr(key, value));
    bytes.remove_prefix(key + value);
  }
  SLUICE_CHECK(store.Commit(*batch, true).ok());
  sluice::queue::testing::VirtualCommitter committer(executor, store);
  sluice::queue::Shard shard({}, executor, store, committer);
  if (!shard.Start().ok()) return;
  executor.Advance(std::chrono::seconds(3));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'D':
      Decode<sluice::common::v1::Delivery>(bytes);
      break;
    case 'M':
      Decode<sluice::common::v1::Message>(bytes);
      break;
    case 'E':
      Decode<sluice::queue::v1::EventBatch>(bytes);
      break;
    case 'Q':
      Decode<sluice::queue::v1::QueueRow>(bytes);
      break;
    case 'L':
      Decode<sluice::queue::v1::LaneRow>(bytes);
      break;
    case 'S':
      Decode<sluice::queue::v1::LeaseRow>(bytes);
      break;
    case 'F':
      Decode<sluice::queue::v1::FormatRow>(bytes);
      break;
    case 'O':
      Decode<sluice::queue::v1::OutboxSegmentRow>(bytes);
      break;
    case 'K':
      DecodeKey(bytes);
      break;
    default:
      StartShard(bytes);
  }
  return 0;
}
