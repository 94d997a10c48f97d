// One thread's event loop: sockets, timers and posted tasks of the actors that live on it.
//
// A turn is: wait for readiness, call the watchers of all that is ready, run the posted tasks, run
// the timers that are due, then call the turn-end hooks. What a turn produced is therefore written
// once, at its end: many replies become one system call, many messages one frame.
//
// Sockets of the hot paths use Watch (level-triggered epoll: no system call beside the read and
// the write). Libraries that want Boost.Asio get io(), which is driven from the same turns.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "services/base/executor.h"
#include "services/base/net/timer_wheel.h"
#include "services/base/net/unique_fd.h"

namespace boost::asio {
class io_context;
}

namespace sluice {

// Told about the readiness of a file descriptor. It may unwatch or destroy itself and any other
// watcher within the call.
class FdWatcher {
 public:
  // `events`: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP.
  virtual void OnEvents(uint32_t events) = 0;

 protected:
  ~FdWatcher() = default;
};

// Called once at the end of the turn in which it was asked for.
class TurnEndHook {
 public:
  virtual void OnTurnEnd() = 0;

 protected:
  ~TurnEndHook() = default;

 private:
  friend class EventLoop;
  static constexpr size_t kNotQueued = SIZE_MAX;
  size_t queued_at_ = kNotQueued;
};

// Thread-safety: Post and Stop from any thread; everything else from the thread in Run, or from the
// thread that owns the loop while nobody is in Run.
// Lifetime: outlives its watchers, hooks, deadlines and connections. Tasks left at destruction are
// destroyed, not run.
// Failure: aborts where the kernel refuses an epoll or event descriptor, which only happens when
// descriptors or memory have run out at start.
class EventLoop final : public Executor {
 public:
  EventLoop();
  ~EventLoop() override;
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Runs turns until Stop. May be called again after it returned.
  void Run();
  // Makes Run return after the current turn, or the next Run at once.
  void Stop();
  // One turn that waits at most `max_wait`. For tests and for code that drives the loop itself.
  void RunOnce(Duration max_wait);

  void Post(Task task) override;
  TimerId At(MonotonicTime when, Task task) override;
  bool Cancel(TimerId id) override;
  const Clock& clock() const override { return Clock::Real(); }
  bool InLoopThread() const;

  // For per-session deadlines (timer_wheel.h).
  TimerWheel& wheel() { return wheel_; }

  // Starts, changes and ends the watching of `fd`, which stays the caller's. `events` as epoll's,
  // level-triggered.
  void Watch(int fd, uint32_t events, FdWatcher* watcher);
  void Rewatch(int fd, uint32_t events, FdWatcher* watcher);
  void Unwatch(int fd, FdWatcher* watcher);

  void AtTurnEnd(TurnEndHook* hook);
  // Forgets a hook, as its destructor must.
  void CancelTurnEnd(TurnEndHook* hook);

  // Scratch space for one read; its content lives until the next read on this loop.
  std::span<char> read_buffer() { return {read_buffer_.get(), kReadBufferBytes}; }

  // For libraries that are built on Asio. Never call its run functions.
  boost::asio::io_context& io();

 private:
  static constexpr size_t kReadBufferBytes = 256 * 1024;
  static constexpr size_t kEventsPerTurn = 256;
  struct AsioBridge;
  struct TaskTimer;

  void RunTasks();
  void RunTurnEndHooks();
  // How long the next wait may last; zero where work is waiting. Marks the loop as asleep
  // otherwise.
  Duration PrepareToWait(Duration max_wait);
  void Wait(Duration timeout);
  void Wake();

  UniqueFd epoll_;
  UniqueFd wake_;  // eventfd
  TimerWheel wheel_;
  std::unique_ptr<char[]> read_buffer_;

  std::mutex mutex_;
  std::vector<Task> inbox_;   // guarded by mutex_
  bool asleep_ = false;       // guarded by mutex_: a Post must wake the loop
  bool stopping_ = false;     // guarded by mutex_
  std::vector<Task> posted_;  // by the loop's own thread
  std::vector<Task> running_;

  std::vector<TurnEndHook*> turn_end_;
  std::vector<epoll_event> events_;
  size_t events_ready_ = 0;
  size_t events_next_ = 0;

  std::vector<std::unique_ptr<TaskTimer>> timers_;  // the low half of a TimerId is an index
  std::vector<uint32_t> free_timers_;

  std::unique_ptr<AsioBridge> asio_;
};

}  // namespace sluice
