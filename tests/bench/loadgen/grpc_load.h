// Injects a load by IngestService.InjectStream.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "tests/bench/loadgen/load.h"

namespace sluice::bench {

struct GrpcLoadOptions {
  std::string target;  // "127.0.0.1:7100", without TLS
  uint32_t streams = 4;
  uint32_t outstanding = 64;  // unanswered messages of a stream
};

// Sends the whole load and waits for its answers; a thread writes and one reads for each stream.
// kUnavailable where a stream broke before all its answers had come; what was unanswered then is
// not known to be accepted or not.
absl::StatusOr<LoadResult> RunGrpcLoad(const LoadOptions& load, const GrpcLoadOptions& options);

}  // namespace sluice::bench
