// The loop keeps the Executor contract on a real thread, and drives Asio users in the same turns.
#include "services/base/net/event_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <thread>
#include <vector>

namespace sluice {
namespace {

using std::chrono::milliseconds;

TEST(EventLoop, TasksOfEachThreadRunInOrder) {
  EventLoop loop;
  constexpr int kThreads = 4;
  constexpr int kTasks = 5000;
  std::vector<int> next(kThreads, 0);
  int done = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kTasks; ++i) {
        loop.Post([&, t, i] {
          EXPECT_TRUE(loop.InLoopThread());
          EXPECT_EQ(next[t]++, i);
          if (++done == kThreads * kTasks) loop.Stop();
        });
      }
    });
  }
  loop.Run();
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(done, kThreads * kTasks);
}

TEST(EventLoop, PostFromATaskIsNotInline) {
  EventLoop loop;
  bool outer_done = false;
  loop.Post([&] {
    loop.Post([&] {
      EXPECT_TRUE(outer_done);
      loop.Stop();
    });
    outer_done = true;
  });
  loop.Run();
  EXPECT_TRUE(outer_done);
}

TEST(EventLoop, AWakeFromAnotherThreadEndsTheWait) {
  EventLoop loop;
  // The main thread posts only after the loop has had the chance to sleep; each answer proves a
  // wake.
  std::atomic<int> turns{0};
  std::thread runner([&] { loop.Run(); });
  for (int i = 0; i < 200; ++i) {
    loop.Post([&] { turns.fetch_add(1); });
    while (turns.load() <= i) std::this_thread::yield();
  }
  loop.Stop();
  runner.join();
  EXPECT_EQ(turns.load(), 200);
}

TEST(EventLoop, TimersRunInTimeOrderAndNeverEarly) {
  EventLoop loop;
  MonotonicTime start = loop.clock().Now();
  std::vector<int> order;
  for (int ms : {9, 1, 5, 0, -3}) {
    loop.At(start + milliseconds(ms), [&, ms] {
      EXPECT_GE(loop.clock().Now(), start + milliseconds(ms));
      order.push_back(ms);
      if (ms == 9) loop.Stop();
    });
  }
  loop.Run();
  ASSERT_EQ(order.size(), 5u);
  EXPECT_EQ(std::vector<int>(order.begin() + 2, order.end()), (std::vector<int>{1, 5, 9}));
}

TEST(EventLoop, ACancelledTaskNeverRunsAndItsIdIsNotReused) {
  EventLoop loop;
  auto token = std::make_shared<int>(1);
  TimerId cancelled = loop.After(milliseconds(1), [token] { FAIL(); });
  EXPECT_NE(cancelled, 0u);
  EXPECT_TRUE(loop.Cancel(cancelled));
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_FALSE(loop.Cancel(cancelled));
  EXPECT_FALSE(loop.Cancel(0));
  TimerId ran = loop.After(milliseconds(2), [&] { loop.Stop(); });
  EXPECT_NE(ran, cancelled);
  EXPECT_FALSE(loop.Cancel(cancelled));
  loop.Run();
  EXPECT_FALSE(loop.Cancel(ran));
}

TEST(EventLoop, TasksLeftAtDestructionAreDestroyedNotRun) {
  auto token = std::make_shared<int>(1);
  {
    EventLoop loop;
    loop.Post([token] { FAIL(); });
    loop.After(std::chrono::hours(1), [token] { FAIL(); });
    EXPECT_EQ(token.use_count(), 3);
  }
  EXPECT_EQ(token.use_count(), 1);
}

TEST(EventLoop, HooksRunOnceAtTheEndOfTheTurn) {
  struct Hook final : TurnEndHook {
    explicit Hook(EventLoop& loop) : loop(loop) {}
    ~Hook() { loop.CancelTurnEnd(this); }
    void OnTurnEnd() override { ++calls; }
    EventLoop& loop;
    int calls = 0;
  };
  EventLoop loop;
  Hook hook(loop);
  auto gone = std::make_unique<Hook>(loop);
  loop.Post([&] {
    loop.AtTurnEnd(&hook);
    loop.AtTurnEnd(gone.get());
  });
  loop.Post([&] {
    loop.AtTurnEnd(&hook);
    EXPECT_EQ(hook.calls, 0);
    gone.reset();
  });
  loop.RunOnce(Duration(0));
  EXPECT_EQ(hook.calls, 1);
  loop.RunOnce(Duration(0));
  EXPECT_EQ(hook.calls, 1);
}

TEST(EventLoop, AsioWorkAndOwnWorkShareTheThread) {
  EventLoop loop;
  boost::asio::steady_timer timer(loop.io(), milliseconds(5));
  int posted = 0;
  bool timer_ran = false;
  bool own_timer_ran = false;
  auto finish = [&] {
    if (posted == 100 && timer_ran && own_timer_ran) loop.Stop();
  };
  timer.async_wait([&](const boost::system::error_code& error) {
    EXPECT_FALSE(error);
    EXPECT_TRUE(loop.InLoopThread());
    timer_ran = true;
    finish();
  });
  loop.After(milliseconds(8), [&] {
    own_timer_ran = true;
    finish();
  });
  std::thread poster([&] {
    for (int i = 0; i < 100; ++i) {
      loop.Post([&] {
        boost::asio::post(loop.io(), [&] {
          ++posted;
          finish();
        });
      });
    }
  });
  loop.Run();
  poster.join();
  EXPECT_EQ(posted, 100);
}

}  // namespace
}  // namespace sluice
