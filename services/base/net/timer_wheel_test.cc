// The wheel fires everything once, never early, in time order, at any distance.
#include "services/base/net/timer_wheel.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

namespace sluice {
namespace {

class FakeClock final : public Clock {
 public:
  MonotonicTime Now() const override { return now; }
  WallTime WallNow() const override { return WallTime(now.time_since_epoch()); }
  MonotonicTime now{Duration(123'456'789)};
};

constexpr Duration Ms(int64_t ms) { return Duration(ms * 1000); }

// Moves time from wake to wake, as the loop does.
void AdvanceTo(TimerWheel& wheel, FakeClock& clock, MonotonicTime end) {
  while (true) {
    auto wake = wheel.NextWake();
    if (!wake || *wake > end) break;
    clock.now = std::max(clock.now, *wake);
    wheel.Advance(clock.now);
  }
  clock.now = end;
  wheel.Advance(end);
}

TEST(TimerWheel, FiresAtEveryDistanceNeverEarlyAndWithinATick) {
  FakeClock clock;
  TimerWheel wheel(clock);
  MonotonicTime start = clock.now;
  std::mt19937_64 random(7);
  struct Entry {
    MonotonicTime when;
    MonotonicTime fired{};
    std::unique_ptr<Deadline> deadline;
  };
  std::vector<Entry> entries(4000);
  for (Entry& entry : entries) {
    // Every power of two between 1 us and 60 days.
    entry.when = start + Duration(random() % (uint64_t{1} << (random() % 43)));
    entry.deadline = std::make_unique<Deadline>(wheel, [&entry, &clock] {
      EXPECT_EQ(entry.fired, MonotonicTime{});
      entry.fired = clock.now;
    });
    entry.deadline->Set(entry.when);
  }
  AdvanceTo(wheel, clock, start + std::chrono::hours(24 * 60));
  for (const Entry& entry : entries) {
    EXPECT_GE(entry.fired, entry.when);
    EXPECT_LE(entry.fired, entry.when + TimerWheel::kTick);
  }
  EXPECT_FALSE(wheel.NextWake());
}

TEST(TimerWheel, SetWhileTimeMovesAgreesWithAModel) {
  FakeClock clock;
  TimerWheel wheel(clock);
  std::mt19937_64 random(11);
  struct Entry {
    MonotonicTime want = MonotonicTime::max();
    int fired = 0;
    std::unique_ptr<Deadline> deadline;
  };
  std::vector<Entry> entries(50);
  for (Entry& entry : entries) {
    entry.deadline = std::make_unique<Deadline>(wheel, [&entry, &clock] {
      EXPECT_GE(clock.now, entry.want);
      EXPECT_LE(clock.now, entry.want + Ms(2));
      entry.want = MonotonicTime::max();
      ++entry.fired;
    });
  }
  for (int step = 0; step < 20000; ++step) {
    Entry& entry = entries[random() % entries.size()];
    if (random() % 4 == 0) {
      entry.deadline->Clear();
      entry.want = MonotonicTime::max();
    } else {
      entry.want = clock.now + Duration(random() % (uint64_t{1} << (random() % 24)));
      entry.deadline->Set(entry.want);
    }
    AdvanceTo(wheel, clock, clock.now + Duration(random() % 3000));
    for (const Entry& each : entries) EXPECT_GE(each.want, clock.now - Ms(2));
  }
}

TEST(TimerWheel, ADeadlineThatIsPushedBackWithEveryCommandFiresOnce) {
  FakeClock clock;
  TimerWheel wheel(clock);
  int fired = 0;
  Deadline deadline(wheel, [&] { ++fired; });
  for (int i = 0; i < 1000; ++i) {
    deadline.SetAfter(Ms(300));
    AdvanceTo(wheel, clock, clock.now + Ms(10));
  }
  EXPECT_EQ(fired, 0);
  AdvanceTo(wheel, clock, clock.now + Ms(289));
  EXPECT_EQ(fired, 0);
  AdvanceTo(wheel, clock, clock.now + Ms(3));
  EXPECT_EQ(fired, 1);
  EXPECT_FALSE(deadline.is_set());
}

TEST(TimerWheel, APastTimeWaitsForTheNextTurn) {
  FakeClock clock;
  TimerWheel wheel(clock);
  int fired = 0;
  Deadline deadline(wheel, [&] {
    if (++fired < 3) deadline.Set(clock.now - Ms(5));
  });
  deadline.Set(clock.now - Ms(5));
  for (int turn = 1; turn <= 3; ++turn) {
    EXPECT_TRUE(wheel.NextWake());
    wheel.Advance(clock.now);
    EXPECT_EQ(fired, turn);
  }
  EXPECT_FALSE(wheel.NextWake());
}

TEST(TimerWheel, CallbacksMayDestroyAndClearWhatIsDueWithThem) {
  FakeClock clock;
  TimerWheel wheel(clock);
  std::unique_ptr<Deadline> self;
  std::unique_ptr<Deadline> other;
  int fired = 0;
  Deadline cleared(wheel, [&] { ++fired; });
  self = std::make_unique<Deadline>(wheel, [&] {
    ++fired;
    other.reset();
    cleared.Clear();
    self.reset();
  });
  other = std::make_unique<Deadline>(wheel, [&] { ++fired; });
  self->SetAfter(Ms(3));
  other->SetAfter(Ms(3));
  cleared.SetAfter(Ms(3));
  AdvanceTo(wheel, clock, clock.now + Ms(10));
  EXPECT_EQ(fired, 1);
}

}  // namespace
}  // namespace sluice
