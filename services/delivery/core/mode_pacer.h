// The pace of a queue that has one limit always and another one in backoff mode.
#pragma once

#include <algorithm>

#include "services/delivery/core/rate_pacer.h"

namespace sluice::delivery {

// In backoff mode both hold, so what backoff mode says lifts nothing. Each keeps what was charged
// to it over changes of the mode: neither opens a window anew. Thread-safety: none; a value.
class ModePacer {
 public:
  ModePacer() = default;  // no limit
  ModePacer(const RatePacer& always, const RatePacer& backoff, bool in_backoff)
      : always_(always), backoff_(backoff), in_backoff_(in_backoff) {}

  bool limited() const { return always_.limited() || (in_backoff_ && backoff_.limited()); }
  // Whether it is backoff mode that says when the next one may pass.
  bool backoff_decides(MonotonicTime now) const {
    return in_backoff_ && backoff_.limited() && backoff_.Next(now) >= always_.Next(now);
  }
  size_t CellsWithin(Duration length) const {
    const auto of = [length](const RatePacer& pacer) {
      return pacer.limited() ? pacer.CellsWithin(length) : SIZE_MAX;
    };
    return std::min(of(always_), in_backoff_ ? of(backoff_) : SIZE_MAX);
  }
  MonotonicTime Next(MonotonicTime now) const {
    return in_backoff_ ? std::max(always_.Next(now), backoff_.Next(now)) : always_.Next(now);
  }
  void Charge(MonotonicTime now, uint64_t cells) {
    always_.Charge(now, cells);
    if (in_backoff_) backoff_.Charge(now, cells);
  }
  void Exhaust(MonotonicTime now) {
    always_.Exhaust(now);
    backoff_.Exhaust(now);
  }
  bool Rested(MonotonicTime now) const { return always_.Rested(now) && backoff_.Rested(now); }
  void TakeOver(const ModePacer& old) {
    always_.TakeOver(old.always_);
    backoff_.TakeOver(old.backoff_);
  }
  bool in_backoff() const { return in_backoff_; }
  // What was sent a moment ago was not charged to the limit of backoff mode: it begins with a wait
  // of one interval.
  void SetBackoff(bool on, MonotonicTime now) {
    if (on && !in_backoff_) backoff_.Exhaust(now);
    in_backoff_ = on;
  }

 private:
  RatePacer always_;
  RatePacer backoff_;
  bool in_backoff_ = false;
};

}  // namespace sluice::delivery
