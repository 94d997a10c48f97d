// Proves that work runs beside the loop and its result comes back on the loop, that waiting work is
// bounded, and that an end drops what waits.
#include "services/ingest/io/work_thread.h"

#include <atomic>
#include <future>
#include <string>
#include <thread>

#include "gtest/gtest.h"
#include "services/base/net/event_loop.h"

namespace sluice::ingest {
namespace {

TEST(WorkThread, ResultComesBackOnTheLoop) {
  EventLoop loop;
  WorkThread work;
  std::thread::id worked;
  bool result = false;
  ASSERT_TRUE(work.Run(
      "a",
      [&] {
        worked = std::this_thread::get_id();
        return true;
      },
      loop,
      [&](bool ok) {
        EXPECT_TRUE(loop.InLoopThread());
        result = ok;
        loop.Stop();
      }));
  loop.Run();
  EXPECT_TRUE(result);
  EXPECT_NE(worked, std::this_thread::get_id());
}

// Keeps a thread busy until it is released; outlives it.
struct Hold {
  void Take(WorkThread& work, EventLoop& loop, const std::string& whose) {
    ASSERT_TRUE(work.Run(
        whose,
        [this] {
          started.set_value();
          release.get_future().wait();
          return true;
        },
        loop, [](bool) {}));
    started.get_future().wait();
  }
  std::promise<void> started;
  std::promise<void> release;
};

TEST(WorkThread, WaitingWorkIsBounded) {
  EventLoop loop;
  Hold hold;
  std::atomic<int> ran{0};
  {
    WorkThread work;
    hold.Take(work, loop, "a");
    const auto count = [&] { return ++ran > 0; };
    for (size_t i = 0; i < WorkThread::kMaxWaitingOfOne; ++i) {
      EXPECT_TRUE(work.Run("a", count, loop, [](bool) {}));
    }
    EXPECT_FALSE(work.Run("a", count, loop, [](bool) {}));
    for (size_t i = WorkThread::kMaxWaitingOfOne; i < WorkThread::kMaxWaiting; ++i) {
      EXPECT_TRUE(work.Run(std::to_string(i), count, loop, [](bool) {}));
    }
    EXPECT_FALSE(work.Run("b", count, loop, [](bool) {}));
    hold.release.set_value();
  }
  EXPECT_LE(ran, static_cast<int>(WorkThread::kMaxWaiting));
}

// Who floods it with guesses waits for himself.
TEST(WorkThread, AllTakeTurns) {
  EventLoop loop;
  Hold hold;
  std::string order;  // of the work's thread, until all is done
  int done = 0;
  WorkThread work;
  hold.Take(work, loop, "first");
  const auto add = [&](const std::string& whose) {
    ASSERT_TRUE(work.Run(
        whose,
        [&order, whose] {
          order += whose;
          return true;
        },
        loop,
        [&](bool) {
          if (++done == 7) loop.Stop();
        }));
  };
  for (const char* whose : {"a", "a", "a", "a", "b", "b", "c"}) add(whose);
  hold.release.set_value();
  loop.Run();
  EXPECT_EQ(order, "abcabaa");
}

}  // namespace
}  // namespace sluice::ingest
