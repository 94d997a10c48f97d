#include "services/base/log/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr Duration kLookEvery = std::chrono::seconds(1);
constexpr int64_t kDayUs = int64_t{86'400} * 1'000'000;

std::string Numbered(const std::string& path, uint32_t number) {
  return absl::StrCat(path, ".", number);
}

}  // namespace

LogFile::~LogFile() { Close(); }

absl::Status LogFile::Use(const LogFileOptions& options) {
  const std::lock_guard lock(mutex_);
  if (options == options_ && (fd_ >= 0 || options.path.empty())) return absl::OkStatus();
  Close();
  options_ = options;
  if (options.path.empty()) return absl::OkStatus();
  const absl::Status status = Open();
  if (status.ok() && options_.daily && Today() > day_) Rotate();
  return status;
}

bool LogFile::Write(std::string_view line) {
  const std::lock_guard lock(mutex_);
  if (options_.path.empty()) return false;
  if (clock_.Now() >= next_look_) Look();
  if (fd_ < 0) return false;
  char end = '\n';
  iovec parts[2] = {{const_cast<char*>(line.data()), line.size()}, {&end, 1}};
  const auto bytes = static_cast<ssize_t>(line.size() + 1);
  ssize_t written = 0;
  do {
    written = writev(fd_, parts, 2);
  } while (written < 0 && errno == EINTR);
  return written == bytes;
}

int64_t LogFile::Today() const { return ToUnixMicros(clock_.WallNow()) / kDayUs; }

void LogFile::Look() {
  next_look_ = clock_.Now() + kLookEvery;
  if (fd_ >= 0) {
    struct stat open {};
    struct stat named {};
    const bool same = fstat(fd_, &open) == 0 && stat(options_.path.c_str(), &named) == 0 &&
                      open.st_ino == named.st_ino && open.st_dev == named.st_dev;
    if (!same) Close();
  }
  // What cannot be opened is tried again with the next look; the line goes elsewhere till then.
  if (fd_ < 0 && !Open().ok()) return;
  if (options_.daily && Today() > day_) Rotate();
}

absl::Status LogFile::Open() {
  next_look_ = clock_.Now() + kLookEvery;
  const mode_t mode = options_.world_readable ? 0644 : 0640;
  fd_ = open(options_.path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, mode);
  if (fd_ < 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot write ", options_.path, ": ", std::generic_category().message(errno)));
  }
  struct stat facts {};
  const bool known = fstat(fd_, &facts) == 0;
  if (known && S_ISREG(facts.st_mode)) fchmod(fd_, mode);
  // One that has lines of an earlier day is rotated before the next one.
  day_ = known && facts.st_size > 0 ? int64_t{facts.st_mtim.tv_sec} * 1'000'000 / kDayUs : Today();
  return absl::OkStatus();
}

void LogFile::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

void LogFile::Rotate() {
  Close();
  const std::string& path = options_.path;
  // The oldest one is replaced by the rename; a gap in the numbers ends the row.
  for (uint32_t number = options_.keep; number > 1; --number) {
    std::rename(Numbered(path, number - 1).c_str(), Numbered(path, number).c_str());
  }
  if (options_.keep == 0) {
    unlink(path.c_str());
  } else {
    std::rename(path.c_str(), Numbered(path, 1).c_str());
  }
  if (Open().ok()) day_ = Today();
}

}  // namespace sluice
