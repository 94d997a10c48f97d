// Receivers and name servers that hang cost their own queues' time, and not the others'.
#include <string>

#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::FakeSites;
using testing::World;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;

std::string Domain(uint64_t ref) { return "d" + std::to_string(ref) + ".test"; }

// Announces queues of sites of their own.
void Announce(World& world, uint64_t first, uint64_t last) {
  for (uint64_t ref = first; ref <= last; ++ref) {
    world.resolver.answers[Domain(ref)] = world.resolver.answer;
    world.resolver.answers[Domain(ref)].site = Domain(ref);
    world.shard().Ready(ref, 1, 0, Domain(ref));
    world.executor.RunPosted();
  }
}

void Connections(policy::v1::VirtualMtaSection& vmta, uint32_t most) {
  vmta.set_max_smtp_out(most);
}

// The one to that host for the queue, or nullptr.
FakeSites::Remote* To(World& world, uint64_t ref, const std::string& host) {
  for (FakeSites::Remote* remote : world.sites.open) {
    if (remote->target.route.domain == Domain(ref) && remote->target.host == host) return remote;
  }
  return nullptr;
}

// Else the shard, which waits for so many answers at once, announces nothing more before the
// timeout of the connection.
TEST(WorkerHang, AnAnnouncementIsAnsweredAfterASecondWhileItsConnectionHangs) {
  World world;
  Announce(world, 1, 3);
  EXPECT_EQ(world.Take().blocked_size(), 0) << "most are there by then";
  world.GreetAll();
  EXPECT_EQ(testing::Groups(world.Take()), 6u);
  Announce(world, 4, 6);
  world.executor.Advance(milliseconds(1100));
  queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.blocked_size(), 3);
  for (int i : {0, 1, 2}) {
    EXPECT_EQ(said.blocked(i).queue_ref(), static_cast<uint64_t>(i) + 4);
    EXPECT_EQ(said.blocked(i).limit(), "connects to mx1 [192.0.2.1]");
    EXPECT_FALSE(said.blocked(i).in_line());
  }
  EXPECT_EQ(world.worker->Status(false).blocked_size(), 3);
  world.executor.Advance(seconds(5));
  EXPECT_EQ(world.Take().blocked_size(), 0) << "once";
  world.GreetAll();
  EXPECT_EQ(testing::Groups(world.Take()), 6u);
  EXPECT_EQ(world.worker->Status(false).blocked_size(), 0);
}

TEST(WorkerHang, AndWhileItsLookupHangsButNotOfAnyNumber) {
  World world;
  world.resolver.hold = true;
  Announce(world, 1, 4100);
  world.executor.Advance(milliseconds(1100));
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.blocked_size(), 4096);
  EXPECT_EQ(said.blocked(7).limit(), "looks up the hosts of d8.test");
  for (int i = 0; i < 3; ++i) world.resolver.AnswerOldest();
  world.executor.Advance(milliseconds(1100));
  EXPECT_EQ(world.Take().blocked_size(), 3) << "as many as have ended";
}

// Both places are promised to the first shard, which has not used them.
TEST(WorkerHang, AndWhileAnotherShardHasAllPlaces) {
  World world([](auto&) {}, nullptr, 2);
  world.shards[0]->Ready(1, 1, 0, "example.org");
  world.executor.RunPosted();
  world.GreetAll();
  ASSERT_EQ(testing::Groups(world.Take()), 2u);
  world.shards[1]->Ready(9, 100, 0, "example.org");
  world.executor.RunPosted();
  world.executor.Advance(milliseconds(1100));
  const queue::v1::DispatchRequest said = world.shards[1]->Take();
  ASSERT_EQ(said.blocked_size(), 1);
  EXPECT_EQ(said.blocked(0).queue_ref(), 9u);
}

TEST(WorkerHang, OfALimitThatOthersWaitForHalfIsLeftToConnectionsThatHang) {
  World world([](auto& vmta) { Connections(vmta, 4); });
  Announce(world, 1, 4);
  world.executor.Advance(seconds(1));
  Announce(world, 5, 9);
  ASSERT_EQ(world.sites.open.size(), 4u);
  world.Take();
  world.executor.Advance(milliseconds(9500));
  // The last two gave their places up.
  for (uint64_t ref : {1, 2}) EXPECT_NE(To(world, ref, "mx1"), nullptr) << ref;
  for (uint64_t ref : {3, 4}) EXPECT_EQ(To(world, ref, "mx1"), nullptr) << ref;
  for (uint64_t ref : {5, 6}) EXPECT_NE(To(world, ref, "mx1"), nullptr) << ref;
  queue::v1::DispatchRequest said = world.Take();
  EXPECT_EQ(said.failures_size(), 0);
  size_t in_line = 0;
  for (const auto& blocked : said.blocked()) in_line += blocked.in_line() ? 1 : 0;
  EXPECT_EQ(in_line, 2u) << "they wait for another turn";
  // Those that answer give theirs to the next ones, and in the end to the first ones' next host.
  for (uint64_t ref : {5, 6, 7, 8, 9}) {
    FakeSites::Remote* remote = To(world, ref, "mx1");
    ASSERT_NE(remote, nullptr) << ref;
    remote->handler->OnReady();
    world.executor.RunPosted();
    world.shard().Lease(ref, ref);
    remote->Answer(kDelivered);
    remote->Close(true);
    world.executor.RunPosted();
  }
  for (uint64_t ref : {3, 4}) EXPECT_NE(To(world, ref, "mx2"), nullptr) << ref;
  world.executor.Advance(seconds(60));
  for (uint64_t ref : {1, 2}) EXPECT_NE(To(world, ref, "mx1"), nullptr) << "nobody waits";
}

TEST(WorkerHang, WithoutANextHostTheQueueFailsAndSaysWhy) {
  World world([](auto& vmta) { Connections(vmta, 1); });
  world.resolver.answer.hosts.resize(1);
  Announce(world, 1, 2);
  world.executor.Advance(seconds(29));
  EXPECT_NE(To(world, 1, "mx1"), nullptr) << "the only place there is";
  world.Take();
  world.executor.Advance(seconds(2));
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.failures_size(), 1);
  EXPECT_EQ(said.failures(0).queue_ref(), 1u);
  EXPECT_EQ(
      said.failures(0).reply().text(),
      "no connection within 30 s, while 1 other queues wait for max-smtp-out 1 (virtual MTA)");
  EXPECT_EQ(said.failures(0).reply().ip(), "192.0.2.1");
  EXPECT_FALSE(said.failures(0).permanent());
  EXPECT_NE(To(world, 2, "mx1"), nullptr);
}

// Its hosts are looked up anew meanwhile, so that each turn begins with the first one.
TEST(WorkerHang, TurnsOfAQueueThatAreGivenUpHaveAnEnd) {
  World world([](auto& vmta) { Connections(vmta, 2); });
  for (uint64_t ref : {1, 2, 3, 4, 5}) Announce(world, ref, ref);
  int failures = 0;
  for (int i = 0; i < 300; ++i) {
    world.executor.Advance(seconds(1));
    for (uint64_t ref : {1, 2, 3, 4, 5}) world.resolver.answers[Domain(ref)].expires = {};
    failures += world.Take().failures_size();
  }
  EXPECT_GT(failures, 0);
}

// Of a shard that is gone for good, or that has given its mail to another worker.
TEST(WorkerHang, WhatNoShardNamesAnyMoreIsForgottenAfterAMinute) {
  World world([](auto& vmta) { Connections(vmta, 1); });
  Announce(world, 1, 3);
  world.GreetAll();
  ASSERT_EQ(world.worker->Status(false).blocked_size(), 2);
  world.shard().Break();
  world.executor.Advance(seconds(50));
  world.shard().Hello(60);
  EXPECT_EQ(world.worker->Status(false).blocked_size(), 2) << "they keep their places in line";
  Announce(world, 2, 2);
  world.executor.Advance(seconds(15));
  ASSERT_EQ(world.worker->Status(false).blocked_size(), 1);
  EXPECT_EQ(world.worker->Status(false).blocked(0).queue(), "d2.test/v");
  world.sites.open[0]->Close(true);
  world.executor.RunPosted();
  ASSERT_EQ(world.sites.open.size(), 1u);
  EXPECT_EQ(world.sites.open[0]->target.route.domain, "d2.test");
}

}  // namespace
}  // namespace sluice::delivery
