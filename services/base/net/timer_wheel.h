// Many timers, cheaply: a hierarchical wheel (Varghese and Lauck, 1987) of ticks of a quarter of
// a millisecond.
// Setting, moving and clearing cost a few pointer writes, however many there are.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "services/base/clock.h"

namespace sluice {

class TimerWheel;

// One moment that an owner waits for, such as the deadline of a session; embed it in the owner.
// Moving it later, which a session does with every command, is one store: it is only relinked when
// its earlier time comes up.
// Thread-safety: none; used by the wheel's thread. Lifetime: the wheel outlives it; destroying it
// clears it, also from within its own callback.
class Deadline {
 public:
  // `on_expired` runs once for each Set that was not overtaken by another Set or by Clear.
  Deadline(TimerWheel& wheel, absl::AnyInvocable<void()> on_expired)
      : wheel_(&wheel), on_expired_(std::move(on_expired)) {}
  ~Deadline();
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

  // Never early, and at most about a tick late on an idle loop. A past time fires on the next turn.
  void Set(MonotonicTime when);
  void SetAfter(Duration delay);
  void Clear() { when_tick_ = kNever; }
  bool is_set() const { return when_tick_ != kNever; }

 private:
  friend class TimerWheel;
  static constexpr uint64_t kNever = UINT64_MAX;

  void Unlink();

  TimerWheel* wheel_;
  absl::AnyInvocable<void()> on_expired_;
  uint64_t when_tick_ = kNever;  // what the owner wants
  uint64_t slot_tick_ = 0;       // where it is linked: never later than when_tick_
  // Neighbours in the list of a slot, null when unlinked. Lists are circular with a sentinel.
  struct Link {
    Link* previous = nullptr;
    Link* next = nullptr;
  };
  struct NodeLink : Link {
    Deadline* owner = nullptr;
  };
  NodeLink link_;
};

// Thread-safety: none. Lifetime: outlives its deadlines.
class TimerWheel {
 public:
  static constexpr Duration kTick = std::chrono::microseconds(250);

  // `clock` is only read by Deadline::SetAfter and here.
  explicit TimerWheel(const Clock& clock);
  TimerWheel(const TimerWheel&) = delete;
  TimerWheel& operator=(const TimerWheel&) = delete;

  // Runs what is due at `now`; what those callbacks set for a past time waits for the next call.
  void Advance(MonotonicTime now);

  // A time at which Advance should be called: not later than the first deadline, sometimes earlier.
  // Nothing where no deadline is set.
  std::optional<MonotonicTime> NextWake() const;

 private:
  friend class Deadline;
  static constexpr int kLevelBits = 8;
  static constexpr int kSlots = 1 << kLevelBits;
  static constexpr int kLevels = 4;  // 12 days; what is further away is relinked when it comes up

  using Link = Deadline::Link;

  uint64_t TickAtOrAfter(MonotonicTime when) const;
  void Insert(Deadline* deadline);
  uint64_t NextTick() const;  // kNever where all slots are empty
  void CascadeAt(uint64_t tick);
  static void Append(Link* list, Link* node);
  static void SpliceAll(Link* from, Link* to);

  const Clock& clock_;
  MonotonicTime origin_;
  uint64_t current_tick_ = 0;
  Link due_;
  Deadline* running_ = nullptr;  // whose callback runs, null once it has been destroyed
  std::array<std::array<Link, kSlots>, kLevels> slots_;
  // A set bit: the slot may hold something.
  std::array<std::array<uint64_t, kSlots / 64>, kLevels> occupied_{};
};

}  // namespace sluice
