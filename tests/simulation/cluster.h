// One run: ingest, shards and workers over a network with faults, clients that inject, remote sites
// that misbehave, and a ledger of what must hold.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::simulation {

struct RunOptions {
  uint64_t seed = 1;
  bool verbose = false;
  enum class PolicyFaults : uint8_t {
    kSome,
    kLong,     // it is away for minutes, again and again
    kForGood,  // it dies when all is set up, and never comes back: all mail goes on without it
  };
  PolicyFaults policy = PolicyFaults::kSome;
};

struct RunReport {
  uint64_t seed = 0;
  std::vector<std::string> failures;  // empty: all invariants held
  size_t accepted = 0;                // recipients
  size_t taken = 0;                   // transmissions that sites took
  size_t duplicates = 0;
  size_t reported = 0;  // recipients of which the sender got a report
  size_t faults = 0;
  uint64_t steps = 0;
  double virtual_seconds = 0;
};

// Everything that happens follows from the seed. Thread-safety: runs share nothing.
RunReport Run(const RunOptions& options);

}  // namespace sluice::simulation
