// Where directive files come from.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::config {

// Thread-safety: one thread at a time.
class FileSource {
 public:
  virtual ~FileSource() = default;
  // The whole file. Files over 64 MiB are RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<std::string> Read(const std::string& path) = 0;
  // Regular files that match, in order of name; * ? and [] do not match a slash, nor a dot at the
  // start of a name. Of folders no more than `entries` entries are looked at, those of folders that
  // links lead to included, and it is less by those; beyond them RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<std::vector<std::string>> Glob(const std::string& pattern,
                                                        size_t* entries) = 0;
};

// The machine's files.
class DiskFiles final : public FileSource {
 public:
  absl::StatusOr<std::string> Read(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> Glob(const std::string& pattern,
                                                size_t* entries) override;
};

// That a configuration may look at in all, wherever its includes lead: far more than any has, and
// far less than a file system.
inline constexpr size_t kMaxFolderEntries = 100'000;

}  // namespace sluice::config
