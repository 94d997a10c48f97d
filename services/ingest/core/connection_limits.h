// How many clients are connected: in all, from each client network that has a limit of its own, and
// from each source group.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "services/ingest/core/client_profile.h"
#include "services/mail/server_reply.h"

namespace sluice::ingest {

// Thread-safety: all functions from any thread; shared by all loops of a process. Lifetime:
// outlives its slots.
class ConnectionLimits {
 public:
  // One connection's place; gives it back when destroyed.
  class Slot {
   public:
    Slot() = default;
    Slot(Slot&& other) noexcept { *this = std::move(other); }
    Slot& operator=(Slot&& other) noexcept;
    ~Slot() { Release(); }

   private:
    friend class ConnectionLimits;
    void Release();
    ConnectionLimits* limits_ = nullptr;
    std::string network_;  // the section that has the limit; empty: none
    std::string group_;    // in lower case; empty: none
  };

  // `max_connections`: what the process can hold, whatever policy says.
  explicit ConnectionLimits(uint64_t max_connections) : max_connections_(max_connections) {}

  // The refusal, where total-max-smtp-in, the network's max-smtp-in, the group's or the process's
  // own limit is reached. What groups have reserved and do not use counts as taken for all others.
  // After a reload the connections that stand count for the sections that they came under.
  std::optional<mail::ServerReply> Take(const ClientProfile& profile, Slot& slot);

  // A connection whose client turns out to be another one (XCLIENT), or a user, counts for that one
  // from now on; where there is no room it keeps the place that it has.
  std::optional<mail::ServerReply> Move(const ClientProfile& profile, Slot& slot);

  uint64_t connections() const;

 private:
  // The sections whose limits a client counts against.
  struct Place {
    std::string network;
    std::string group;
  };

  static Place PlaceOf(const ClientProfile& profile);
  // mutex_ is held by whoever calls these.
  std::optional<mail::ServerReply> Refusal(const ClientProfile& profile, const Place& place) const;
  void Count(const Place& place);
  void Discount(const Place& place);

  const uint64_t max_connections_;
  mutable std::mutex mutex_;
  uint64_t total_ = 0;                                     // guarded by mutex_
  absl::flat_hash_map<std::string, uint64_t> by_network_;  // guarded by mutex_
  absl::flat_hash_map<std::string, uint64_t> by_group_;    // guarded by mutex_
};

}  // namespace sluice::ingest
