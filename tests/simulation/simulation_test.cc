// Proves on a few hundred seeds that nothing accepted is lost or stands still, that nothing comes
// twice without a reason, and that limits hold. tools/simulate runs many more.
#include <gtest/gtest.h>

#include "tests/simulation/cluster.h"

namespace sluice::simulation {
namespace {

// A sanitizer makes each some ten times slower.
#ifdef SLUICE_SANITIZER
constexpr uint64_t kFewer = 5;
#else
constexpr uint64_t kFewer = 1;
#endif

TEST(SimulationTest, InvariantsHoldOnEverySeed) {
  constexpr uint64_t kSeeds = 200 / kFewer;
  size_t accepted = 0;
  size_t faults = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const RunReport report = simulation::Run({.seed = seed});
    for (const std::string& failure : report.failures) {
      ADD_FAILURE() << "seed " << seed << ": " << failure;
    }
    accepted += report.accepted;
    faults += report.faults;
  }
  // The seeds do exercise something.
  EXPECT_GT(accepted, kSeeds * 10);
  EXPECT_GT(faults, kSeeds);
}

// Who may use what holds while the policy service, or the way to it, is away for minutes: shards
// stand in for it, and what changes hands waits for them.
TEST(SimulationTest, InvariantsHoldWhileThePolicyServiceIsLongAway) {
  for (uint64_t seed = 1; seed <= 60 / kFewer; ++seed) {
    const RunReport report =
        simulation::Run({.seed = seed, .policy = RunOptions::PolicyFaults::kLong});
    for (const std::string& failure : report.failures) {
      ADD_FAILURE() << "seed " << seed << ": " << failure;
    }
  }
}

// It dies and does not come back: all mail ends, also that of virtual MTAs which workers share, and
// while workers and shards are killed and come back.
TEST(SimulationTest, AllMailGoesOnWithoutThePolicyService) {
  for (uint64_t seed = 1; seed <= 60 / kFewer; ++seed) {
    const RunReport report =
        simulation::Run({.seed = seed, .policy = RunOptions::PolicyFaults::kForGood});
    for (const std::string& failure : report.failures) {
      ADD_FAILURE() << "seed " << seed << ": " << failure;
    }
  }
}

TEST(SimulationTest, ASeedGivesTheSameRunAgain) {
  const RunReport first = simulation::Run({.seed = 77});
  const RunReport second = simulation::Run({.seed = 77});
  EXPECT_EQ(first.steps, second.steps);
  EXPECT_EQ(first.taken, second.taken);
  EXPECT_EQ(first.virtual_seconds, second.virtual_seconds);
}

}  // namespace
}  // namespace sluice::simulation
