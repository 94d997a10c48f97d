#include "services/base/clock.h"

#include <ctime>

namespace sluice {
namespace {

Duration Read(clockid_t id) {
  timespec ts;
  clock_gettime(id, &ts);
  return Duration(int64_t{ts.tv_sec} * 1'000'000 + ts.tv_nsec / 1'000);
}

class RealClock final : public Clock {
 public:
  MonotonicTime Now() const override { return MonotonicTime(Read(CLOCK_MONOTONIC)); }
  WallTime WallNow() const override { return WallTime(Read(CLOCK_REALTIME)); }
};

}  // namespace

const Clock& Clock::Real() {
  static const RealClock clock;
  return clock;
}

}  // namespace sluice
