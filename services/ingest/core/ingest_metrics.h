// What ingest counts, under the names that /metrics shows.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "services/ingest/core/ingest.h"

namespace sluice::ingest {

struct IngestMetric {
  std::string_view name;
  std::string_view help;
  bool is_gauge = false;  // else a counter
  uint64_t value = 0;
};

// The sum over the ingests of a process; always the same metrics in the same order. Thread-safety:
// may be called from any thread while the ingests live.
std::vector<IngestMetric> ReadMetrics(std::span<const Ingest* const> ingests);

}  // namespace sluice::ingest
