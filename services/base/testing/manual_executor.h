// An executor in virtual time for tests of one actor: tasks run when the test says so.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <limits>
#include <map>
#include <utility>

#include "services/base/executor.h"

namespace sluice::testing {

// Wall time follows monotonic time. Thread-safety: none. Lifetime: as Executor.
class ManualExecutor final : public Executor {
 public:
  void Post(Task task) override { posted_.push_back(std::move(task)); }
  TimerId At(MonotonicTime when, Task task) override {
    timers_.emplace(std::pair(when, ++last_timer_), std::move(task));
    return last_timer_;
  }
  bool Cancel(TimerId id) override {
    for (auto it = timers_.begin(); it != timers_.end(); ++it) {
      if (it->first.second != id) continue;
      timers_.erase(it);
      return true;
    }
    return false;
  }
  const Clock& clock() const override { return clock_; }

  // Runs what was posted, and what that posts, until nothing is left.
  void RunPosted() { RunPosted(std::numeric_limits<size_t>::max()); }
  // The same, but so many tasks at the most. False: there is more.
  bool RunPosted(size_t most) {
    for (; most > 0 && !posted_.empty(); --most) {
      Task task = std::move(posted_.front());
      posted_.pop_front();
      task();
    }
    return posted_.empty();
  }
  // Lets time pass, running tasks and timers in order.
  void Advance(Duration delay) {
    const MonotonicTime end = clock_.now + delay;
    RunPosted();
    while (!timers_.empty() && timers_.begin()->first.first <= end) {
      auto node = timers_.extract(timers_.begin());
      clock_.now = std::max(clock_.now, node.key().first);
      node.mapped()();
      RunPosted();
    }
    clock_.now = std::max(clock_.now, end);
  }
  // From now on the machine is slow: each look at the clock takes so long.
  void SlowDown(Duration look) { clock_.look = look; }
  // Nothing runs for so long, in the middle of a task.
  void StandStill(Duration time) { clock_.now += time; }
  // Somebody sets the machine's clock.
  void StepWallClock(Duration step) { clock_.step += step; }
  size_t timers() const { return timers_.size(); }

 private:
  struct ManualClock final : Clock {
    MonotonicTime Now() const override { return now += look; }
    WallTime WallNow() const override {
      return FromUnixMicros(1'700'000'000'000'000) + now.time_since_epoch() + step;
    }
    mutable MonotonicTime now{std::chrono::hours(1)};
    Duration look{0};
    Duration step{0};
  };

  ManualClock clock_;
  std::deque<Task> posted_;
  std::map<std::pair<MonotonicTime, TimerId>, Task> timers_;
  TimerId last_timer_ = 0;
};

}  // namespace sluice::testing
