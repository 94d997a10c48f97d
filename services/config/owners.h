// Which worker may use which source and which queue, as the policy service's table says. Shards ask
// it where to send a queue; workers ask it what is theirs, and that alone makes limits hold: a
// queue has at most one owner at any moment, whatever each process happens to know.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// Thread-safety: immutable. Lifetime: shared. Failure: entries that name no worker are nobody's.
class Owners {
 public:
  static std::shared_ptr<const Owners> Build(policy::v1::OwnersTable table);

  uint64_t epoch() const { return table_.epoch(); }
  const policy::v1::OwnersTable& table() const { return table_; }

  // The only worker that may have this queue ("domain/vmta"), or "" while it changes hands, or
  // where nobody has the virtual MTA.
  std::string_view OwnerOf(std::string_view queue, std::string_view vmta) const;
  // Only within the policy service's lease.
  bool Leased(std::string_view vmta) const;
  // What `worker` has of a limit over all queues of the virtual MTA.
  enum class Part : uint8_t { kNone, kOfItsSources, kAll };
  Part PartOf(std::string_view worker, std::string_view vmta) const;
  // Whether `worker` may connect from `ip`: nobody else may, for any virtual MTA.
  bool MayUseSource(std::string_view worker, std::string_view ip) const;
  // Whether it may be given to another worker without a word of its owner, whose lease is over: all
  // virtual MTAs that have it are leased.
  bool SourceLeased(std::string_view ip) const;
  // Of `shards` that witness: so many may stand in for the policy service, and where so many keep
  // to a later table, no worker finds enough of them for an earlier one. Together they are one more
  // than there are.
  static size_t VouchesNeeded(size_t shards) { return shards / 2 + 1; }
  static size_t FencesNeeded(size_t shards) { return shards - shards / 2; }
  // Which of the workers of `hosts` has the queue: highest random weight, one chance for each host.
  // nullptr where there are none. The same in every process.
  static const policy::v1::HostOwner* Choose(
      const policy::v1::OwnersTable& table,
      const google::protobuf::RepeatedPtrField<policy::v1::HostOwner>& hosts, std::string_view key);

 private:
  struct Source {
    uint32_t worker = 0;
    bool shared = false;  // changes hands
    bool leased = true;
  };
  const policy::v1::VmtaOwners* Find(std::string_view vmta) const;

  policy::v1::OwnersTable table_;
  absl::flat_hash_map<std::string, const policy::v1::VmtaOwners*> vmtas_;  // lower case
  absl::flat_hash_map<std::string, Source> sources_;
};

}  // namespace sluice::config
