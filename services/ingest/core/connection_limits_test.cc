// Proves that places are counted in all and by network, and given back.
#include "services/ingest/core/connection_limits.h"

#include <memory>
#include <utility>

#include "gtest/gtest.h"
#include "services/ingest/testing/fake_policy.h"

namespace sluice::ingest {
namespace {

using testing::FakePolicy;

TEST(ConnectionLimits, TotalNetworkAndProcess) {
  auto policy = std::make_shared<FakePolicy>();
  policy->global_settings.set_total_max_smtp_in(3);
  policy->loopback->set_max_smtp_in(2);
  const auto local = ClientProfile::Make(policy, policy->loopback, {});
  const auto others = ClientProfile::Make(policy, policy->others, {});
  ConnectionLimits limits(100);
  ConnectionLimits::Slot a, b, c, d;
  EXPECT_FALSE(limits.Take(*local, a));
  EXPECT_FALSE(limits.Take(*local, b));
  EXPECT_EQ(limits.Take(*local, c)->enhanced, (mail::EnhancedCode{4, 7, 0}));
  EXPECT_FALSE(limits.Take(*others, c));
  EXPECT_EQ(limits.Take(*others, d)->enhanced, (mail::EnhancedCode{4, 3, 2}));
  EXPECT_EQ(limits.connections(), 3u);
  a = ConnectionLimits::Slot();
  EXPECT_FALSE(limits.Take(*local, d));
  ConnectionLimits::Slot moved = std::move(d);
  d = ConnectionLimits::Slot();
  EXPECT_EQ(limits.connections(), 3u);
  moved = ConnectionLimits::Slot();
  EXPECT_EQ(limits.connections(), 2u);

  ConnectionLimits none(0);
  EXPECT_TRUE(none.Take(*others, d));
}

}  // namespace
}  // namespace sluice::ingest
