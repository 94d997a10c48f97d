// Proves that work that hangs at one end takes no more than its share of the threads.
#include "services/delivery/local/blocking_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <thread>

namespace sluice::delivery {
namespace {

class BlockingPoolTest : public ::testing::Test {
 protected:
  // Tasks that end when they are let go.
  void Hang(const std::string& key, int count) {
    for (int i = 0; i < count; ++i) {
      pool_.Run(key, [this, over = over_] {
        ++hanging_;
        over.wait();
      });
    }
  }
  bool Runs(const std::string& key) {
    auto ran = std::make_shared<std::promise<void>>();
    pool_.Run(key, [ran] { ran->set_value(); });
    return ran->get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready;
  }

  std::promise<void> let_go_;
  const std::shared_future<void> over_ = let_go_.get_future().share();
  std::atomic<int> hanging_{0};
  BlockingPool pool_{4, 2};
};

TEST_F(BlockingPoolTest, WhatHangsHasItsShareAndTheRestGoesOn) {
  Hang("stuck", 20);
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(Runs("well"));
  EXPECT_LE(hanging_, 2);
  let_go_.set_value();
  EXPECT_TRUE(Runs("stuck")) << "in turn, behind all the others";
  EXPECT_GE(hanging_, 19);  // the last one may have begun at the same time
}

TEST(BlockingPool, WhatHasNotBegunIsDroppedWithIt) {
  std::promise<void> began, let_go;
  auto held = std::make_shared<int>(1);
  std::thread later;
  {
    BlockingPool pool(1, 1);
    pool.Run("a", [&] {
      began.set_value();
      let_go.get_future().wait();
    });
    began.get_future().wait();
    pool.Run("b", [held] { ADD_FAILURE() << "there was no thread for it"; });
    EXPECT_EQ(held.use_count(), 2);
    later = std::thread([&] {
      // Dropped by the destructor, which then waits for the other one.
      while (held.use_count() != 1) std::this_thread::yield();
      let_go.set_value();
    });
  }
  later.join();
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace sluice::delivery
