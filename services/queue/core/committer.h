// Makes the shard's batches durable, one at a time, without blocking the shard.
#pragma once

#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "services/base/clock.h"
#include "services/queue/core/store.h"

namespace sluice::queue {

struct CommitterStats {
  uint64_t syncs = 0;
  uint64_t bytes = 0;
  // Of the latest commits (at most 256), begin to end.
  Duration p50{};
  Duration p99{};
};

// At most one commit is under way: the shard fills its next batch meanwhile, so one sync serves all
// that came in during the last one (group commit). The gap between starts is the shard's business.
// Thread-safety: the executor that it was made for.
class Committer {
 public:
  using Done = absl::AnyInvocable<void(absl::Status, std::unique_ptr<Batch>)>;
  virtual ~Committer() = default;
  // Applies `batch` with sync and calls `done` later, on the executor, giving the batch back for
  // reuse. Not called while a commit is under way.
  virtual void Commit(std::unique_ptr<Batch> batch, Done done) = 0;
  virtual CommitterStats stats() const = 0;
};

}  // namespace sluice::queue
