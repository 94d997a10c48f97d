// Time, injected. Timeouts and rates use MonotonicTime, what is stored or shown uses WallTime; the
// two types do not mix.
#pragma once

#include <chrono>
#include <cstdint>

namespace sluice {

using Duration = std::chrono::microseconds;

struct MonotonicTag {
  using duration = Duration;
  using rep = Duration::rep;
  using period = Duration::period;
  using time_point = std::chrono::time_point<MonotonicTag, Duration>;
  static constexpr bool is_steady = true;
};
using MonotonicTime = MonotonicTag::time_point;  // since an arbitrary start
using WallTime =
    std::chrono::time_point<std::chrono::system_clock, Duration>;  // since the Unix epoch

inline int64_t ToUnixMicros(WallTime t) { return t.time_since_epoch().count(); }
inline WallTime FromUnixMicros(int64_t us) { return WallTime(Duration(us)); }

// Thread-safety: all functions may be called from any thread.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual MonotonicTime Now() const = 0;
  virtual WallTime WallNow() const = 0;

  // The machine's clocks. Lives for ever.
  static const Clock& Real();
};

}  // namespace sluice
