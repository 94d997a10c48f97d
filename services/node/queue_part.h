// A queue shard as a running thing: its store on disk, its writer, its loop.
#pragma once

#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "services/config/policy_view.h"
#include "services/node/loop_thread.h"
#include "services/node/options.h"
#include "services/queue/core/shard.h"
#include "services/queue/io/writer_thread.h"

namespace sluice::node {

// Thread-safety: the thread that made it. Lifetime: destroyed after everything that streams to it.
class QueuePart {
 public:
  explicit QueuePart(const Options& options) : options_(options) {}
  ~QueuePart();

  // Parts of the spool's cache; before Start.
  void set_cache_shards(uint32_t shards) { cache_shards_ = shards; }
  // Opens the spool, makes its folder where absent, and reads its small rows; the loop runs
  // afterwards.
  absl::Status Start(const std::string& spool_folder,
                     absl::AnyInvocable<void(const absl::Status&)> on_failed);
  void SetPolicy(std::shared_ptr<const config::PolicyView> policy);
  // Leases and accepts nothing more; returns when what was under way is durable.
  void Drain();
  void Stop() { thread_.Stop(); }

  queue::Shard& shard() { return *shard_; }
  EventLoop& loop() { return thread_.loop(); }
  LoopThread& thread() { return thread_; }

 private:
  const Options& options_;
  uint32_t cache_shards_ = 0;
  LoopThread thread_{"queue"};
  std::unique_ptr<queue::Store> store_;
  std::unique_ptr<queue::WriterThread> writer_;
  std::unique_ptr<queue::Shard> shard_;
};

}  // namespace sluice::node
