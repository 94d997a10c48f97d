// Work that would hold an event loop for milliseconds: password hashes.
#pragma once

#include <string_view>

#include "absl/functional/any_invocable.h"
#include "services/base/executor.h"

namespace sluice::ingest {

// Thread-safety: Run from any thread. Lifetime: the executors that it is given outlive it.
class SlowWork {
 public:
  virtual ~SlowWork() = default;
  // Runs `work` on a thread of its own, then posts `done` with its result to `executor`; those for
  // whom work waits take turns. False, and nothing runs, while too much waits already, of all or of
  // this one.
  virtual bool Run(std::string_view whose, absl::AnyInvocable<bool()> work, Executor& executor,
                   absl::AnyInvocable<void(bool)> done) = 0;
};

}  // namespace sluice::ingest
