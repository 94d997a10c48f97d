#include "services/policy/core/lease_witnesses.h"

#include <algorithm>

#include "services/config/owners.h"

namespace sluice::policy {
namespace {

constexpr size_t kMostKept = 1'000;  // of a shard: the oldest ones say what the later ones say

}  // namespace

void LeaseWitnesses::OnReport(const std::string& shard, uint64_t epoch, MonotonicTime now) {
  old_since_.erase(shard);
  std::deque<Kept>& kept = shards_[shard];
  // It lost its disk: what it promised is worth nothing.
  if (!kept.empty() && epoch < kept.back().epoch) kept.clear();
  if (!kept.empty() && epoch == kept.back().epoch) return;
  kept.push_back({epoch, now});
  if (kept.size() > kMostKept) kept.pop_front();
}

void LeaseWitnesses::OnOldRelease(const std::string& shard, MonotonicTime now) {
  if (!shards_.contains(shard)) old_since_.emplace(shard, now);
}

uint64_t LeaseWitnesses::EpochOf(const std::string& shard) const {
  const auto found = shards_.find(shard);
  return found == shards_.end() || found->second.empty() ? 0 : found->second.back().epoch;
}

bool LeaseWitnesses::Fenced(const std::vector<std::string>& witnesses, uint64_t epoch,
                            MonotonicTime since) const {
  if (witnesses.empty()) return true;
  size_t enough = 0;
  for (const std::string& shard : witnesses) {
    if (const auto old = old_since_.find(shard); old != old_since_.end()) {
      enough += old->second <= since;
      continue;
    }
    const auto found = shards_.find(shard);
    if (found == shards_.end()) continue;
    enough += std::any_of(found->second.begin(), found->second.end(), [&](const Kept& kept) {
      return kept.epoch >= epoch && kept.since <= since;
    });
  }
  return enough >= config::Owners::FencesNeeded(witnesses.size());
}

}  // namespace sluice::policy
