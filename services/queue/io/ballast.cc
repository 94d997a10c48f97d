#include "services/queue/io/ballast.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace sluice::queue {
namespace {

// UINT64_MAX where the volume does not say.
uint64_t AvailableBytes(const std::string& folder) {
  struct statvfs space = {};
  if (statvfs(folder.c_str(), &space) != 0) return UINT64_MAX;
  return uint64_t{space.f_bavail} * space.f_frsize;
}

}  // namespace

void Ballast::Adopt(const std::string& folder, uint64_t give_up_below) {
  folder_ = folder;
  path_ = folder + "/BALLAST";
  give_up_below_ = give_up_below;
  held_ = access(path_.c_str(), F_OK) == 0;
  ReleaseIfFull(AvailableBytes(folder));
}

absl::Status Ballast::Reserve(uint64_t bytes) {
  struct stat status = {};
  const bool have =
      held_ && stat(path_.c_str(), &status) == 0 && static_cast<uint64_t>(status.st_size) == bytes;
  if (have && bytes != 0) return absl::OkStatus();
  Release();
  if (bytes == 0 || AvailableBytes(folder_) < bytes + 2 * give_up_below_) return absl::OkStatus();
  const int fd = open(path_.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::UnavailableError(absl::StrCat("cannot make ", path_, ": ", std::strerror(errno)));
  }
  const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  close(fd);
  held_ = true;
  if (error != 0) Release();
  return absl::OkStatus();
}

bool Ballast::ReleaseIfFull(uint64_t available_bytes) {
  return available_bytes < give_up_below_ && Release();
}

bool Ballast::Release() {
  if (!held_) return false;
  held_ = false;
  return unlink(path_.c_str()) == 0;
}

}  // namespace sluice::queue
