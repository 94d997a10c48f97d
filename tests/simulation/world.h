// Virtual time for a whole cluster: one queue of events, drawn from one seed, and an executor for
// each simulated process. The same seed gives the same run, event by event.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "services/base/executor.h"

namespace sluice::simulation {

// SplitMix64: small, fast, the same everywhere. Thread-safety: none.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // 0 to below - 1; below > 0.
  uint64_t Below(uint64_t below) { return Next() % below; }
  bool Chance(double probability) {
    return static_cast<double>(Next() >> 11) * 0x1.0p-53 < probability;
  }
  Duration Between(Duration least, Duration most) {
    return least + Duration(Below(static_cast<uint64_t>((most - least).count()) + 1));
  }

 private:
  uint64_t state_;
};

// Thread-safety: none. Lifetime: outlives its executors.
class World {
 public:
  using Task = Executor::Task;
  using Key = std::pair<MonotonicTime, std::pair<uint32_t, uint64_t>>;
  static constexpr Duration kLook{1};

  explicit World(uint64_t seed) : random_(seed) {}

  Random& random() { return random_; }
  MonotonicTime now() const { return now_; }
  // What a process sees: work takes time, so no two looks at a clock are of one moment.
  MonotonicTime Look() { return now_ += kLook; }
  // Events at the same moment run in an order drawn from the seed.
  Key At(MonotonicTime when, Task task) {
    const Key key{std::max(when, now_), {static_cast<uint32_t>(random_.Next()), ++last_}};
    events_.emplace(key, std::move(task));
    return key;
  }
  bool Cancel(const Key& key) { return events_.erase(key) > 0; }
  // Runs the next event. False where there is none before `end`; it is `end` then.
  bool Step(MonotonicTime end) {
    if (events_.empty() || events_.begin()->first.first > end) {
      now_ = std::max(now_, end);
      return false;
    }
    auto node = events_.extract(events_.begin());
    now_ = std::max(now_, node.key().first);
    ++steps_;
    node.mapped()();
    return true;
  }
  uint64_t steps() const { return steps_; }
  // Drops all that is still to happen: what it refers to may be destroyed then.
  void Clear() { events_.clear(); }

 private:
  Random random_;
  MonotonicTime now_{std::chrono::hours(1000)};
  uint64_t last_ = 0;
  uint64_t steps_ = 0;
  std::map<Key, Task> events_;
};

// One process's thread. Its wall clock can be wrong.
class SimExecutor final : public Executor {
 public:
  explicit SimExecutor(World& world) : world_(world), clock_(world) {}
  ~SimExecutor() override { Clear(); }

  void Post(Task task) override {
    posted_.push_back(std::move(task));
    world_.At(world_.now() + Duration(world_.random().Below(20)),
              [this, life = life_] { RunPosted(life); });
  }
  TimerId At(MonotonicTime when, Task task) override {
    const TimerId id = ++last_timer_;
    const Duration late(world_.random().Below(1000));
    timers_[id] = world_.At(when > MonotonicTime::max() - late ? when : when + late,
                            [this, id, task = std::move(task)]() mutable {
                              timers_.erase(id);
                              task();
                            });
    return id;
  }
  bool Cancel(TimerId id) override {
    const auto found = timers_.find(id);
    if (found == timers_.end()) return false;
    world_.Cancel(found->second);
    timers_.erase(found);
    return true;
  }
  const Clock& clock() const override { return clock_; }

  // The process dies: nothing of it runs any more. What it owned is destroyed before.
  void Clear() {
    ++life_;
    for (const auto& [id, key] : timers_) world_.Cancel(key);
    timers_.clear();
    posted_.clear();
  }
  void StepWallClock(Duration by) { clock_.offset += by; }

 private:
  struct SimClock final : Clock {
    explicit SimClock(World& world) : world(world) {}
    MonotonicTime Now() const override { return world.Look(); }
    WallTime WallNow() const override {
      return FromUnixMicros(1'700'000'000'000'000) + world.Look().time_since_epoch() + offset;
    }
    World& world;
    Duration offset{};
  };

  void RunPosted(uint64_t life) {
    if (life != life_ || posted_.empty()) return;
    Task task = std::move(posted_.front());
    posted_.pop_front();
    task();
  }

  World& world_;
  SimClock clock_;
  uint64_t life_ = 0;
  TimerId last_timer_ = 0;
  std::deque<Task> posted_;
  absl::flat_hash_map<TimerId, World::Key> timers_;
};

}  // namespace sluice::simulation
