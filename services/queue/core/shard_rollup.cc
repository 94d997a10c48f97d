// Queues of domains that <mx-rollup-list> puts together by their MX, which workers look up: they
// have one owner, and the settings of the rollup's name.
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "services/config/domain_pattern.h"
#include "services/config/queue_mark.h"
#include "services/queue/core/shard.h"
#include "services/queue/core/shard_sessions.h"

namespace sluice::queue {
namespace {

// A queue comes to a rollup at once, and does not leave it sooner: workers whose resolvers disagree
// would pass it to and fro, and what they agree on is that it may be one of the rollup's.
constexpr int64_t kLeastUs = 60 * int64_t{1'000'000};

// Of the queue whose limits and owner it has: its own, or the one beside which it stands.
std::string_view NameOfLimits(const Queue& queue) {
  return config::IsTlsOptional(queue.name) ? config::WithoutMark(queue.name)
                                           : std::string_view(queue.name);
}

}  // namespace

bool Shard::IsRollup(std::string_view name) const {
  for (const auto& entry : policy_->mx_rollup().entries()) {
    if (entry.queue() == name) return true;
  }
  return false;
}

std::string Shard::OwnerKey(const Queue& queue) {
  if (queue.rollup == nullptr) return std::string(NameOfLimits(queue));
  return absl::StrCat(*queue.rollup, "/", std::string(queue.vmta()));
}

bool Shard::IsNamed(const Queue& queue, std::string_view pattern) {
  if (pattern.empty()) return false;
  return config::WildcardMatches(pattern, queue.name) ||
         (config::IsTlsOptional(queue.name) &&
          config::WildcardMatches(pattern, NameOfLimits(queue))) ||
         (queue.rollup != nullptr && config::WildcardMatches(pattern, OwnerKey(queue)));
}

const policy::v1::ControlEntry* Shard::PauseOf(const Queue& queue, std::string_view job_id) const {
  const auto* pause = policy_->FindPause(queue.name, job_id);
  if (pause == nullptr && config::IsTlsOptional(queue.name)) {
    pause = policy_->FindPause(NameOfLimits(queue), job_id);
  }
  if (pause == nullptr && queue.rollup != nullptr) {
    pause = policy_->FindPause(OwnerKey(queue), job_id);
  }
  return pause;
}

void Shard::SetRollup(Queue& queue, const std::string* name) {
  queue.rollup = name;
  queue.rollup_since_us = NowUs();
  queue.settings_version = UINT64_MAX;  // other settings hold now
  TouchRow(queue);
  RefreshPause(queue);
}

void Shard::OnRollup(WorkerSession& session, const v1::QueueRollup& said) {
  const auto found = refs_.find(said.queue_ref());
  if (found == refs_.end() || found->second->session != &session) return;
  Queue& queue = *found->second;
  queue.rollup_wish = said.rollup().empty() ? nullptr : queues_.Shared(said.rollup());
  Offer(queue);
}

void Shard::HeedRollup(Queue& queue) {
  const std::string* const wish = queue.rollup_wish;
  if (queue.session == nullptr || wish == queue.rollup) return;
  if (wish != nullptr && !IsRollup(*wish)) return;  // of a policy that has not come here yet
  const int64_t until_us = queue.rollup_since_us + kLeastUs;
  if (queue.rollup != nullptr && NowUs() < until_us) {
    Wake(queue, until_us);
    return;
  }
  SetRollup(queue, wish);
  if (MayServe(*queue.session, queue)) {
    Announce(queue);
  } else {
    Release(queue, true);
  }
}

bool Shard::DropRollups() {
  bool any = false;
  absl::flat_hash_map<const std::string*, bool> listed;  // each name once
  for (const auto& [name, queue] : queues_.all()) {
    if (queue->rollup == nullptr) continue;
    const auto [entry, fresh] = listed.try_emplace(queue->rollup, false);
    if (fresh) entry->second = IsRollup(*queue->rollup);
    if (entry->second) continue;
    SetRollup(*queue, nullptr);
    any = true;
  }
  return any;
}

}  // namespace sluice::queue
