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

  // A limit of one network does not count another's clients, nor is it lost by a reload.
  auto reloaded = std::make_shared<FakePolicy>();
  reloaded->loopback->set_max_smtp_in(2);
  const auto local_again = ClientProfile::Make(reloaded, reloaded->loopback, {});
  EXPECT_FALSE(limits.Take(*local_again, d));
  EXPECT_TRUE(limits.Take(*local_again, moved));
  reloaded->others->set_max_smtp_in(2);
  reloaded->others->set_max_smtp_in_scope("192.0.2.0/24");
  EXPECT_FALSE(limits.Take(*ClientProfile::Make(reloaded, reloaded->others, {}), moved));
  d = ConnectionLimits::Slot();

  ConnectionLimits none(0);
  EXPECT_TRUE(none.Take(*others, d));
}

TEST(ConnectionLimits, GroupsShareTheirLimitAndKeepWhatIsReserved) {
  auto policy = std::make_shared<FakePolicy>();
  policy->global_settings.set_total_max_smtp_in(4);
  policy::v1::SourceGroupSection group;
  group.set_name("Partners");
  group.set_max_smtp_in(3);
  group.set_reserved_smtp_in(2);
  policy->groups.push_back(&group);
  policy->loopback->set_source_group("partners");
  const auto partner = ClientProfile::Make(policy, policy->loopback, {});
  const auto other = ClientProfile::Make(policy, policy->others, {});
  ConnectionLimits limits(100);
  ConnectionLimits::Slot slots[6];
  EXPECT_FALSE(limits.Take(*other, slots[0]));
  EXPECT_FALSE(limits.Take(*other, slots[1]));
  // Two of four are the group's.
  EXPECT_EQ(limits.Take(*other, slots[2])->enhanced, (mail::EnhancedCode{4, 3, 2}));
  EXPECT_FALSE(limits.Take(*partner, slots[2]));
  EXPECT_FALSE(limits.Take(*partner, slots[3]));
  EXPECT_EQ(limits.Take(*partner, slots[4])->enhanced, (mail::EnhancedCode{4, 3, 2}));
  slots[0] = ConnectionLimits::Slot();
  EXPECT_FALSE(limits.Take(*partner, slots[4]));
  slots[1] = ConnectionLimits::Slot();
  // Its own limit comes before the total.
  EXPECT_EQ(limits.Take(*partner, slots[5])->enhanced, (mail::EnhancedCode{4, 7, 0}));
  EXPECT_FALSE(limits.Take(*other, slots[5]));
}

// XCLIENT: the proxy's place goes to its client's network, and stays the proxy's where that is
// full.
TEST(ConnectionLimits, AConnectionMovesToItsClientsNetwork) {
  auto policy = std::make_shared<FakePolicy>();
  policy->global_settings.set_total_max_smtp_in(3);
  policy->loopback->set_max_smtp_in(2);
  policy->loopback->set_max_smtp_in_scope("127.0.0.0/8");
  policy->others->set_max_smtp_in(1);
  policy->others->set_max_smtp_in_scope("192.0.2.0/24");
  const auto proxy = ClientProfile::Make(policy, policy->loopback, {});
  const auto client = ClientProfile::Make(policy, policy->others, {});
  ConnectionLimits limits(100);
  ConnectionLimits::Slot a, b, c, d;
  EXPECT_FALSE(limits.Take(*proxy, a));
  EXPECT_FALSE(limits.Take(*proxy, b));
  EXPECT_FALSE(limits.Move(*client, a));
  EXPECT_FALSE(limits.Take(*proxy, c));  // there is room again
  // The total is reached, which is no reason: it is in it already.
  EXPECT_FALSE(limits.Move(*client, a));
  EXPECT_EQ(limits.Move(*client, b)->enhanced, (mail::EnhancedCode{4, 7, 0}));
  EXPECT_EQ(limits.connections(), 3u);
  a = ConnectionLimits::Slot();
  EXPECT_TRUE(limits.Take(*proxy, d));  // b and c
  EXPECT_FALSE(limits.Move(*client, b));
  EXPECT_FALSE(limits.Move(*client, d));  // has no place: gets none
  EXPECT_EQ(limits.connections(), 2u);
  EXPECT_FALSE(limits.Take(*proxy, d));
}

}  // namespace
}  // namespace sluice::ingest
