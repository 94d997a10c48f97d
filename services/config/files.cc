#include "services/config/files.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace sluice::config {
namespace {
constexpr size_t kMaxFileBytes = size_t{64} << 20;
}  // namespace

absl::StatusOr<std::string> DiskFiles::Read(const std::string& path) {
  // Without O_NONBLOCK the open of a pipe that nobody writes would hang.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    return absl::NotFoundError(absl::StrCat("cannot open it: ", strerror(errno)));
  }
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return absl::FailedPreconditionError("it is not a regular file");
  }
  std::string text;
  char buffer[65536];
  while (true) {
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      close(fd);
      return absl::UnavailableError(absl::StrCat("cannot read it: ", strerror(error)));
    }
    if (got == 0) break;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > kMaxFileBytes) {
      close(fd);
      return absl::ResourceExhaustedError("it is larger than 64 MiB");
    }
  }
  close(fd);
  return text;
}

std::vector<std::string> DiskFiles::Glob(const std::string& pattern) {
  std::vector<std::string> paths;
  glob_t found{};
  if (glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) {
      struct stat info;
      if (stat(found.gl_pathv[i], &info) == 0 && S_ISREG(info.st_mode)) {
        paths.emplace_back(found.gl_pathv[i]);
      }
    }
  }
  globfree(&found);
  return paths;
}

}  // namespace sluice::config
