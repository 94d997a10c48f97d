#include "services/queue/io/rocksdb_store.h"

#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/table_properties_collectors.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/base/check.h"
#include "services/base/version.h"
#include "services/queue/io/ballast.h"
#include "services/queue/io/blob_reclaimer.h"
#include "services/queue/io/durable_folder.h"
#include "sluice/queue/v1/storage.pb.h"

namespace sluice::queue {
namespace {

constexpr std::array<const char*, kFamilyCount> kFamilyNames = {
    "meta", "queues", "messages", "bodies", "deliveries", "leases", "events", "index", "keys"};
constexpr char kFormatKey[] = "format";

// RocksDB slows writes at one less than max_write_buffer_number unflushed memtables, 20 files in
// level 0, and 64 GiB that wait for compaction.
constexpr int kWriteBuffers = 6;
constexpr uint64_t kMaxImmutableMemtables = 4;
constexpr uint64_t kMaxLevel0Files = 15;
constexpr uint64_t kMaxPendingCompactionBytes = uint64_t{48} << 30;
constexpr char kLevel0Files[] = "rocksdb.num-files-at-level0";

rocksdb::Slice ToSlice(std::string_view text) { return {text.data(), text.size()}; }
std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

absl::Status ToStatus(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text =
      absl::StrCat(absl::string_view(what.data(), what.size()), ": ", status.ToString());
  if (status.IsNotFound()) return absl::NotFoundError(text);
  if (status.IsCorruption()) return absl::DataLossError(text);
  if (status.IsNoSpace()) return absl::ResourceExhaustedError(text);
  if (absl::StrContains(text, "lock ")) return absl::FailedPreconditionError(text);
  return absl::UnavailableError(text);
}

// RocksDB 7.8 keeps one place for points and ranges of a memtable, and they are two lists: a family
// has either its places remembered or ranges deleted.
bool TakesRanges(Family family) {
  return family == Family::kBodies || family == Family::kEvents || family == Family::kKeys;
}

struct RocksBatch final : Batch {
  explicit RocksBatch(const std::vector<rocksdb::ColumnFamilyHandle*>& families)
      : families(families) {}
  rocksdb::ColumnFamilyHandle* Of(Family family) { return families[static_cast<size_t>(family)]; }
  void Put(Family family, std::string_view key, std::string_view value) override {
    SLUICE_CHECK(batch.Put(Of(family), ToSlice(key), ToSlice(value)).ok());
  }
  void Delete(Family family, std::string_view key) override {
    SLUICE_CHECK(batch.Delete(Of(family), ToSlice(key)).ok());
  }
  void DeleteRange(Family family, std::string_view begin, std::string_view end) override {
    SLUICE_CHECK(TakesRanges(family));
    SLUICE_CHECK(batch.DeleteRange(Of(family), ToSlice(begin), ToSlice(end)).ok());
  }
  size_t bytes() const override { return batch.GetDataSize(); }
  size_t count() const override { return batch.Count(); }
  void Clear() override { batch.Clear(); }

  const std::vector<rocksdb::ColumnFamilyHandle*>& families;
  rocksdb::WriteBatch batch;
};

struct RocksCursor final : Cursor {
  RocksCursor(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* family, std::string_view lower,
              std::string_view upper, bool fill_cache)
      : lower(lower), upper(upper), lower_slice(this->lower), upper_slice(this->upper) {
    rocksdb::ReadOptions read;
    read.iterate_lower_bound = &lower_slice;
    if (!upper.empty()) read.iterate_upper_bound = &upper_slice;
    read.fill_cache = fill_cache;
    iterator.reset(db->NewIterator(read, family));
    iterator->Seek(lower_slice);
  }
  bool Valid() const override { return iterator->Valid(); }
  void Next() override { iterator->Next(); }
  void Seek(std::string_view key) override {
    iterator->Seek(ToSlice(std::max(key, std::string_view(lower))));
  }
  std::string_view key() const override { return ToView(iterator->key()); }
  std::string_view value() const override { return ToView(iterator->value()); }
  absl::Status status() const override { return ToStatus(iterator->status(), "scan"); }

  const std::string lower;
  const std::string upper;
  const rocksdb::Slice lower_slice;
  const rocksdb::Slice upper_slice;
  std::unique_ptr<rocksdb::Iterator> iterator;
};

// Rows of one shard repeat names and addresses: LZ4 halves what a flush writes, and blocks are
// unpacked at a gigabyte a second. The log and the bodies stay as they are.
rocksdb::CompressionType RowCompression() {
  const auto supported = rocksdb::GetSupportedCompressions();
  return std::find(supported.begin(), supported.end(), rocksdb::kLZ4Compression) != supported.end()
             ? rocksdb::kLZ4Compression
             : rocksdb::kNoCompression;
}

rocksdb::ColumnFamilyOptions FamilyOptions(Family family,
                                           const std::shared_ptr<rocksdb::Cache>& cache) {
  rocksdb::ColumnFamilyOptions options;
  options.compression = family == Family::kBodies ? rocksdb::kNoCompression : RowCompression();
  options.write_buffer_size = size_t{16} << 20;
  options.max_write_buffer_number = kWriteBuffers;
  if (!TakesRanges(family)) {
    // Most rows are put behind, or deleted near, the last one that was: the place in the memtable
    // is searched from there. By kind, which the first byte says where a family has several.
    options.memtable_insert_with_hint_prefix_extractor.reset(rocksdb::NewFixedPrefixTransform(1));
  }
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.cache_index_and_filter_blocks = true;
  table.pin_l0_filter_and_index_blocks_in_cache = false;
  table.index_type = rocksdb::BlockBasedTableOptions::kTwoLevelIndexSearch;
  table.partition_filters = true;
  table.metadata_block_size = 4096;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.format_version = 5;
  switch (family) {
    case Family::kBodies:
      options.write_buffer_size = size_t{64} << 20;
      options.enable_blob_files = true;
      options.min_blob_size = 512;
      options.blob_file_size = uint64_t{64} << 20;
      options.enable_blob_garbage_collection = false;  // BlobReclaimer does it
      options.table_properties_collector_factories.push_back(
          rocksdb::NewCompactOnDeletionCollectorFactory(4096, 1024, 0.5));
      break;
    case Family::kDeliveries:
    case Family::kMessages:
    case Family::kLeases:
      options.table_properties_collector_factories.push_back(
          rocksdb::NewCompactOnDeletionCollectorFactory(4096, 1024, 0.5));
      break;
    default:
      break;
  }
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

class WarningLogger final : public rocksdb::Logger {
 public:
  explicit WarningLogger(std::function<void(std::string_view)> on_warning)
      : rocksdb::Logger(rocksdb::WARN_LEVEL), on_warning_(std::move(on_warning)) {}
  using rocksdb::Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    if (!on_warning_) return;
    char text[1024];
    if (vsnprintf(text, sizeof(text), format, arguments) > 0) on_warning_(text);
  }

 private:
  const std::function<void(std::string_view)> on_warning_;
};

class RocksdbStore final : public Store {
 public:
  ~RocksdbStore() override {
    if (db_ == nullptr) return;
    reclaimer_.reset();
    rocksdb::CancelAllBackgroundWork(db_.get(), true);
    for (rocksdb::ColumnFamilyHandle* family : families_) db_->DestroyColumnFamilyHandle(family);
    db_->Close();
  }

  absl::Status Open(const RocksdbOptions& options) {
    options_ = options;
    // RocksDB syncs the names in its folder, but nobody the folder's own.
    if (absl::Status made = MakeDurableFolder(options.folder); !made.ok()) return made;
    ballast_.Adopt(options.folder, options.give_up_ballast_below_bytes);
    auto cache = rocksdb::NewLRUCache(options.cache_bytes, CacheShardBits(options.cache_shards));
    rocksdb::DBOptions db;
    db.create_if_missing = true;
    db.create_missing_column_families = true;
    db.max_total_wal_size = options.max_wal_bytes;
    db.write_buffer_manager = std::make_shared<rocksdb::WriteBufferManager>(options.memtable_bytes);
    db.allow_concurrent_memtable_write = false;
    db.max_open_files = 512;
    db.max_background_jobs = 2;
    db.info_log = std::make_shared<WarningLogger>(options.on_warning);
    db.stats_dump_period_sec = 0;
    db.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
    std::vector<rocksdb::ColumnFamilyDescriptor> descriptors = {
        {rocksdb::kDefaultColumnFamilyName, {}}};
    for (size_t i = 0; i < kFamilyCount; ++i) {
      descriptors.emplace_back(kFamilyNames[i], FamilyOptions(static_cast<Family>(i), cache));
    }
    // Families of a newer release: RocksDB wants all of them opened, and we leave them alone.
    std::vector<std::string> present;
    if (rocksdb::DB::ListColumnFamilies(db, options.folder, &present).ok()) {
      for (const std::string& name : present) {
        const auto known = [&name](const auto& each) { return each.name == name; };
        if (std::none_of(descriptors.begin(), descriptors.end(), known)) {
          descriptors.push_back({name, {}});
        }
      }
    }
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* opened = nullptr;
    rocksdb::Status status = rocksdb::DB::Open(db, options.folder, descriptors, &handles, &opened);
    // Opening writes what the log holds once more.
    if (status.IsNoSpace() && ballast_.Release()) {
      handles.clear();
      status = rocksdb::DB::Open(db, options.folder, descriptors, &handles, &opened);
    }
    if (!status.ok()) {
      absl::Status failed =
          ToStatus(status, absl::StrCat("cannot open the spool ", options.folder));
      if (failed.code() == absl::StatusCode::kFailedPrecondition) {
        return absl::FailedPreconditionError(
            absl::StrCat("the spool folder ", options.folder,
                         " is in use by another process: stop it, or give another --data-dir"));
      }
      return failed;
    }
    db_.reset(opened);
    families_.assign(handles.begin() + 1, handles.begin() + 1 + kFamilyCount);
    db_->DestroyColumnFamilyHandle(handles[0]);
    for (size_t i = 1 + kFamilyCount; i < handles.size(); ++i) {
      db_->DestroyColumnFamilyHandle(handles[i]);
    }
    write_.sync = true;
    if (absl::Status format = CheckFormat(); !format.ok()) return format;
    reclaimer_ = std::make_unique<BlobReclaimer>(
        *db_, *families_[static_cast<size_t>(Family::kBodies)], options.folder, options.reclaim);
    return ballast_.Reserve(options.ballast_bytes);
  }

  std::unique_ptr<Batch> NewBatch() override { return std::make_unique<RocksBatch>(families_); }

  absl::Status Commit(Batch& batch, bool sync) override {
    {
      std::lock_guard lock(mutex_);
      if (failed_) return absl::UnavailableError(absl::StrCat("the spool failed: ", detail_));
    }
    rocksdb::WriteOptions write;
    write.sync = sync;
    rocksdb::Status status = db_->Write(write, &static_cast<RocksBatch&>(batch).batch);
    if (!status.ok()) {
      // Also without sync: what of the batch is on disk is unknown, so nothing more is written
      // until the database has been opened again.
      std::lock_guard lock(mutex_);
      failed_ = true;
      detail_ = status.ToString();
    }
    return ToStatus(status, "commit");
  }

  absl::Status Get(Family family, std::string_view key, std::string* value) const override {
    return ToStatus(db_->Get({}, families_[static_cast<size_t>(family)], ToSlice(key), value),
                    "get");
  }

  std::unique_ptr<Cursor> Scan(Family family, std::string_view lower, std::string_view upper,
                               bool fill_cache) const override {
    return std::make_unique<RocksCursor>(db_.get(), families_[static_cast<size_t>(family)], lower,
                                         upper, fill_cache);
  }

  StoreHealth Health() const override {
    StoreHealth health;
    {
      std::lock_guard lock(mutex_);
      health.failed = failed_;
      health.detail = detail_;
    }
    std::error_code error;
    const auto space = std::filesystem::space(options_.folder, error);
    if (!error) {
      health.volume_free_bytes = std::max<uint64_t>(space.available, 1);  // zero: unknown
      // Enqueues have stopped long before this; results and bounces must still find room.
      std::lock_guard lock(mutex_);
      ballast_.ReleaseIfFull(space.available);
    }
    uint64_t value = 0;
    if (db_->GetAggregatedIntProperty(rocksdb::DB::Properties::kCurSizeAllMemTables, &value)) {
      health.memtable_bytes = value;
    }
    uint64_t total = 0;
    if (db_->GetAggregatedIntProperty(rocksdb::DB::Properties::kTotalSstFilesSize, &value)) {
      total += value;
    }
    if (db_->GetIntProperty(families_[static_cast<size_t>(Family::kBodies)],
                            rocksdb::DB::Properties::kTotalBlobFileSize, &value)) {
      total += value;
    }
    health.live_bytes = total;
    uint64_t delayed_rate = 0;
    uint64_t stopped = 0;
    db_->GetIntProperty(rocksdb::DB::Properties::kActualDelayedWriteRate, &delayed_rate);
    db_->GetIntProperty(rocksdb::DB::Properties::kIsWriteStopped, &stopped);
    health.stalling = delayed_rate != 0 || stopped != 0 || NearlyStalling();
    if (health.stalling) health.detail = "the database is behind with its compactions";
    return health;
  }

 private:
  // Three quarters of what makes RocksDB itself slow down, which would hold up results too.
  bool NearlyStalling() const {
    for (rocksdb::ColumnFamilyHandle* family : families_) {
      uint64_t value = 0;
      if (db_->GetIntProperty(family, rocksdb::DB::Properties::kNumImmutableMemTable, &value) &&
          value >= kMaxImmutableMemtables) {
        return true;
      }
      std::string files;
      if (db_->GetProperty(family, kLevel0Files, &files) &&
          std::strtoull(files.c_str(), nullptr, 10) >= kMaxLevel0Files) {
        return true;
      }
      if (db_->GetIntProperty(family, rocksdb::DB::Properties::kEstimatePendingCompactionBytes,
                              &value) &&
          value >= kMaxPendingCompactionBytes) {
        return true;
      }
    }
    return false;
  }

  absl::Status CheckFormat() {
    rocksdb::ColumnFamilyHandle* meta = families_[static_cast<size_t>(Family::kMeta)];
    std::string value;
    const rocksdb::Status got = db_->Get({}, meta, kFormatKey, &value);
    v1::FormatRow row;
    if (got.ok() && (!row.ParseFromString(value) || row.version() == 0)) {
      return absl::DataLossError(
          absl::StrCat("the format row of ", options_.folder, " is damaged"));
    }
    if (!got.ok() && !got.IsNotFound()) return ToStatus(got, "reading the format row");
    if (got.IsNotFound()) {  // it is the first row of a new spool
      const std::unique_ptr<rocksdb::Iterator> rows(db_->NewIterator({}, meta));
      rows->SeekToFirst();
      if (rows->Valid()) {
        return absl::DataLossError(absl::StrCat(
            "the spool ", options_.folder,
            " has lost its format row: nobody knows which release wrote it, so it stays as it is"));
      }
      if (!rows->status().ok()) return ToStatus(rows->status(), "reading the format row");
    }
    if (row.least_reader() > kSpoolFormat) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the spool ", options_.folder, " was written by a newer Sluice (format ", row.version(),
          ", needs a reader of ", row.least_reader(), ", this is ", kSpoolFormat,
          "): start the newer version again, or drain the spool with it"));
    }
    if (row.version() == kSpoolFormat && row.least_reader() == kSpoolLeastReader) {
      return absl::OkStatus();
    }
    row.set_version(kSpoolFormat);
    row.set_least_reader(std::max(row.least_reader(), kSpoolLeastReader));
    return ToStatus(db_->Put(write_, meta, kFormatKey, row.SerializeAsString()),
                    "writing the format row");
  }

  RocksdbOptions options_;
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
  std::unique_ptr<BlobReclaimer> reclaimer_;
  rocksdb::WriteOptions write_;
  mutable std::mutex mutex_;
  mutable Ballast ballast_;  // guarded by mutex_
  bool failed_ = false;      // guarded by mutex_
  std::string detail_;       // guarded by mutex_
};

}  // namespace

int CacheShardBits(uint32_t shards) {
  constexpr uint32_t kMost = 64;
  if (shards == 0) return -1;
  return std::bit_width(std::min(shards, kMost) - 1);
}

absl::StatusOr<std::unique_ptr<Store>> OpenRocksdbStore(const RocksdbOptions& options) {
  auto store = std::make_unique<RocksdbStore>();
  if (absl::Status status = store->Open(options); !status.ok()) return status;
  return store;
}

}  // namespace sluice::queue
