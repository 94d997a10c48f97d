// What the shard needs of a durable ordered store: atomic batches, one sync, bounded scans. RocksDB
// implements it in io/rocksdb_store.h, memory in memory_store.h (simulations, tests);
// store_contract.h holds both to this.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::queue {

// Key spaces. Keys sort by bytes (unsigned). See services/queue/doc/storage_format.md.
enum class Family : uint8_t {
  kMeta,        // format version, epoch, watermarks
  kQueues,      // queue and lane rows
  kMessages,    // envelopes and outstanding counts
  kBodies,      // text, chunks; large values
  kDeliveries,  // queue, lane, due, message, recipient
  kLeases,
  kEvents,  // outbox
  kIndex,   // by id, sender, recipient, job: only for mail that stays
  kKeys,    // idempotency
};
inline constexpr int kFamilyCount = 9;

// Changes that become visible and durable together, in the order given.
// Thread-safety: one thread at a time.
class Batch {
 public:
  virtual ~Batch() = default;
  virtual void Put(Family family, std::string_view key, std::string_view value) = 0;
  virtual void Delete(Family family, std::string_view key) = 0;
  // Removes [begin, end). Of bodies, events and keys only.
  virtual void DeleteRange(Family family, std::string_view begin, std::string_view end) = 0;
  virtual size_t bytes() const = 0;
  virtual size_t count() const = 0;
  virtual void Clear() = 0;
};

// Reads forward within [lower, upper) of one family. It sees what was committed before its
// creation; of what is committed later, it may or may not see each row. Short-lived: it pins
// memory.
class Cursor {
 public:
  virtual ~Cursor() = default;
  virtual bool Valid() const = 0;
  virtual void Next() = 0;
  virtual void Seek(std::string_view key) = 0;  // clamped to [lower, upper)
  virtual std::string_view key() const = 0;     // valid until the next move
  virtual std::string_view value() const = 0;
  virtual absl::Status status() const = 0;  // a cursor that is not Valid either ended or failed
};

// What the volume and the engine say of taking more.
struct StoreHealth {
  bool stalling = false;  // the engine is about to slow writes down: refuse enqueues, take results
  bool failed = false;    // a write or a sync failed: nothing more is accepted until reopened
  uint64_t live_bytes = 0;  // on the volume
  uint64_t volume_free_bytes = 0;
  uint64_t memtable_bytes = 0;
  std::string detail;
};

// Thread-safety: Commit from one thread at a time; everything else from any thread, also during a
// Commit. Failure: after a failed sync Commit the store refuses all writes; whether the batch is
// there after reopening is unknown.
class Store {
 public:
  virtual ~Store() = default;

  virtual std::unique_ptr<Batch> NewBatch() = 0;

  // Applies a batch. With `sync` it returns only when it and all before it would survive a power
  // cut. Blocks.
  virtual absl::Status Commit(Batch& batch, bool sync) = 0;

  // NOT_FOUND where there is none. DATA_LOSS where the store is damaged.
  virtual absl::Status Get(Family family, std::string_view key, std::string* value) const = 0;

  // upper empty: to the end of the family. `fill_cache` false for walks over everything.
  virtual std::unique_ptr<Cursor> Scan(Family family, std::string_view lower,
                                       std::string_view upper, bool fill_cache = true) const = 0;

  virtual StoreHealth Health() const = 0;
};

}  // namespace sluice::queue
