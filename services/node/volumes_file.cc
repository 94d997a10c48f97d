#include "services/node/volumes_file.h"

#include <fstream>

#include "services/config/durable_file.h"

namespace sluice::node {
namespace {

// Times of the monotonic clock are of one boot of the machine.
std::string BootId() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  return id;
}

}  // namespace

VolumesFile::VolumesFile(std::string file, Executor& worker, Log* log)
    : file_(std::move(file)), worker_(worker), log_(log) {}

VolumesFile::~VolumesFile() { thread_.Stop(); }

delivery::v1::VolumeRecords VolumesFile::Take() {
  const auto bytes = config::ReadWholeFile(file_);
  if (absl::IsNotFound(bytes.status())) return {};
  delivery::v1::VolumeRecords records;
  absl::Status status = bytes.status();
  if (bytes.ok() && !records.ParseFromString(*bytes)) {
    status = absl::DataLossError("it cannot be read");
  }
  // What an ended worker left says nothing of what its successor sends; that of a running one does.
  const bool usable = status.ok() && records.boot() == BootId();
  if (usable && records.running()) return records;
  if (usable) {
    delivery::v1::VolumeRecords goes_on = records;
    goes_on.set_running(true);
    if (Write(std::move(goes_on)) == Kept::kYes) return records;
    return {};
  }
  const absl::Status removed = config::RemoveFile(file_);
  if (status.ok()) status = removed;
  if (!status.ok() && log_ != nullptr) {
    log_->Warn("volumes_not_read", "limits on bytes count as used up from now on",
               {{"file", file_}, {"error", std::string(status.message())}});
  }
  return {};
}

VolumesFile::Kept VolumesFile::Write(delivery::v1::VolumeRecords records) {
  records.set_boot(BootId());
  const absl::Status status = config::ReplaceFile(file_, records.SerializeAsString(), true);
  if (status.ok()) return Kept::kYes;
  const absl::Status removed = config::RemoveFile(file_);
  if (log_ != nullptr) {
    log_->Warn("volumes_not_kept",
               removed.ok() ? "limits on bytes count as used up after a kill"
                            : "mail with limits on bytes waits until they can be written down",
               {{"file", file_}, {"error", std::string(status.message())}});
  }
  return removed.ok() ? Kept::kNothing : Kept::kBefore;
}

void VolumesFile::Keep(delivery::v1::VolumeRecords records, absl::AnyInvocable<void(Kept)> done) {
  if (!thread_.running()) thread_.Start();
  thread_.loop().Post([this, records = std::move(records), done = std::move(done)]() mutable {
    const Kept kept = Write(std::move(records));
    worker_.Post([kept, done = std::move(done)]() mutable { done(kept); });
  });
}

void VolumesFile::Leave(delivery::v1::VolumeRecords records) {
  thread_.Stop();
  Write(std::move(records));
}

}  // namespace sluice::node
