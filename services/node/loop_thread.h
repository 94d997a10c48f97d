// An event loop with a thread of its own.
#pragma once

#include <future>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include "services/base/net/event_loop.h"

namespace sluice::node {

// Thread-safety: Start, Stop and Call from the thread that made it; Post on loop() from any.
// Lifetime: the destructor stops and joins.
class LoopThread {
 public:
  explicit LoopThread(std::string name) : name_(std::move(name)) {}
  ~LoopThread() { Stop(); }

  EventLoop& loop() { return loop_; }
  void Start();
  // What lives on the loop is destroyed by its owner afterwards, when nothing runs there any more.
  void Stop();
  bool running() const { return thread_.joinable(); }

  // Runs `work` on the loop and waits for its result; directly where the loop is not running.
  template <class Work>
  auto Call(Work work) -> std::invoke_result_t<Work> {
    if (!running()) return work();
    using Result = std::invoke_result_t<Work>;
    std::promise<Result> promise;
    auto future = promise.get_future();
    loop_.Post([&promise, &work] {
      if constexpr (std::is_void_v<Result>) {
        work();
        promise.set_value();
      } else {
        promise.set_value(work());
      }
    });
    return future.get();
  }

 private:
  const std::string name_;
  EventLoop loop_;
  std::thread thread_;
};

}  // namespace sluice::node
