// Paces attempts so that no window of the stated period ever holds more than its count.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "services/base/clock.h"

namespace sluice::delivery {

// The generic cell rate algorithm (ITU-T I.371). A bucket of B that refills at N a period would let
// N + B - 1 pass in some window; so it refills at N - B + 1, and the burst counts inside N. In the
// same way a slack of a few milliseconds counts inside N: without it a
// rate of thousands a second would be held to one cell for each tick of the timers. Thread-safety:
// none; a value. Units: one cell is one recipient.
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
    refill_ = count - cells + 1;
    spread_ = static_cast<uint64_t>((period + SlackOf(period)).count());
    tolerance_ = Times(cells - 1) + SlackOf(period);
  }

  // Another limit in the place of `old`, which keeps what was charged. Where there was none, what
  // was sent until `unknown` is not known.
  static RatePacer InPlaceOf(const RatePacer& old, uint64_t count, Duration period, uint32_t burst,
                             MonotonicTime unknown) {
    RatePacer pacer(count, period, burst);
    pacer.TakeOver(old);
    if (!old.limited()) pacer.Exhaust(unknown);
    return pacer;
  }

  // By how much a cell may be late and not delay those behind it: at most 10 ms, or 1/100 of the
  // period, so that at least 99 % of the rate is there to be used. Leases come with a shard's
  // syncs, in bursts of a few milliseconds.
  static Duration SlackOf(Duration period) {
    return std::min<Duration>(period / 100, std::chrono::milliseconds(10));
  }

  bool limited() const { return limited_; }
  // From now on nothing passes; what has been charged stays, for the one that takes over.
  void Stop() { never_ = limited_; }

  // How many cells at the most a stretch of this length lets pass one by one; at least one.
  size_t CellsWithin(Duration length) const {
    const Wide cells = Wide{static_cast<uint64_t>(length.count())} * refill_ / spread_;
    return static_cast<size_t>(std::clamp<Wide>(cells, 1, SIZE_MAX));
  }

  // When one cell may pass, at the earliest; max() where never.
  MonotonicTime Next(MonotonicTime now) const {
    if (never_) return MonotonicTime::max();
    if (!limited_) return now;
    return std::max(now, due() - tolerance_);
  }
  // Charges `cells` that pass now; the caller has waited for Next.
  void Charge(MonotonicTime now, uint64_t cells) {
    if (!limited_ || never_) return;
    if (due() <= now) {
      theoretical_ = now;
      part_ = 0;
    }
    const Wide total = Wide{spread_} * cells + part_;
    theoretical_ = Later(theoretical_, Micros(total / refill_));
    part_ = static_cast<uint64_t>(total % refill_);
  }
  // As if all that may pass had just passed: what somebody before us sent until `now` is not known.
  void Exhaust(MonotonicTime now) {
    const MonotonicTime full = Later(now, tolerance_ + Times(1));
    if (full <= theoretical_) return;
    theoretical_ = full;
    part_ = 0;
  }
  // Whether it would behave as a new one.
  bool Rested(MonotonicTime now) const { return !limited_ || due() <= now; }
  // Keeps what was charged when the limit changes: a reload never opens a window anew. Where the
  // burst has grown, the next cell passes when it would have, and the burst builds up from there.
  void TakeOver(const RatePacer& old) {
    theoretical_ = old.due();
    if (limited_ && !never_ && tolerance_ > old.tolerance_) {
      theoretical_ = Later(theoretical_, tolerance_ - old.tolerance_);
    }
  }

 private:
  using Wide = unsigned __int128;
  // Some 36,000 years: sums of a few of them fit.
  static constexpr Duration kForever{int64_t{1} << 60};

  static Duration Micros(Wide count) {
    return Duration(static_cast<int64_t>(std::min<Wide>(count, kForever.count())));
  }
  static MonotonicTime Later(MonotonicTime time, Duration wait) {
    return std::min(time + wait, MonotonicTime(kForever * 2));
  }
  // The time of so many cells, rounded up: a window is never overfilled by a rounding error.
  Duration Times(uint64_t cells) const {
    return Micros((Wide{spread_} * cells + refill_ - 1) / refill_);
  }
  MonotonicTime due() const { return theoretical_ + Duration(part_ == 0 ? 0 : 1); }

  bool limited_ = false;
  bool never_ = false;
  // `refill_` cells in `spread_` microseconds.
  uint64_t refill_ = 1;
  uint64_t spread_ = 1;
  Duration tolerance_{};
  // When the cells that have passed would be paid for: so many microseconds, and so many of
  // `refill_` parts of one.
  MonotonicTime theoretical_{};
  uint64_t part_ = 0;
};

}  // namespace sluice::delivery
