// Directive files that are not on the disk.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "services/config/files.h"

namespace sluice::config::testing {

// A pattern matches whatever starts with what stands before its first star.
class MemoryFiles final : public FileSource {
 public:
  absl::StatusOr<std::string> Read(const std::string& path) override {
    const auto found = files.find(path);
    if (found == files.end()) return absl::NotFoundError("cannot open it");
    return found->second;
  }
  absl::StatusOr<std::vector<std::string>> Glob(const std::string& pattern,
                                                size_t* entries) override {
    std::vector<std::string> found;
    for (const auto& [path, text] : files) {
      if (*entries == 0) return absl::ResourceExhaustedError("too many files to look through");
      --*entries;
      if (path.starts_with(pattern.substr(0, pattern.find('*')))) found.push_back(path);
    }
    return found;
  }

  std::map<std::string, std::string> files;
};

}  // namespace sluice::config::testing
