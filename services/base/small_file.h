// Files of certificates, keys and tokens.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace sluice {

// The whole file. NOT_FOUND where it cannot be read, INVALID_ARGUMENT above 1 MiB; the message
// names the file. Blocks. Thread-safety: any thread.
absl::StatusOr<std::string> ReadSmallFile(const std::string& file);

}  // namespace sluice
