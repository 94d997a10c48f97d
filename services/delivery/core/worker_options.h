// What a worker is made with beside its policy, and what it counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/clock.h"
#include "services/base/log/log.h"
#include "services/base/rpc/stream.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::delivery {

using DispatchClient = StreamClient<queue::v1::DispatchRequest, queue::v1::DispatchResponse>;
using FetchClient = StreamClient<queue::v1::FetchBodyRequest, queue::v1::FetchBodyResponse>;

struct WorkerOptions {
  std::string name;
  uint64_t incarnation = 0;  // grows with every start
  // Source IPs of this machine. Empty: only_listed decides.
  std::vector<std::string> addresses;
  // False: every loopback address also counts as owned.
  bool only_listed = false;
  size_t max_connections = 20'000;
  Log* log = nullptr;  // outlives the worker; none: silence
  Duration reconnect_min = std::chrono::milliseconds(50);
  Duration reconnect_max = std::chrono::seconds(5);
  // Volumes of less than this are not in the ledger: after a kill they wait their period out.
  Duration ledger_from = std::chrono::minutes(1);
  // A policy service says what this worker may use: until it has spoken, nothing. False: it may use
  // all sources that it has (there is no other worker).
  bool follows_owners = false;
};

struct ShardAddress {
  std::string name;
  DispatchClient* dispatch = nullptr;
  FetchClient* fetch = nullptr;
};

struct WorkerStats {
  uint64_t delivered = 0;
  uint64_t transient = 0;
  uint64_t permanent = 0;
  uint64_t connects = 0;
  uint64_t connect_failures = 0;
  uint64_t reused = 0;  // connections that went from one queue to another
  uint64_t returned = 0;
  uint64_t private_refused = 0;  // addresses
  uint64_t tls_waived = 0;       // times that queues went on without a receiver's TLS policy
};

}  // namespace sluice::delivery
