// A shard on disk, filled and emptied in its own process: what a spool of millions costs, without
// the minutes that SMTP would take to bring them.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "tools/sink/latency_histogram.h"

namespace sluice::bench {

struct FillOptions {
  std::string data_dir;  // of a queue service; the spool is in its folder `spool`
  uint64_t messages = 1000;
  uint64_t queues = 1;  // d1.DOMAIN/VMTA, d2.DOMAIN/VMTA, ... taken in turn
  size_t size_bytes = 1024;
  std::string domain = "bench.test";
  std::string vmta = "v1";
};

struct FillResult {
  uint64_t accepted = 0;
  double seconds = 0;
};

// Enqueues through the shard's own stream, durably. Not thread-safe.
absl::StatusOr<FillResult> Fill(const FillOptions& options);

struct HeadResult {
  uint64_t delivered = 0;
  sink::LatencyHistogram first;  // from a credit to its lease, of the first `window` messages
  sink::LatencyHistogram last;   // of the last ones, behind everything that was consumed
};

// Leases and delivers everything that queue d1 holds, with `credits` outstanding.
absl::StatusOr<HeadResult> ConsumeHead(const FillOptions& options, uint64_t window,
                                       uint32_t credits);

}  // namespace sluice::bench
