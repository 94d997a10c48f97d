// Where an actor's code runs: one thread at a time, in order, with timers. Production has an event
// loop behind it, simulations a virtual clock.
#pragma once

#include <cstdint>

#include "absl/functional/any_invocable.h"
#include "services/base/clock.h"

namespace sluice {

// Zero is never a live timer.
using TimerId = uint64_t;

// Thread-safety: Post may be called from any thread; all else only from a task that this executor
// runs. Lifetime: outlives everything that was posted or scheduled; tasks left at destruction are
// destroyed, not run.
class Executor {
 public:
  using Task = absl::AnyInvocable<void()>;

  virtual ~Executor() = default;

  // Runs `task` later, after everything posted before it by the same thread. Never inline.
  virtual void Post(Task task) = 0;

  // Runs `task` once, at or soon after `when` (lateness about a millisecond under no load). A past
  // time means "next turn".
  virtual TimerId At(MonotonicTime when, Task task) = 0;

  // Forgets a timer. False where it has run, or was cancelled. A cancelled task never runs.
  virtual bool Cancel(TimerId id) = 0;

  virtual const Clock& clock() const = 0;

  TimerId After(Duration delay, Task task) { return At(clock().Now() + delay, std::move(task)); }
};

}  // namespace sluice
