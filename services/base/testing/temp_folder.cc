#include "services/base/testing/temp_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <set>

#include "services/base/check.h"

namespace sluice::testing {
namespace {

constexpr std::string_view kPrefix = "sluice-test-";
// Between its making and its lock a folder looks like one that was left behind.
constexpr time_t kMakingS = 60;

std::string DefaultParent() {
  for (const char* variable : {"TEST_TMPDIR", "TMPDIR"}) {
    const char* const value = std::getenv(variable);
    if (value != nullptr && *value != '\0') return value;
  }
  return "/tmp";
}

// Locked, or nothing where it is gone or another's.
UniqueFd Lock(const std::string& folder) {
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd && ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) fd.Reset();
  return fd;
}

void RemoveLeftBehind(const std::string& parent) {
  std::error_code error;
  for (auto at = std::filesystem::directory_iterator(parent, error);
       !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    const std::string folder = at->path().string();
    if (!at->path().filename().string().starts_with(kPrefix)) continue;
    const UniqueFd lock = Lock(folder);
    struct stat facts {};
    if (!lock || ::fstat(lock.get(), &facts) != 0 || facts.st_uid != ::geteuid() ||
        facts.st_mtime > std::time(nullptr) - kMakingS) {
      continue;
    }
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }
}

}  // namespace

TempFolder::TempFolder(std::string_view name, std::string_view parent) {
  const std::string where = parent.empty() ? DefaultParent() : std::string(parent);
  static auto* const swept = new std::set<std::string>;
  if (swept->insert(where).second) RemoveLeftBehind(where);
  path_ = where + "/" + std::string(kPrefix) + std::string(name) + "-XXXXXX";
  SLUICE_CHECK(::mkdtemp(path_.data()) != nullptr);
  lock_ = Lock(path_);
  SLUICE_CHECK(lock_);
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace sluice::testing
