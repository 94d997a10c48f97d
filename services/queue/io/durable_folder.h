// A folder that is still there after a power cut.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace sluice::queue {

// Makes `folder` and what is missing above it, and syncs the names of all of them up to the root of
// their file system: also of those that were there, for who made them may not have. Thread-safety:
// all. Failure: the system's error, with the folder's name; a parent that may not be opened is left
// out.
absl::Status MakeDurableFolder(const std::string& folder);

}  // namespace sluice::queue
