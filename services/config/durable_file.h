// Small files that are replaced whole: a reader sees the old one or the new one.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::config {

// Writes PATH.tmp and renames it. With `sync`, the new content is on stable storage before OK.
// Blocks. On failure the old file is untouched.
absl::Status ReplaceFile(const std::string& path, std::string_view bytes, bool sync);

// OK where there is none. It is gone for good when this returns. Blocks.
absl::Status RemoveFile(const std::string& path);

// NOT_FOUND where there is none. Blocks.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path);

}  // namespace sluice::config
