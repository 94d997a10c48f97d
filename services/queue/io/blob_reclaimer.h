// Gives back the space of bodies that were deleted. RocksDB drops a blob file when nothing in it
// lives; a file with a few deferred messages in it would stay whole for as long as they do. Its own
// collection rewrites the oldest files at each compaction, live or dead, which wrote a body four
// times under load; this one rewrites only when more than half of all is dead, a quarter of the
// files at a time, so that a byte is rewritten at most once for each byte that died.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "rocksdb/db.h"
#include "services/base/clock.h"

namespace sluice::queue {

struct BlobReclaimerOptions {
  // Zero: no thread; the owner calls RunOnce.
  Duration every = std::chrono::minutes(1);
  double dead_share = 0.5;                         // of all blob bytes, above which it acts
  uint64_t least_dead_bytes = uint64_t{64} << 20;  // less is not worth the work
  double slice = 0.25;                             // of the blob files, the oldest, in one run
  // Free space that a run must leave on the volume, where it copies before it deletes.
  uint64_t leave_free_bytes = uint64_t{1} << 30;
};

// Thread-safety: RunOnce from any one thread at a time. The database must outlive this object,
// whose destructor stops a run that is under way.
class BlobReclaimer {
 public:
  BlobReclaimer(rocksdb::DB& db, rocksdb::ColumnFamilyHandle& family, std::string folder,
                BlobReclaimerOptions options);
  ~BlobReclaimer();
  BlobReclaimer(const BlobReclaimer&) = delete;
  BlobReclaimer& operator=(const BlobReclaimer&) = delete;

  // Looks, and rewrites a slice where too much is dead. True where it did.
  absl::StatusOr<bool> RunOnce();

 private:
  struct Space {
    uint64_t total_bytes = 0;
    uint64_t dead_bytes = 0;  // estimated: deletions count before a compaction has met them
  };
  absl::StatusOr<Space> Look() const;
  void Run();

  rocksdb::DB& db_;
  rocksdb::ColumnFamilyHandle& family_;
  const std::string folder_;
  const BlobReclaimerOptions options_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::thread thread_;
};

}  // namespace sluice::queue
