// The worker against a shard and sites that do what the test says, in virtual time.
#include "services/delivery/core/worker.h"

#include "gtest/gtest.h"
#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

using testing::Groups;
using testing::World;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;
constexpr auto kPermanent = queue::v1::RECIPIENT_OUTCOME_PERMANENT;

// Announced, connected, credited, leased, sent, reported: each once, and with its facts.
TEST(Worker, MailFlows) {
  World world;
  queue::v1::DispatchRequest hello = world.Take();
  EXPECT_EQ(hello.hello().worker(), "w1");
  EXPECT_EQ(hello.hello().incarnation(), 7u);
  ASSERT_EQ(hello.hello().vmtas_size(), 1);
  EXPECT_EQ(hello.hello().vmtas(0), "v");

  world.shard().Ready(1, 1);
  EXPECT_EQ(Groups(world.Take()), 0u) << "no credit before there is a connection";
  ASSERT_EQ(world.sites.open.size(), 1u);
  auto& remote = *world.sites.open[0];
  EXPECT_EQ(remote.target.host, "mx1");
  EXPECT_EQ(remote.target.source_ip, "127.0.0.5");
  EXPECT_EQ(remote.target.ehlo_name, "out5.example");
  remote.handler->OnReady();
  EXPECT_EQ(Groups(world.Take()), 2u) << "two groups a connection";

  world.shard().Lease(11, 1, 3);
  ASSERT_EQ(remote.under_way.size(), 1u);
  EXPECT_EQ(remote.under_way[0].body.view(), "text");
  remote.Answer(kDelivered);
  queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.results_size(), 1);
  EXPECT_EQ(said.results(0).lease_id(), 11u);
  EXPECT_EQ(said.results(0).attempt().worker(), "w1");
  EXPECT_EQ(said.results(0).attempt().site(), "mx1,mx2");
  EXPECT_EQ(Groups(said), 1u) << "the place is offered again: a warm connection stands ready";
  EXPECT_EQ(world.worker->stats().delivered, 3u);
}

// A mail merge is expanded for its one recipient; with VERP the sender names them.
TEST(Worker, AMailMergeIsExpanded) {
  World world;
  auto& remote = world.Connected();
  world.shard().edit = [](queue::v1::Lease& lease) {
    lease.mutable_message()->set_is_template(true);
    lease.mutable_message()->set_header_size(1);
    lease.mutable_message()->set_verp(true);
    lease.mutable_message()->set_mail_from("b@x.test");
    for (uint32_t i = 1; i <= 2; ++i) {
      auto* const part = lease.mutable_message()->add_parts();
      part->set_number(i);
      part->set_offset(2 * (i - 1));
      part->set_size(2);
    }
    lease.mutable_deliveries(0)->set_rcpt("r@y.test");
    lease.mutable_deliveries(0)->add_parts(2);
  };
  world.shard().Lease(11, 1);
  ASSERT_EQ(remote.under_way.size(), 1u);
  EXPECT_EQ(remote.under_way[0].body.view(), "xt");
  EXPECT_EQ(remote.under_way[0].lease->message().body_size(), 2u);
  EXPECT_EQ(remote.under_way[0].lease->message().header_size(), 2u) << "of the text that is sent";
  EXPECT_EQ(remote.under_way[0].lease->message().mail_from_rewritten(), "b-r=y.test@x.test");
}

// A result that was not acknowledged is said again on the next stream; one that was, is forgotten.
TEST(Worker, ResultsAreKeptUntilAcknowledged) {
  World world;
  auto& remote = world.Connected();
  world.shard().Lease(11, 1);
  world.shard().Lease(12, 1);
  remote.Answer(kDelivered);
  world.Take();
  world.shard().Break();
  world.executor.Advance(milliseconds(50));
  EXPECT_EQ(world.shard().opened, 2);
  queue::v1::DispatchRequest again = world.Take();
  EXPECT_EQ(again.hello().held_leases_size(), 2) << "in work, and done and not acknowledged";
  ASSERT_EQ(again.results_size(), 1);
  EXPECT_EQ(again.results(0).lease_id(), 11u);

  queue::v1::DispatchResponse acknowledged;
  acknowledged.add_acknowledged_leases(11);
  world.shard().Say(acknowledged);
  world.shard().Break();
  world.executor.Advance(milliseconds(200));
  again = world.Take();
  ASSERT_EQ(again.hello().held_leases_size(), 1);
  EXPECT_EQ(again.hello().held_leases(0).lease_id(), 12u);
  EXPECT_EQ(again.results_size(), 0);
  // The transaction outlived both streams, and its result goes to the third.
  remote.Answer(kDelivered);
  ASSERT_EQ(world.Take().results_size(), 1);
}

// The final dot goes out only inside the lease, counted from when the renewal was sent.
TEST(Worker, FinalDotOnlyInsideTheLease) {
  World world;
  auto& remote = world.Connected();
  world.shard().Lease(11, 1);
  const uint64_t work = remote.under_way[0].lease->lease_id();
  EXPECT_TRUE(remote.handler->MayFinish(work));
  world.executor.Advance(seconds(59));
  EXPECT_TRUE(remote.handler->MayFinish(work));
  world.executor.Advance(seconds(1));
  EXPECT_FALSE(remote.handler->MayFinish(work));
}

TEST(Worker, RenewalCountsFromItsSending) {
  World world;
  auto& remote = world.Connected();
  world.shard().Lease(11, 1);
  const uint64_t work = remote.under_way[0].lease->lease_id();
  const MonotonicTime start = world.executor.clock().Now();
  world.Take();
  // Renewals go out every 20 s; only the first is answered, and late: after two more went out.
  while (!world.Take().renew_all()) world.executor.Advance(seconds(1));
  const MonotonicTime sent = world.executor.clock().Now();
  EXPECT_LE(sent - start, seconds(20));
  world.executor.Advance(seconds(35));
  queue::v1::DispatchResponse renewed;
  renewed.add_renewed_leases(11);
  world.shard().Say(renewed);
  world.executor.Advance(sent + seconds(60) - world.executor.clock().Now() - milliseconds(1));
  EXPECT_TRUE(remote.handler->MayFinish(work));
  world.executor.Advance(milliseconds(1));
  EXPECT_FALSE(remote.handler->MayFinish(work));
}

TEST(Worker, LostLeaseIsNotFinishedAndItsResultStillSaid) {
  World world;
  auto& remote = world.Connected();
  world.shard().Lease(11, 1);
  const uint64_t work = remote.under_way[0].lease->lease_id();
  queue::v1::DispatchResponse lost;
  lost.add_lost_leases(11);
  world.shard().Say(lost);
  EXPECT_FALSE(remote.handler->MayFinish(work));
  world.Take();
  remote.Answer(kDelivered);  // it was past its final dot
  EXPECT_EQ(world.Take().results_size(), 1);
}

TEST(Worker, NextHostWhereOneFailsAndTheQueueFailsWhereAllDo) {
  World world;
  world.shard().Ready(1, 5);
  world.Take();
  world.sites.open[0]->Close(false, 0, "refused");
  ASSERT_EQ(world.sites.open.size(), 1u);
  EXPECT_EQ(world.sites.open[0]->target.host, "mx2");
  EXPECT_EQ(world.Take().failures_size(), 0);
  world.sites.open[0]->Close(false, 554, "go away");
  queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.failures_size(), 1);
  EXPECT_EQ(said.failures(0).queue_ref(), 1u);
  EXPECT_EQ(said.failures(0).reply().code(), 554u);
  EXPECT_EQ(said.failures(0).reply().host(), "mx2");
  EXPECT_FALSE(said.failures(0).dns());
  EXPECT_FALSE(said.failures(0).permanent());
  EXPECT_EQ(world.worker->open_connections(), 0u);
  EXPECT_EQ(world.worker->stats().connect_failures, 2u);
}

// What DNS said decides whether the queue waits or its recipients fail.
TEST(Worker, DnsOutcomes) {
  const struct {
    MxOutcome outcome;
    bool permanent;
    const char* enhanced;
  } kCases[] = {{MxOutcome::kTemporary, false, "4.4.3"},
                {MxOutcome::kNoSuchDomain, true, "5.1.2"},
                {MxOutcome::kNullMx, true, "5.1.10"}};
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.enhanced);
    World world;
    world.resolver.answer.outcome = each.outcome;
    world.shard().Ready(1, 1);
    queue::v1::DispatchRequest said = world.Take();
    ASSERT_EQ(said.failures_size(), 1);
    EXPECT_TRUE(said.failures(0).dns());
    EXPECT_EQ(said.failures(0).permanent(), each.permanent);
    EXPECT_EQ(said.failures(0).reply().enhanced(), each.enhanced);
    EXPECT_TRUE(said.failures(0).reply().local());
    EXPECT_TRUE(world.sites.open.empty());
  }
}

// A name in DNS must not lead into our own network.
TEST(Worker, PrivateAddressesFromDnsAreNotMet) {
  World world;
  world.resolver.answer.from_dns = true;
  world.resolver.answer.hosts = {{"mx1", 10, {"10.0.0.1"}}, {"mx2", 20, {"127.0.0.1"}}};
  world.shard().Ready(1, 1);
  queue::v1::DispatchRequest said = world.Take();
  EXPECT_TRUE(world.sites.open.empty());
  ASSERT_EQ(said.failures_size(), 1);
  EXPECT_EQ(said.failures(0).reply().enhanced(), "4.4.4");
}

TEST(Worker, ConnectionsOfAQueueStayWithinTheirLimit) {
  World world([](auto& vmta) { vmta.mutable_queue_defaults()->set_max_smtp_out(3); });
  world.shard().Ready(1, 1000);
  world.executor.RunPosted();
  for (size_t i = 0; i < world.sites.open.size(); ++i) {
    world.sites.open[i]->handler->OnReady();
    world.executor.RunPosted();
    EXPECT_LE(world.sites.open.size(), 3u);
  }
  EXPECT_EQ(world.sites.open.size(), 3u);
  EXPECT_EQ(Groups(world.Take()), 6u);
}

TEST(Worker, ConnectionsOfAVirtualMtaStayWithinTheirLimit) {
  World world([](auto& vmta) { vmta.set_max_smtp_out(2); });
  world.shard().Ready(1, 1000);
  world.executor.RunPosted();
  for (size_t i = 0; i < world.sites.open.size(); ++i) {
    world.sites.open[i]->handler->OnReady();
    world.executor.RunPosted();
  }
  EXPECT_EQ(world.sites.open.size(), 2u);
  queue::v1::DispatchRequest said = world.Take();
  ASSERT_GT(said.blocked_size(), 0);
  EXPECT_EQ(said.blocked(0).limit(), "max-smtp-out 2 (virtual MTA)");
}

TEST(Worker, ConnectionEndsAfterItsShareOfMessages) {
  World world([](auto& vmta) { vmta.mutable_queue_defaults()->set_max_msg_per_connection(1); });
  auto& remote = world.Connected();
  EXPECT_EQ(Groups(world.Take()), 1u) << "no credit for a message that it will not take";
  world.shard().Lease(11, 1);
  remote.Answer(kDelivered);
  EXPECT_TRUE(remote.quit);
}

// A group that found no place goes back untouched.
TEST(Worker, LeaseWithoutAPlaceIsReturned) {
  World world;
  auto& remote = world.Connected();
  world.Take();
  for (uint64_t id = 11; id <= 13; ++id) world.shard().Lease(id, 1);
  EXPECT_EQ(remote.under_way.size(), 2u);
  queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.returned_leases_size(), 1);
  EXPECT_EQ(said.returned_leases(0), 13u);
  // Of a queue that it does not know: the same.
  world.shard().Lease(14, 99);
  EXPECT_EQ(world.Take().returned_leases(0), 14u);
}

TEST(Worker, IdleConnectionTakesItsCreditsWithIt) {
  World world(
      [](auto& vmta) { vmta.mutable_queue_defaults()->set_connection_idle_timeout_us(5'000'000); });
  auto& remote = world.Connected();
  world.Take();
  world.executor.Advance(seconds(5));
  EXPECT_TRUE(remote.quit);
  queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.revokes_size(), 1);
  EXPECT_EQ(Groups(said), 0u);
}

// A remote that answered is no queue failure, though it took nobody and then closed.
TEST(Worker, RefusedRecipientsDoNotPutTheQueueInRetry) {
  World world;
  auto& remote = world.Connected();
  world.shard().Lease(11, 1);
  remote.Answer(kPermanent);
  world.Take();
  remote.Close(true, 421, "idle too long");
  EXPECT_EQ(world.Take().failures_size(), 0);
}

// A remote that greets and then drops every connection must not be met in a tight loop.
TEST(Worker, ConnectionThatNeverAnsweredFailsTheQueue) {
  World world;
  auto& remote = world.Connected(5);
  world.shard().Lease(11, 1);
  remote.Answer(queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
  // Each greets, and drops us.
  int dropped = 0;
  for (; !world.sites.open.empty() && dropped < 20; ++dropped) {
    world.sites.open.front()->handler->OnReady();
    world.executor.RunPosted();
    world.sites.open.front()->Close(true, 421, "no");
    world.executor.RunPosted();
  }
  EXPECT_LE(dropped, 5);
  EXPECT_EQ(world.Take().failures_size(), 1);
}

// Counts what goes out in each window of a second that begins with an attempt.
void ExpectWindows(const std::vector<testing::FakeSites::Sent>& sends, int most) {
  for (size_t i = 0; i < sends.size(); ++i) {
    int sum = 0;
    for (size_t j = i; j < sends.size() && sends[j].when < sends[i].when + seconds(1); ++j) {
      sum += sends[j].recipients;
    }
    EXPECT_LE(sum, most) << "window from attempt " << i;
  }
}

// Leases a group for each credit, as large as it allows, and delivers it at once.
void RunMail(World& world, int recipients, Duration time) {
  uint64_t id = 100;
  const MonotonicTime end = world.executor.clock().Now() + time;
  while (world.executor.clock().Now() < end) {
    const queue::v1::DispatchRequest said = world.Take();
    for (const auto& credit : said.credits()) {
      const int most = credit.max_recipients() == 0 ? recipients : int(credit.max_recipients());
      for (uint32_t i = 0; i < credit.groups(); ++i) {
        world.shard().Lease(++id, 1, std::min(recipients, most));
      }
    }
    for (size_t i = 0; i < world.sites.open.size(); ++i) {
      while (!world.sites.open[i]->under_way.empty()) world.sites.open[i]->Answer(kDelivered);
    }
    world.executor.Advance(milliseconds(5));
  }
}

TEST(Worker, RateOfAQueueHoldsInEachWindow) {
  World world([](auto& vmta) {
    auto* rate = vmta.mutable_queue_defaults()->mutable_max_msg_rate();
    rate->set_count(10);
    rate->set_period_us(1'000'000);
  });
  world.Connected(1000);
  RunMail(world, 50, seconds(5));
  ExpectWindows(world.sites.sends, 10);
  EXPECT_GE(world.sites.sends.size(), 40u) << "the limit is used";
}

TEST(Worker, RateOfASourceHoldsInEachWindow) {
  World world([](auto&) {},
              [](auto& source) {
                source.mutable_max_msg_rate()->set_count(10);
                source.mutable_max_msg_rate()->set_period_us(1'000'000);
              });
  world.Connected(1000);
  RunMail(world, 50, seconds(5));
  ExpectWindows(world.sites.sends, 10);
  EXPECT_GE(world.sites.sends.size(), 40u) << "the limit is used";
}

// Its result tells of a free place, and the group that waited for it is given to a connection that
// tells its end in the next breath: nobody else would ever answer for it.
TEST(Worker, AGroupGivenToAConnectionThatIsJustEndingGoesBack) {
  World world([](auto& vmta) {
    auto* rate = vmta.mutable_queue_defaults()->mutable_max_msg_rate();
    rate->set_count(5000);
    rate->set_period_us(1'000'000);
  });
  auto& remote = world.Connected(1000);
  world.executor.Advance(milliseconds(100));  // what was sent before its start is not known
  world.shard().Lease(11, 1);
  world.shard().Lease(12, 1);
  world.executor.Advance(milliseconds(1));
  ASSERT_EQ(remote.under_way.size(), 1u) << "where a rate holds, one at a time";
  EXPECT_EQ(world.Take().returned_leases_size(), 0);
  remote.Answer(kDelivered);
  ASSERT_EQ(remote.under_way.size(), 1u);
  ASSERT_EQ(world.sites.sends.size(), 2u);
  remote.Close(true);  // without a word of what it was given when it had ended
  const queue::v1::DispatchRequest said = world.Take();
  ASSERT_EQ(said.results_size(), 1);
  EXPECT_EQ(said.results(0).lease_id(), 11u);
  ASSERT_EQ(said.returned_leases_size(), 1);
  EXPECT_EQ(said.returned_leases(0), 12u);
}

// A rate of thousands a second is not held to a shard's sync for each: the next group is here when
// the connection has done with the one before. Its RCPT is written, and charged, then.
TEST(Worker, NextGroupOfALimitedQueueWaitsHere) {
  World world([](auto& vmta) {
    auto* rate = vmta.mutable_queue_defaults()->mutable_max_msg_rate();
    rate->set_count(5000);
    rate->set_period_us(1'000'000);
  });
  auto& remote = world.Connected(1000);
  EXPECT_EQ(Groups(world.Take()), 2u);
  world.executor.Advance(milliseconds(100));  // what was sent before its start is not known
  world.shard().Lease(11, 1);
  world.shard().Lease(12, 1);
  EXPECT_EQ(remote.under_way.size(), 1u);
  EXPECT_EQ(world.Take().returned_leases_size(), 0);
  world.executor.Advance(milliseconds(1));
  EXPECT_EQ(remote.under_way.size(), 1u);
  remote.Answer(kDelivered);
  EXPECT_EQ(remote.under_way.size(), 1u);
  EXPECT_EQ(world.sites.sends.size(), 2u);
  // Without its connection it goes back.
  world.shard().Lease(13, 1);
  remote.Close(true);
  EXPECT_EQ(world.Take().returned_leases_size(), 2);
}

// Where replies take their time, the group after the next is here when one comes: its commands
// leave with the final dot of the one before.
TEST(Worker, AThirdGroupIsAtHandForAFarPeer) {
  World world;
  auto& remote = world.Connected(1000);
  EXPECT_EQ(Groups(world.Take()), 2u);
  world.shard().Lease(11, 1);
  world.shard().Lease(12, 1);
  world.executor.Advance(milliseconds(50));
  remote.Answer(kDelivered);
  EXPECT_EQ(Groups(world.Take()), 2u);
  world.shard().Lease(13, 1);
  world.shard().Lease(14, 1);
  EXPECT_EQ(remote.under_way.size(), 2u);
  EXPECT_EQ(world.Take().returned_leases_size(), 0);
  remote.Answer(kDelivered);
  EXPECT_EQ(remote.under_way.size(), 2u);
  EXPECT_EQ(world.sites.sends.size(), 4u);
}

// A group leased for a credit that is older than the limit must not pass as one.
TEST(Worker, LargeGroupForAnOldCreditIsReturned) {
  World world([](auto&) {},
              [](auto& source) {
                source.mutable_max_msg_rate()->set_count(10);
                source.mutable_max_msg_rate()->set_period_us(1'000'000);
              });
  auto& remote = world.Connected(100);
  world.Take();
  world.shard().Lease(11, 1, 50);
  const queue::v1::DispatchRequest said = world.Take();
  EXPECT_TRUE(remote.under_way.empty());
  ASSERT_EQ(said.returned_leases_size(), 1);
  ASSERT_EQ(said.credits_size(), 1);
  EXPECT_EQ(said.credits(0).max_recipients(), 1u);
}

TEST(Worker, OldestMailFirstAcrossShards) {
  World world([](auto& vmta) { vmta.mutable_queue_defaults()->set_max_msg_per_connection(1); },
              nullptr, 2);
  world.shards[0]->Ready(1, 1, 2'000'000);
  world.shards[1]->Ready(1, 1, 1'000'000);
  world.executor.RunPosted();
  world.sites.open[0]->handler->OnReady();
  world.executor.RunPosted();
  EXPECT_EQ(Groups(world.shards[0]->Take()), 0u);
  EXPECT_EQ(Groups(world.shards[1]->Take()), 1u);
}

TEST(Worker, DrainFinishesWhatIsUnderWay) {
  World world;
  auto& remote = world.Connected();
  world.shard().Lease(11, 1);
  world.Take();
  bool drained = false;
  world.worker->Drain([&drained] { drained = true; });
  queue::v1::DispatchRequest said = world.Take();
  EXPECT_TRUE(said.draining());
  EXPECT_TRUE(remote.quit);
  world.shard().Ready(2, 100);  // crossed on the way
  world.shard().Lease(12, 1);
  EXPECT_EQ(world.Take().returned_leases_size(), 1);
  remote.Answer(kDelivered);
  remote.Close(true);
  said = world.Take();
  EXPECT_EQ(said.results_size(), 1);
  EXPECT_FALSE(drained) << "the result is not durable yet";
  queue::v1::DispatchResponse acknowledged;
  acknowledged.add_acknowledged_leases(11);
  world.shard().Say(acknowledged);
  world.executor.RunPosted();
  EXPECT_TRUE(drained);
}

}  // namespace
}  // namespace sluice::delivery
