#include "services/queue/io/durable_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace sluice::queue {

absl::Status MakeDurableFolder(const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    const std::string text = absl::StrCat("cannot make the folder ", folder, ": ", error.message());
    if (error.value() == ENOSPC) return absl::ResourceExhaustedError(text);
    return error.value() == EACCES || error.value() == EPERM ? absl::PermissionDeniedError(text)
                                                             : absl::UnavailableError(text);
  }
  std::filesystem::path path = std::filesystem::absolute(folder, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  struct stat status = {};
  if (stat(path.c_str(), &status) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot look at ", folder));
  }
  const dev_t device = status.st_dev;
  while (path.has_relative_path()) {
    path = path.parent_path();
    const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) break;
    const bool here = fstat(fd, &status) == 0 && status.st_dev == device;
    // EINVAL and EROFS: a file system that has nothing to sync.
    const bool failed = here && fsync(fd) != 0 && errno != EINVAL && errno != EROFS;
    close(fd);
    if (failed) {
      return absl::UnavailableError(absl::StrCat("cannot sync the folder ", path.string()));
    }
    if (!here) break;
  }
  return absl::OkStatus();
}

}  // namespace sluice::queue
