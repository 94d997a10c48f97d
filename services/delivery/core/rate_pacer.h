// Paces attempts so that no window of the stated period ever holds more than its count.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "services/base/clock.h"

namespace sluice::delivery {

// The generic cell rate algorithm (ITU-T I.371). A bucket of B that refills at N a period would let
// N + B - 1 pass in some window; so it refills at N - B + 1, and the burst counts inside N.
// Thread-safety: none; a value. Units: one cell is one recipient.
class RatePacer {
 public:
  RatePacer() = default;  // no limit
  // count 0: nothing passes. burst is cut to 1..count.
  RatePacer(uint64_t count, Duration period, uint32_t burst) : limited_(true) {
    if (count == 0 || period.count() == 0) {
      never_ = count == 0;
      limited_ = never_;
      return;
    }
    // Negative: a count of microseconds that did not fit.
    if (period.count() < 0 || period > kForever) period = kForever;
    const uint64_t cells = std::clamp<uint64_t>(burst, 1, count);
    // Rounded up: a window is never overfilled by a rounding error.
    const uint64_t refill = count - cells + 1;
    const auto length = static_cast<uint64_t>(period.count());
    interval_ = Duration(length / refill + (length % refill == 0 ? 0 : 1));
    tolerance_ = Times(interval_, cells - 1);
  }

  bool limited() const { return limited_; }

  // How many cells at the most a stretch of this length lets pass one by one; at least one.
  size_t CellsWithin(Duration length) const {
    return static_cast<size_t>(
        std::max<int64_t>(1, length / std::max<Duration>(interval_, Duration(1))));
  }

  // When one cell may pass, at the earliest; max() where never.
  MonotonicTime Next(MonotonicTime now) const {
    if (never_) return MonotonicTime::max();
    if (!limited_) return now;
    return std::max(now, theoretical_ - tolerance_);
  }
  // Charges `cells` that pass now; the caller has waited for Next.
  void Charge(MonotonicTime now, uint64_t cells) {
    if (!limited_ || never_) return;
    theoretical_ = Later(std::max(theoretical_, now), Times(interval_, cells));
  }
  // As if all that may pass had just passed: what somebody before us sent until `now` is not known.
  void Exhaust(MonotonicTime now) {
    theoretical_ = std::max(theoretical_, Later(now, tolerance_ + interval_));
  }
  // Whether it would behave as a new one.
  bool Rested(MonotonicTime now) const { return !limited_ || theoretical_ <= now; }
  // Keeps what was charged when the limit changes: a reload never opens a window anew.
  void TakeOver(const RatePacer& old) { theoretical_ = old.theoretical_; }

 private:
  // Some 36,000 years: sums of a few of them fit.
  static constexpr Duration kForever{int64_t{1} << 60};

  static Duration Times(Duration interval, uint64_t cells) {
    if (cells > static_cast<uint64_t>(kForever / interval)) return kForever;
    return interval * static_cast<int64_t>(cells);
  }
  static MonotonicTime Later(MonotonicTime time, Duration wait) {
    return std::min(time + wait, MonotonicTime(kForever * 2));
  }

  bool limited_ = false;
  bool never_ = false;
  Duration interval_{};
  Duration tolerance_{};
  MonotonicTime theoretical_{};
};

}  // namespace sluice::delivery
