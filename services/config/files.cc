#include "services/config/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace sluice::config {
namespace {
constexpr size_t kMaxFileBytes = size_t{64} << 20;
// The file system along a pattern, a name after the other.
class Walk {
 public:
  explicit Walk(size_t* entries) : entries_(entries) {}

  // What matches `pattern` below `folder`. False: too much. It calls itself for each part of the
  // pattern, which begins with a slash but at the start of a relative one.
  bool Into(std::string folder, std::string_view pattern) {
    for (; pattern.starts_with('/'); pattern.remove_prefix(1)) folder += '/';
    const size_t end = pattern.find('/');
    const std::string part(pattern.substr(0, end));
    const std::string_view rest = end == pattern.npos ? "" : pattern.substr(end);
    if (folder.size() + part.size() >= PATH_MAX) return true;  // nothing has such a name
    if (part.find_first_of("*?[\\") == part.npos) return Take(folder + part, rest);
    // It is closed before what is in it is looked at: however deep the pattern, one is open.
    std::vector<std::string> names;
    if (!Names(folder, part, &names)) return false;
    return std::all_of(names.begin(), names.end(),
                       [&](const std::string& name) { return Take(folder + name, rest); });
  }
  std::vector<std::string> Files() {
    std::sort(files_.begin(), files_.end());
    return std::move(files_);
  }

 private:
  bool Names(const std::string& folder, const std::string& part, std::vector<std::string>* names) {
    if (!TakeEntry()) return false;
    const std::unique_ptr<DIR, int (*)(DIR*)> open(opendir(folder.empty() ? "." : folder.c_str()),
                                                   &closedir);
    if (open == nullptr) return true;
    while (const dirent* const entry = readdir(open.get())) {
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (!TakeEntry()) return false;
      if (fnmatch(part.c_str(), entry->d_name, FNM_PERIOD) == 0) names->emplace_back(name);
    }
    return true;
  }

  bool Take(const std::string& path, std::string_view rest) {
    if (!rest.empty()) return Into(path, rest);
    struct stat info;
    if (stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode)) files_.push_back(path);
    return true;
  }

  bool TakeEntry() {
    if (*entries_ == 0) return false;
    --*entries_;
    return true;
  }

  size_t* const entries_;
  std::vector<std::string> files_;
};

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

absl::StatusOr<std::vector<std::string>> DiskFiles::Glob(const std::string& pattern,
                                                         size_t* entries) {
  Walk walk(entries);
  if (!walk.Into("", pattern)) {
    return absl::ResourceExhaustedError("there are too many folders and files to look through");
  }
  return walk.Files();
}

}  // namespace sluice::config
