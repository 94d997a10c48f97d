// The shard's Store on RocksDB 7.8, tuned for mail: most rows die before their memtable is flushed,
// so what goes straight through costs one write of the log.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "services/queue/core/store.h"
#include "services/queue/io/blob_reclaimer.h"

namespace sluice::queue {

struct RocksdbOptions {
  std::string folder;  // made where absent
  // Memory of all memtables, caches and filters together.
  size_t memtable_bytes = size_t{160} << 20;
  size_t cache_bytes = size_t{32} << 20;
  // Parts of the cache, each with a lock of its own; see CacheShardBits. 0: RocksDB's choice.
  uint32_t cache_shards = 0;
  uint64_t max_wal_bytes = uint64_t{192} << 20;
  // A file kept aside that is given up when the volume is full, so that results, bounces and
  // deletions go on. Zero: none.
  uint64_t ballast_bytes = uint64_t{512} << 20;
  // It is given up below this much free space; enqueues must have stopped well before.
  uint64_t give_up_ballast_below_bytes = uint64_t{64} << 20;
  // Hears RocksDB's own warnings, from any thread. Its log file is not used: it would lie on the
  // volume that may fail, and Debian's RocksDB aborts when it cannot write to it.
  std::function<void(std::string_view)> on_warning;
  BlobReclaimerOptions reclaim;
};

// FAILED_PRECONDITION where another process has the folder, or where the format is too new;
// PERMISSION_DENIED and the like from the system, with the folder's name.
absl::StatusOr<std::unique_ptr<Store>> OpenRocksdbStore(const RocksdbOptions& options);

// The power of two that `shards` parts come to, at most 6: each part holds half a megabyte then.
// -1, RocksDB's choice, for 0.
int CacheShardBits(uint32_t shards);

}  // namespace sluice::queue
