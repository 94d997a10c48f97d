// What shards have said of the table of owners that they keep to. Shards stand in for the policy
// service while a worker cannot reach it (SourceVouch); so nothing may be given to another worker
// while a worker could still find enough of them that know of no later table. Shards of a release
// before that vouch for nothing: where enough of them are connected, mail need not wait for theirs.
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
  // A process of a release that knows of no table runs there since `now`: it vouches for nothing.
  // What one of this release ever kept to may be on its disk still, so then this says nothing.
  void OnOldRelease(const std::string& shard, MonotonicTime now);
  // It is not known any more what runs there.
  void OnGone(const std::string& shard) { old_since_.erase(shard); }
  bool IsOld(const std::string& shard) const { return old_since_.contains(shard); }
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
  std::map<std::string, MonotonicTime> old_since_;  // of an old release, since then
};

}  // namespace sluice::policy
