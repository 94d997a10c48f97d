// What leads from one snapshot to another. All functions are pure; snapshots are in order of name.
#pragma once

#include <cstddef>
#include <vector>

#include "absl/status/statusor.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// `base` with version 0 and no sections: everything.
policy::v1::SnapshotDelta MakeDelta(const policy::v1::PolicySnapshot& base,
                                    const policy::v1::PolicySnapshot& target);

// At least one; each of about `max_bytes`, or of one section where that is larger.
std::vector<policy::v1::SnapshotDelta> SplitDelta(policy::v1::SnapshotDelta delta,
                                                  size_t max_bytes);

// DATA_LOSS where `base` is not what the delta begins with, or the result has another hash than the
// delta says, or a section another than its content's.
absl::StatusOr<policy::v1::PolicySnapshot> ApplyDelta(const policy::v1::PolicySnapshot& base,
                                                      policy::v1::SnapshotDelta delta);

// Each section's hash is its content's, and they are in order.
bool IsIntact(const policy::v1::PolicySnapshot& snapshot);

}  // namespace sluice::config
