#include "services/ingest/core/shard_set.h"

#include <algorithm>

namespace sluice::ingest {
namespace {

// FNV-1a with a final mix: the same on every machine and in every release, as rendezvous needs.
uint64_t StableHash(std::string_view a, std::string_view b) {
  uint64_t h = 0xcbf29ce484222325;
  const auto add = [&h](std::string_view s) {
    for (char c : s) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    h = (h ^ 0xff) * 0x100000001b3;
  };
  add(a);
  add(b);
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccd;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53;
  return h ^ (h >> 33);
}

}  // namespace

void ShardSet::Start() {
  for (const auto& shard : shards_) shard->Start();
}

uint64_t ShardSet::Random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

ShardClient* ShardSet::Choose() {
  if (shards_.size() == 1) return shards_[0]->healthy() ? shards_[0].get() : nullptr;
  healthy_.clear();
  for (const auto& shard : shards_) {
    if (shard->healthy()) healthy_.push_back(shard.get());
  }
  if (healthy_.size() > 1) {
    const auto stalled = std::partition(healthy_.begin(), healthy_.end(),
                                        [](const ShardClient* shard) { return !shard->stalled(); });
    if (stalled != healthy_.begin()) healthy_.erase(stalled, healthy_.end());
  }
  if (healthy_.size() < 2) return healthy_.empty() ? nullptr : healthy_[0];
  const size_t first = Random() % healthy_.size();
  size_t second = Random() % (healthy_.size() - 1);
  if (second >= first) ++second;
  ShardClient* const a = healthy_[first];
  ShardClient* const b = healthy_[second];
  return a->load() <= b->load() ? a : b;
}

ShardClient* ShardSet::ForKey(std::string_view key) {
  ShardClient* best = nullptr;
  uint64_t best_weight = 0;
  for (const auto& shard : shards_) {
    const uint64_t weight = StableHash(key, shard->name());
    if (best == nullptr || weight > best_weight) {
      best = shard.get();
      best_weight = weight;
    }
  }
  return best;
}

bool ShardSet::any_healthy() const {
  return std::any_of(shards_.begin(), shards_.end(),
                     [](const auto& shard) { return shard->healthy(); });
}

std::string ShardSet::unhealthy_reason() const {
  if (shards_.empty()) return "no shard is configured";
  std::string reason;
  for (const auto& shard : shards_) {
    if (!reason.empty()) reason += "; ";
    reason += shard->name() + ": " + shard->unhealthy_reason();
  }
  return reason;
}

}  // namespace sluice::ingest
