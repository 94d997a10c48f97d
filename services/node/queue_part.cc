#include "services/node/queue_part.h"

#include <filesystem>
#include <fstream>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/queue/io/rocksdb_store.h"

namespace sluice::node {

QueuePart::~QueuePart() { Stop(); }

absl::Status QueuePart::Start(const std::string& spool_folder,
                              absl::AnyInvocable<void(const absl::Status&)> on_failed) {
  queue::RocksdbOptions rocksdb;
  rocksdb.folder = spool_folder;
  std::error_code error;
  std::filesystem::create_directories(rocksdb.folder, error);
  if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("cannot make the spool folder ", rocksdb.folder, ": ", error.message()));
  }
  rocksdb.ballast_bytes = options_.ballast_bytes;
  rocksdb.cache_shards = cache_shards_;
  if (options_.log != nullptr) {
    rocksdb.on_warning = [log = options_.log](std::string_view text) {
      log->Warn("rocksdb", text);
    };
  }
  auto store = queue::OpenRocksdbStore(rocksdb);
  if (!store.ok()) return store.status();
  store_ = *std::move(store);
  writer_ = std::make_unique<queue::WriterThread>(thread_.loop(), *store_);
  queue::ShardOptions shard;
  shard.name = options_.shard;
  shard.log = options_.log;
  shard.journal.gap = Duration(options_.sync_gap_us);
  shard.spool_limit_bytes = options_.spool_limit_bytes;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> shard.boot_id;
  shard_ = std::make_unique<queue::Shard>(shard, thread_.loop(), *store_, *writer_);
  shard_->set_on_failed(std::move(on_failed));
  if (absl::Status status = shard_->Start(); !status.ok()) return status;
  thread_.Start();
  return absl::OkStatus();
}

void QueuePart::SetPolicy(std::shared_ptr<const config::PolicyView> policy) {
  thread_.loop().Post(
      [this, policy = std::move(policy)]() mutable { shard_->SetPolicy(std::move(policy)); });
}

void QueuePart::Drain() {
  if (!thread_.running()) return;
  std::promise<void> drained;
  thread_.loop().Post([this, &drained] { shard_->Drain([&drained] { drained.set_value(); }); });
  drained.get_future().wait();
}

}  // namespace sluice::node
