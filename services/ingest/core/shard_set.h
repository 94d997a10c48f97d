// All configured shards, and which of them gets the next message.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "services/ingest/core/shard_client.h"

namespace sluice::ingest {

// Thread-safety: none; everything on the executor. Lifetime: as ShardClient.
class ShardSet {
 public:
  // `seed` starts the random choices.
  explicit ShardSet(uint64_t seed) : random_(seed | 1) {}

  void Add(std::unique_ptr<ShardClient> shard) { shards_.push_back(std::move(shard)); }
  void Start();

  // Two random choices among the healthy shards that answer in time, or among the healthy ones
  // where none does; the one with less in front of it (Mitzenmacher, "The power of two choices",
  // 2001). Null where none is healthy.
  ShardClient* Choose();

  // The shard that owns `key` by rendezvous hashing over all configured shards (Thaler and
  // Ravishankar, 1998), healthy or not: a key seen before must meet the shard that remembers it.
  ShardClient* ForKey(std::string_view key);

  bool any_healthy() const;
  // Why none is healthy, for people.
  std::string unhealthy_reason() const;
  const std::vector<std::unique_ptr<ShardClient>>& shards() const { return shards_; }

 private:
  uint64_t Random();

  uint64_t random_;
  std::vector<std::unique_ptr<ShardClient>> shards_;
  std::vector<ShardClient*> healthy_;  // scratch space of Choose
};

}  // namespace sluice::ingest
