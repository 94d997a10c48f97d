#include "services/queue/io/blob_reclaimer.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "rocksdb/table_properties.h"

namespace sluice::queue {
namespace {

absl::Status Failed(const rocksdb::Status& status, const char* what) {
  return absl::InternalError(absl::StrCat(what, ": ", status.ToString()));
}

}  // namespace

BlobReclaimer::BlobReclaimer(rocksdb::DB& db, rocksdb::ColumnFamilyHandle& family,
                             std::string folder, BlobReclaimerOptions options)
    : db_(db), family_(family), folder_(std::move(folder)), options_(options) {
  if (options_.every > Duration(0)) thread_ = std::thread([this] { Run(); });
}

BlobReclaimer::~BlobReclaimer() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void BlobReclaimer::Run() {
  pthread_setname_np(pthread_self(), "queue-reclaim");
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, options_.every, [this] { return stopping_.load(); })) {
    lock.unlock();
    // A failure of the volume shows in the next commit, which has an owner that acts on it.
    RunOnce().IgnoreError();
    lock.lock();
  }
}

absl::StatusOr<BlobReclaimer::Space> BlobReclaimer::Look() const {
  Space space;
  uint64_t garbage = 0;
  uint64_t deletions = 0;
  if (!db_.GetIntProperty(&family_, rocksdb::DB::Properties::kLiveBlobFileSize,
                          &space.total_bytes) ||
      !db_.GetIntProperty(&family_, rocksdb::DB::Properties::kLiveBlobFileGarbageSize, &garbage) ||
      !db_.GetIntProperty(&family_, rocksdb::DB::Properties::kNumDeletesActiveMemTable,
                          &deletions)) {
    return absl::InternalError("the database does not tell the size of its blobs");
  }
  if (space.total_bytes < options_.least_dead_bytes) return space;
  // Deletions that no compaction has met yet: as much as so many values hold on average.
  rocksdb::TablePropertiesCollection tables;
  if (rocksdb::Status got = db_.GetPropertiesOfAllTables(&family_, &tables); !got.ok()) {
    return Failed(got, "table properties");
  }
  uint64_t values = 0;
  for (const auto& [name, table] : tables) {
    deletions += table->num_deletions;
    values += table->num_entries - table->num_deletions;
  }
  const uint64_t living = space.total_bytes - std::min(space.total_bytes, garbage);
  const uint64_t unmet =
      values == 0 ? 0
                  : static_cast<uint64_t>(static_cast<double>(living) *
                                          std::min(1.0, static_cast<double>(deletions) /
                                                            static_cast<double>(values)));
  space.dead_bytes = std::min(space.total_bytes, garbage + unmet);
  return space;
}

absl::StatusOr<bool> BlobReclaimer::RunOnce() {
  const absl::StatusOr<Space> space = Look();
  if (!space.ok()) return space.status();
  if (space->dead_bytes < options_.least_dead_bytes ||
      static_cast<double>(space->dead_bytes) <
          options_.dead_share * static_cast<double>(space->total_bytes)) {
    return false;
  }
  rocksdb::FlushOptions flush;
  flush.allow_write_stall = false;
  if (rocksdb::Status flushed = db_.Flush(flush, &family_); !flushed.ok()) {
    return Failed(flushed, "flush");
  }
  std::error_code error;
  const auto volume = std::filesystem::space(folder_, error);
  const double copied =
      options_.slice * static_cast<double>(space->total_bytes - space->dead_bytes);
  const bool fits = !error && static_cast<double>(volume.available) >
                                  copied + static_cast<double>(options_.leave_free_bytes);
  rocksdb::CompactRangeOptions compact;
  compact.exclusive_manual_compaction = false;
  compact.allow_write_stall = false;
  compact.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
  // Where the volume has no room for copies, deletions are met all the same: files in which all is
  // dead then go.
  compact.blob_garbage_collection_policy = fits ? rocksdb::BlobGarbageCollectionPolicy::kForce
                                                : rocksdb::BlobGarbageCollectionPolicy::kDisable;
  compact.blob_garbage_collection_age_cutoff = options_.slice;
  compact.canceled = &stopping_;
  rocksdb::Status done = db_.CompactRange(compact, &family_, nullptr, nullptr);
  if (!done.ok() && !done.IsIncomplete() && !done.IsManualCompactionPaused()) {
    return Failed(done, "compaction");
  }
  return true;
}

}  // namespace sluice::queue
