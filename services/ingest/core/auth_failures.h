// Who fails to authenticate, by client network: how long the next failure waits for its answer, and
// when a network may not try for now.
#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "services/base/clock.h"
#include "sluice/policy/v1/settings.pb.h"

namespace sluice::ingest {

// A network is a /24 of IPv4, a /64 of IPv6. At most `max_networks` are remembered; the one that
// was quiet for longest is forgotten. Thread-safety: any thread; shared by all loops of a process.
class AuthFailures {
 public:
  explicit AuthFailures(size_t max_networks = 10'000) : max_networks_(max_networks) {}

  // An exchange begins: it counts as a failure until OnSuccess. False where `rate` has no room: in
  // no half-open window of its period more than `count` fail. Unset or unlimited: always true.
  bool Begin(std::string_view client_ip, const policy::v1::Rate& rate, MonotonicTime now);
  // How long the answer to this failure waits: 1 s, doubling up to 16 s while failures come less
  // than ten minutes apart.
  Duration OnFailure(std::string_view client_ip, MonotonicTime now);
  // What Begin counted at `begun` was none.
  void OnSuccess(std::string_view client_ip, const policy::v1::Rate& rate, MonotonicTime begun);

  size_t networks() const;
  // The name of a client's network.
  static std::string NetworkOf(std::string_view client_ip);

 private:
  struct Network {
    std::list<std::string>::iterator place;
    MonotonicTime window_start{};
    uint64_t in_window = 0;
    uint64_t in_last_window = 0;  // the one that ended at window_start
    uint32_t streak = 0;
    MonotonicTime last_failure{};
  };
  Network& Touch(std::string_view client_ip);

  const size_t max_networks_;
  mutable std::mutex mutex_;
  std::list<std::string> by_age_;  // front: the one that was quiet for longest
  absl::flat_hash_map<std::string, Network> networks_;
};

}  // namespace sluice::ingest
