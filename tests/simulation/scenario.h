// What one seed makes of the surroundings: how each remote site misbehaves, and what the policy
// says.
#pragma once

#include <memory>

#include "services/config/policy_view.h"
#include "sluice/policy/v1/snapshot.pb.h"
#include "tests/simulation/ledger.h"
#include "tests/simulation/remote_site.h"
#include "tests/simulation/world.h"

namespace sluice::simulation {

// Recipients' domains are d0.test ... d5.test.
constexpr int kDomains = 6;

struct ScenarioPolicy {
  std::shared_ptr<const config::PolicyView> view;
  policy::v1::PolicySnapshot
      snapshot;  // the same, in the order and with the hashes that services compare
};

// Sites and their rules. Lifetime: `world` and `ledger` outlive `internet`.
void BuildInternet(World& world, Ledger& ledger, Internet& internet);

// Settings, virtual MTAs and limits; the ledger is told of the limits.
ScenarioPolicy BuildPolicy(Random& random, Ledger& ledger);

// Another configuration: other limits for the queues of some domain.
void ChangeLimits(World& world, Ledger& ledger, policy::v1::PolicySnapshot* snapshot);

}  // namespace sluice::simulation
