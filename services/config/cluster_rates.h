// The fields of <limits>: three rates, each over a domain's mail of everybody, of a pool, or of a
// virtual MTA.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "sluice/policy/v1/settings.pb.h"

namespace sluice::config {

// Whose mail to the domain counts together.
enum class Span : uint8_t { kDomain, kPool, kBinding };

struct ClusterRateLine {
  Span span = Span::kDomain;
  std::string_view directive;  // throttle, error-throttle, defer-throttle
  const policy::v1::ClusterRate* said = nullptr;
};

// nullptr where there is no such directive. Thread-safety of all: any.
const google::protobuf::FieldDescriptor* ClusterRateField(Span span, std::string_view directive);
// Those that are said; they live as long as `settings`.
std::vector<ClusterRateLine> ClusterRates(const policy::v1::QueueSettings& settings);

}  // namespace sluice::config
