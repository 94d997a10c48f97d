// When people are to be told that something cannot be reached: not for what is there a moment
// later, and not with every attempt.
#pragma once

#include <optional>

#include "services/base/clock.h"

namespace sluice {

// Thread-safety: none; a value.
class OutageNotice {
 public:
  // An attempt failed. True: it is to be told now.
  bool Failed(MonotonicTime now) {
    if (!since_) {
      since_ = now;
      next_ = now + kFirst;
    }
    if (now < next_) return false;
    next_ = now + kAgain;
    return true;
  }
  // It is reached.
  void Over() { since_.reset(); }
  int64_t seconds(MonotonicTime now) const {
    return since_ ? (now - *since_) / std::chrono::seconds(1) : 0;
  }

 private:
  static constexpr Duration kFirst = std::chrono::seconds(3);
  static constexpr Duration kAgain = std::chrono::minutes(1);
  std::optional<MonotonicTime> since_;
  MonotonicTime next_{};
};

}  // namespace sluice
