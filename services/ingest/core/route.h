// Where a delivery goes out.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "services/config/policy_view.h"

namespace sluice::ingest {

// Exactly one of the two is set.
struct Route {
  std::string vmta;
  std::string pool;

  bool operator==(const Route&) const = default;
};

// The virtual MTA or pool of that name.
inline std::optional<Route> LookupRoute(const config::PolicyView& policy, std::string_view name) {
  if (const auto* vmta = policy.FindVirtualMta(name)) return Route{vmta->name(), ""};
  if (const auto* pool = policy.FindPool(name)) return Route{"", pool->name()};
  return std::nullopt;
}

}  // namespace sluice::ingest
