#include "services/base/net/event_loop.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <ctime>

#include "services/base/check.h"

namespace sluice {
namespace {

thread_local const EventLoop* current_loop = nullptr;

}  // namespace

// Once a library has asked for Asio, Asio does the blocking: our epoll descriptor is one of its
// descriptors. Without such a library no turn pays for this.
struct EventLoop::AsioBridge {
  explicit AsioBridge(int epoll_fd) : io(1), epoll(io, epoll_fd) {}
  ~AsioBridge() { epoll.release(); }

  void Arm() {
    if (armed) return;
    armed = true;
    epoll.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                     [this](const boost::system::error_code&) { armed = false; });
  }

  boost::asio::io_context io;
  boost::asio::posix::stream_descriptor epoll;
  bool armed = false;
};

struct EventLoop::TaskTimer {
  TaskTimer(EventLoop* loop, uint32_t index)
      : index(index), deadline(loop->wheel_, [this, loop] {
          Task due = std::move(task);
          Release(loop);
          due();
        }) {}

  void Release(EventLoop* loop) {
    task = nullptr;
    ++generation;
    loop->free_timers_.push_back(index);
  }
  TimerId id() const { return TimerId{generation} << 32 | index; }

  const uint32_t index;
  uint32_t generation = 1;
  Task task;
  Deadline deadline;
};

EventLoop::EventLoop()
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      wheel_(Clock::Real()),
      read_buffer_(new char[kReadBufferBytes]),
      events_(kEventsPerTurn) {
  SLUICE_CHECK(epoll_ && wake_);
  Watch(wake_.get(), EPOLLIN, nullptr);
}

EventLoop::~EventLoop() {
  // Tasks may own what posts or cancels in its destructor: destroy them while the rest still lives.
  while (true) {
    std::vector<Task> left;
    {
      std::lock_guard lock(mutex_);
      left.swap(inbox_);
    }
    std::move(posted_.begin(), posted_.end(), std::back_inserter(left));
    posted_.clear();
    if (left.empty()) break;
  }
  for (auto& timer : timers_) Task dropped = std::move(timer->task);
}

bool EventLoop::InLoopThread() const { return current_loop == this; }

void EventLoop::Run() {
  while (true) {
    {
      std::lock_guard lock(mutex_);
      if (stopping_) {
        stopping_ = false;
        return;
      }
    }
    RunOnce(std::chrono::hours(1));
  }
}

void EventLoop::Stop() {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  Wake();
}

void EventLoop::RunOnce(Duration max_wait) {
  const EventLoop* outer = current_loop;
  current_loop = this;
  Wait(PrepareToWait(max_wait));
  for (events_next_ = 0; events_next_ < events_ready_;) {
    const epoll_event& event = events_[events_next_++];
    if (event.data.ptr != nullptr) static_cast<FdWatcher*>(event.data.ptr)->OnEvents(event.events);
  }
  events_ready_ = 0;
  RunTasks();
  wheel_.Advance(clock().Now());
  RunTurnEndHooks();
  current_loop = outer;
}

void EventLoop::Post(Task task) {
  if (InLoopThread()) {
    posted_.push_back(std::move(task));
    return;
  }
  std::lock_guard lock(mutex_);
  inbox_.push_back(std::move(task));
  if (asleep_) Wake();
}

void EventLoop::Wake() {
  asleep_ = false;
  uint64_t one = 1;
  // Fails only where the counter is full, and then the loop is awake anyway.
  [[maybe_unused]] ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

void EventLoop::RunTasks() {
  // What these tasks post runs in the next turn, so that sockets are never starved.
  running_.swap(posted_);
  {
    std::lock_guard lock(mutex_);
    if (running_.empty()) {
      running_.swap(inbox_);
    } else if (!inbox_.empty()) {
      std::move(inbox_.begin(), inbox_.end(), std::back_inserter(running_));
      inbox_.clear();
    }
  }
  for (Task& task : running_) {
    task();
    task = nullptr;
  }
  running_.clear();
}

void EventLoop::RunTurnEndHooks() {
  for (size_t i = 0; i < turn_end_.size(); ++i) {
    TurnEndHook* hook = turn_end_[i];
    if (hook == nullptr) continue;
    hook->queued_at_ = TurnEndHook::kNotQueued;
    turn_end_[i] = nullptr;
    hook->OnTurnEnd();
  }
  turn_end_.clear();
}

void EventLoop::AtTurnEnd(TurnEndHook* hook) {
  if (hook->queued_at_ != TurnEndHook::kNotQueued) return;
  hook->queued_at_ = turn_end_.size();
  turn_end_.push_back(hook);
}

void EventLoop::CancelTurnEnd(TurnEndHook* hook) {
  if (hook->queued_at_ == TurnEndHook::kNotQueued) return;
  turn_end_[hook->queued_at_] = nullptr;
  hook->queued_at_ = TurnEndHook::kNotQueued;
}

Duration EventLoop::PrepareToWait(Duration max_wait) {
  if (!posted_.empty() || !turn_end_.empty()) return Duration(0);
  Duration wait = max_wait;
  if (auto wake = wheel_.NextWake()) {
    wait = std::clamp(std::chrono::duration_cast<Duration>(*wake - clock().Now()), Duration(0),
                      max_wait);
  }
  if (wait == Duration(0)) return wait;
  std::lock_guard lock(mutex_);
  if (!inbox_.empty() || stopping_) return Duration(0);
  asleep_ = true;
  return wait;
}

void EventLoop::Wait(Duration timeout) {
  if (asio_ != nullptr) {
    asio_->io.restart();
    asio_->Arm();
    if (timeout > Duration(0)) {
      asio_->io.run_one_for(timeout);
      timeout = Duration(0);
    }
    asio_->io.poll();
  }
  timespec wait{timeout.count() / 1'000'000, timeout.count() % 1'000'000 * 1'000};
  int ready = ::epoll_pwait2(epoll_.get(), events_.data(), static_cast<int>(events_.size()), &wait,
                             nullptr);
  if (ready < 0 && errno == ENOSYS) {  // before Linux 5.11
    int ms = static_cast<int>((timeout.count() + 999) / 1000);
    ready = ::epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()), ms);
  }
  SLUICE_CHECK(ready >= 0 || errno == EINTR);
  events_ready_ = ready < 0 ? 0 : static_cast<size_t>(ready);
  for (size_t i = 0; i < events_ready_; ++i) {
    if (events_[i].data.ptr != nullptr) continue;
    uint64_t count;
    [[maybe_unused]] ssize_t got = ::read(wake_.get(), &count, sizeof(count));
    break;
  }
  std::lock_guard lock(mutex_);
  asleep_ = false;
}

TimerId EventLoop::At(MonotonicTime when, Task task) {
  if (free_timers_.empty()) {
    auto index = static_cast<uint32_t>(timers_.size());
    timers_.push_back(std::make_unique<TaskTimer>(this, index));
    free_timers_.push_back(index);
  }
  TaskTimer& timer = *timers_[free_timers_.back()];
  free_timers_.pop_back();
  timer.task = std::move(task);
  timer.deadline.Set(when);
  return timer.id();
}

bool EventLoop::Cancel(TimerId id) {
  auto index = static_cast<uint32_t>(id);
  if (id == 0 || index >= timers_.size() || timers_[index]->id() != id) return false;
  timers_[index]->deadline.Clear();
  Task dropped = std::move(timers_[index]->task);
  timers_[index]->Release(this);
  return true;
}

void EventLoop::Watch(int fd, uint32_t events, FdWatcher* watcher) {
  epoll_event event{.events = events, .data = {.ptr = watcher}};
  SLUICE_CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0);
}

void EventLoop::Rewatch(int fd, uint32_t events, FdWatcher* watcher) {
  epoll_event event{.events = events, .data = {.ptr = watcher}};
  SLUICE_CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) == 0);
}

void EventLoop::Unwatch(int fd, FdWatcher* watcher) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  for (size_t i = events_next_; i < events_ready_; ++i) {
    if (events_[i].data.ptr == watcher) events_[i].data.ptr = nullptr;
  }
}

boost::asio::io_context& EventLoop::io() {
  if (asio_ == nullptr) asio_ = std::make_unique<AsioBridge>(epoll_.get());
  return asio_->io;
}

}  // namespace sluice
