// Where directive files come from.
#pragma once

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
  // Regular files that match, in order of name; * ? and [] do not match a slash.
  virtual std::vector<std::string> Glob(const std::string& pattern) = 0;
};

// The machine's files.
class DiskFiles final : public FileSource {
 public:
  absl::StatusOr<std::string> Read(const std::string& path) override;
  std::vector<std::string> Glob(const std::string& pattern) override;
};

}  // namespace sluice::config
