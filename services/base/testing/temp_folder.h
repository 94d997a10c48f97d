// A folder of a test's own, which does not outlive it for long, however it ends.
#pragma once

#include <string>
#include <string_view>

#include "services/base/net/unique_fd.h"

namespace sluice::testing {

// Made below TEST_TMPDIR (Bazel's), TMPDIR or /tmp, and removed with all that is in it by the
// destructor. A killed test cannot do that; so each folder is locked while its owner lives, and the
// first one that a process makes removes those of the same parent that nobody locks any more
// (tests/harness/processes.py does the same, by the same names). Thread-safety: none. Failure: ends
// the process where no folder can be made.
class TempFolder {
 public:
  // `name` says whose it is. `parent`: where another place is needed, such as for the short path of
  // a socket.
  explicit TempFolder(std::string_view name, std::string_view parent = "");
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string File(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
  UniqueFd lock_;
};

}  // namespace sluice::testing
