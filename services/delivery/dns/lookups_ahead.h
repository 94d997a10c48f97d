// Looks up the MX of domains that the configuration names before their mail comes, and again and
// again, so that the first message after a quiet time does not wait for DNS (precached-... of
// <dns>).
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "services/base/executor.h"
#include "services/delivery/dns/mx_resolver.h"
#include "sluice/policy/v1/settings.pb.h"

namespace sluice::delivery {

// Thread-safety: the executor's thread. Lifetime: the executor outlives it, and so does what
// `refresh` needs.
class LookupsAhead {
 public:
  // As CachingMxResolver::Refresh.
  using Refresh =
      std::function<void(const std::string& domain, MonotonicTime until, MxResolver::Done done)>;

  LookupsAhead(Executor& executor, Refresh refresh);
  ~LookupsAhead();
  LookupsAhead(const LookupsAhead&) = delete;
  LookupsAhead& operator=(const LookupsAhead&) = delete;

  // The first round of other domains begins at once.
  void SetPolicy(const policy::v1::GlobalSettings& settings);

 private:
  void Round();
  void Next();

  Executor& executor_;
  const Refresh refresh_;
  std::vector<std::string> domains_;
  Duration interval_{};
  std::deque<std::string> left_;  // of this round
  size_t under_way_ = 0;
  TimerId timer_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::delivery
