#include "services/node/loop_thread.h"

#include <pthread.h>

namespace sluice::node {

void LoopThread::Start() {
  if (running()) return;
  thread_ = std::thread([this] { loop_.Run(); });
  // The kernel keeps 15 characters.
  pthread_setname_np(thread_.native_handle(), name_.substr(0, 15).c_str());
}

void LoopThread::Stop() {
  if (!running()) return;
  loop_.Stop();
  thread_.join();
}

}  // namespace sluice::node
