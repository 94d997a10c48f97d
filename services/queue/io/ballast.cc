#include "services/queue/io/ballast.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace sluice::queue {

absl::Status Ballast::Open(const std::string& folder, uint64_t bytes) {
  path_ = folder + "/BALLAST";
  if (bytes == 0) {
    unlink(path_.c_str());
    return absl::OkStatus();
  }
  const int fd = open(path_.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0) {
    return absl::UnavailableError(absl::StrCat("cannot make ", path_, ": ", std::strerror(errno)));
  }
  const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  close(fd);
  if (error != 0) {
    unlink(path_.c_str());
    return absl::OkStatus();
  }
  held_ = true;
  return absl::OkStatus();
}

bool Ballast::Release() {
  if (!held_) return false;
  held_ = false;
  return unlink(path_.c_str()) == 0;
}

}  // namespace sluice::queue
