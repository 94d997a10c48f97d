// Where a shard's database is: beside everything else, or where an operator's files put it.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace sluice::node {

// `flag` (--spool-dir), else a folder of our own in `directive` (disk-queue), else one in
// `data_dir`. FAILED_PRECONDITION where the data folder has a spool and the directive's has none:
// its mail would stand still unseen. INVALID_ARGUMENT where the directive is no whole path.
// Looks at the disk and changes nothing.
absl::StatusOr<std::string> SpoolFolder(const std::string& data_dir, const std::string& flag,
                                        const std::string& directive);

}  // namespace sluice::node
