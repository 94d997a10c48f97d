// Proves that work runs beside the loop and its result comes back on the loop, that waiting work is
// bounded, and that an end drops what waits.
#include "services/ingest/io/work_thread.h"

#include <atomic>
#include <future>
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

TEST(WorkThread, WaitingWorkIsBounded) {
  EventLoop loop;
  std::promise<void> started;
  std::promise<void> release;
  std::atomic<int> ran{0};
  {
    WorkThread work;
    ASSERT_TRUE(work.Run(
        [&] {
          started.set_value();
          release.get_future().wait();
          return true;
        },
        loop, [](bool) {}));
    started.get_future().wait();
    const auto count = [&] { return ++ran > 0; };
    for (size_t i = 0; i < WorkThread::kMaxWaiting; ++i) {
      EXPECT_TRUE(work.Run(count, loop, [](bool) {}));
    }
    EXPECT_FALSE(work.Run(count, loop, [](bool) {}));
    release.set_value();
  }
  EXPECT_LE(ran, static_cast<int>(WorkThread::kMaxWaiting));
}

}  // namespace
}  // namespace sluice::ingest
