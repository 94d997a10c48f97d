// Lines of queues before a limit of their whole virtual MTA: what the shard hears of them, so that
// it announces only so many, and that each gets its turn.
#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using testing::World;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;

// Announces a queue of a site of its own.
void Announce(World& world, uint64_t ref, uint32_t due) {
  const std::string domain = "d" + std::to_string(ref) + ".test";
  world.resolver.answers[domain] = world.resolver.answer;
  world.resolver.answers[domain].site = domain;
  world.shard().Ready(ref, due, 0, domain);
  world.executor.RunPosted();
}

void OneConnection(policy::v1::VirtualMtaSection& vmta) { vmta.set_max_smtp_out(1); }

TEST(WorkerLine, AQueueSaysThatItStandsInLineAndThatItHasLeftIt) {
  World world(OneConnection);
  for (uint64_t ref : {1, 2, 3}) Announce(world, ref, 1);
  world.GreetAll();
  queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.blocked_size(), 2);
  for (int i : {0, 1}) {
    EXPECT_EQ(said.blocked(i).queue_ref(), static_cast<uint64_t>(i) + 2);
    EXPECT_EQ(said.blocked(i).limit(), "max-smtp-out 1 (virtual MTA)");
    EXPECT_TRUE(said.blocked(i).in_line());
  }
  // The first one's connection ends; the next in line connects, and that is no credit yet.
  world.shard().Lease(1, 1);
  world.sites.open[0]->Answer(kDelivered);
  world.sites.open[0]->Close(true);
  said = world.Take();
  ASSERT_EQ(world.sites.open.size(), 1u);
  ASSERT_EQ(said.blocked_size(), 1);
  EXPECT_EQ(said.blocked(0).queue_ref(), 2u);
  EXPECT_EQ(said.blocked(0).limit(), "");
  EXPECT_FALSE(said.blocked(0).in_line());
}

TEST(WorkerLine, ALimitOfOneSourceHoldsAllOnlyWhereThereIsNoOther) {
  World world([](auto&) {}, [](policy::v1::SourceSettings& source) { source.set_max_smtp_out(1); });
  for (uint64_t ref : {1, 2}) Announce(world, ref, 1);
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.blocked_size(), 1);
  EXPECT_TRUE(said.blocked(0).in_line());
}

TEST(WorkerLine, AnotherShardOfAQueueInLineHearsOfItToo) {
  World world(OneConnection, nullptr, 2);
  for (uint64_t ref : {1, 2}) Announce(world, ref, 1);
  world.shards[1]->Ready(9, 1, 0, "d2.test");
  world.executor.RunPosted();
  const queue::v1::DispatchRequest said = world.shards[1]->Take();
  ASSERT_EQ(said.blocked_size(), 1);
  EXPECT_EQ(said.blocked(0).queue_ref(), 9u);
  EXPECT_TRUE(said.blocked(0).in_line());
}

// Whatever goes on meanwhile: what has waited for the longest has the next place.
TEST(WorkerLine, AMomentWithoutWorkDoesNotPutTheFirstBehindTheOthers) {
  World world(OneConnection);
  Announce(world, 1, 100);
  for (uint64_t ref : {2, 3, 4}) Announce(world, ref, 1);
  world.GreetAll();
  for (uint64_t id : {1, 2, 3, 4}) {
    world.shard().Lease(id, 1);
    world.executor.RunPosted();
    world.sites.open[0]->Answer(kDelivered);
    world.executor.RunPosted();
  }
  for (uint64_t ref : {2, 3, 4}) {
    world.sites.open[0]->Close(true);
    world.executor.RunPosted();
    ASSERT_EQ(world.sites.open.size(), 1u);
    EXPECT_EQ(world.sites.open[0]->target.route.domain, "d" + std::to_string(ref) + ".test");
  }
}

// There may be others at the shard that had none: the line's end is kept there.
TEST(WorkerLine, BehindALongLineAQueueGoesBackToItsShardAfterItsTurn) {
  for (const uint64_t others : {10, 1100}) {
    World world(OneConnection);
    for (uint64_t ref = 1; ref <= others + 1; ++ref) Announce(world, ref, 100);
    world.GreetAll();
    world.Take();
    world.shard().Lease(1, 1);
    world.sites.open[0]->Answer(kDelivered);
    world.sites.open[0]->Close(true);
    const queue::v1::DispatchRequest said = world.Take();
    bool released = false;
    for (const auto& revoke : said.revokes()) {
      released |= revoke.queue_ref() == 1 && revoke.released();
    }
    EXPECT_EQ(released, others > 1000) << others;
  }
}

}  // namespace
}  // namespace sluice::delivery
