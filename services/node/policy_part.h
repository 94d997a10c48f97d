// The policy service as a running thing: its loop, its files, its admin API.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "services/config/files.h"
#include "services/config/policy_view.h"
#include "services/node/loop_thread.h"
#include "services/node/options.h"
#include "services/policy/core/policy.h"

namespace sluice::node {

// Thread-safety: the thread that made it.
class PolicyPart {
 public:
  explicit PolicyPart(const Options& options) : options_(options) {}
  ~PolicyPart();

  // INVALID_ARGUMENT with every diagnostic where the files cannot be used.
  absl::Status Start();
  // The diagnostics, or a line that says that it holds.
  std::string Reload();
  void Stop() { thread_.Stop(); }

  // For /metrics.
  struct Figures {
    uint64_t version = 0;
    uint64_t connected = 0;  // services that follow it
    uint64_t behind = 0;     // of these, those that have not this version
    uint64_t refusing = 0;   // that said why they cannot use it
    uint64_t pauses = 0;
    uint64_t owners_epoch = 0;
    uint64_t changing = 0;  // sources that change hands
    uint64_t unowned = 0;   // sources that no worker has
  };
  Figures figures();

  policy::Policy& policy() { return *policy_; }
  LoopThread& thread() { return thread_; }
  // As loaded by Start.
  std::shared_ptr<const config::PolicyView> first_view() const { return first_view_; }

 private:
  const Options& options_;
  LoopThread thread_{"policy"};
  config::DiskFiles files_;
  std::unique_ptr<policy::Policy> policy_;
  std::shared_ptr<const config::PolicyView> first_view_;
};

}  // namespace sluice::node
