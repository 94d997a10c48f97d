// What shards have said of the table of owners that they keep to. Shards stand in for the policy
// service while a worker cannot reach it (SourceVouch); so nothing may be given to another worker
// while a worker could still find enough of them that know of no later table.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "services/base/clock.h"

namespace sluice::policy {

// Thread-safety: one thread. Failure: a shard that says nothing counts as one that vouches for
// everything.
class LeaseWitnesses {
 public:
  // `shard` will vouch for no table before `epoch`, whatever happens to it.
  void OnReport(const std::string& shard, uint64_t epoch, MonotonicTime now);
  // The last that it said; 0: nothing.
  uint64_t EpochOf(const std::string& shard) const;
  // What was vouched for of tables before `epoch` ended `since` at the latest: enough of
  // `witnesses` had said so then. True where there are none.
  bool Fenced(const std::vector<std::string>& witnesses, uint64_t epoch, MonotonicTime since) const;

 private:
  struct Kept {
    uint64_t epoch;
    MonotonicTime since;
  };
  std::map<std::string, std::deque<Kept>> shards_;  // in order of epoch
};

}  // namespace sluice::policy
