// Which queue of one shard gets its turn, and which worker gets the queue: pauses, owners, shares
// of virtual MTAs, lanes and jobs, restarts; and what a queue takes of memory.
#include <malloc.h>

#include "services/queue/core/dispatch_order.h"
#include "services/queue/core/memory_store.h"
#include "services/queue/core/queue_table.h"
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

class ShardTurnsTest : public testing::PolicyShardFixture {
 protected:
  void Send(int count, const std::string& rcpt, const std::string& job, uint32_t priority) {
    injector().edit = [priority](v1::NewMessage& message) {
      message.mutable_message()->set_priority(priority);
    };
    for (int i = 0; i < count; ++i) injector().Send({rcpt}, "x", job);
    Run();
  }
  // How many of two jobs that wait go before one of higher priority that comes.
  size_t LeasedBeforeUrgent() {
    TestWorker& worker = AddWorker();
    Send(30, "a@x.example", "bulk", 50);
    Send(30, "b@x.example", "more", 50);
    const uint64_t ref = worker.ready.at("x.example").queue_ref();
    worker.Credit(ref, 1);
    Run();
    Send(1, "d@x.example", "low", 10);
    Send(1, "c@x.example", "urgent", 90);
    worker.Credit(ref, 20);
    Run();
    size_t before = 0;
    for (const auto& each : worker.leases) {
      if (each.lease.deliveries(0).rcpt() == "c@x.example") break;
      ++before;
    }
    return before;
  }
};

TEST_F(ShardTurnsTest, APausedQueueStandsSaysWhyAndGoesOnWhenItsTimeHasCome) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  Pause("x.example/*", "", NowUs() + 3'600'000'000);
  injector().Send({"a@x.example"});
  Run(std::chrono::minutes(10));
  EXPECT_TRUE(worker.leases.empty());
  EXPECT_TRUE(Queue("x.example/default").paused());
  EXPECT_NE(Queue("x.example/default").reason().find("maintenance"), std::string::npos);
  EXPECT_GT(Queue("x.example/default").next_time_us(), NowUs());
  Run(std::chrono::minutes(51));
  EXPECT_EQ(worker.leases.size(), 1U);
}

TEST_F(ShardTurnsTest, APausedJobDoesNotStandBeforeOthersAndItsMailStillExpires) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 100;
  Pause("", "stopped");
  for (int i = 0; i < 3000; ++i) injector().Send({"a@x.example"}, "x", "stopped", "", "");
  for (int i = 0; i < 5; ++i) injector().Send({"b@x.example"}, "x", "other");
  Run();
  EXPECT_EQ(worker.leases.size(), 5U);
  Run(std::chrono::hours(24 * 4 + 13));
  EXPECT_GE(Status().expired_total(), 3000U);
}

TEST_F(ShardTurnsTest, MailOfHigherPriorityGoesBeforeWhatWaits) {
  EXPECT_EQ(LeasedBeforeUrgent(), 1U) << "what was leased before it came";
}

TEST_F(ShardTurnsTest, MailOfHigherPriorityWaitsForItsTurnWhereItMayNotInterrupt) {
  Defaults().set_allow_priority_interruption(false);
  SetPolicy();
  EXPECT_GT(LeasedBeforeUrgent(), 6U) << "the turns of both";
}

TEST_F(ShardTurnsTest, ReroutedMailGoesByTheOtherVirtualMtaAndTheEventSaysWho) {
  for (const char* name : {"default", "other"}) {
    Section(std::string("vmta/") + name).mutable_virtual_mta()->set_name(name);
  }
  SetPolicy();
  injector().Send({"a@x.example", "b@y.example"}, "x", "job-1");
  Run();
  v1::RerouteMessagesRequest request;
  request.mutable_filter()->set_queue_pattern("x.example/*");
  request.set_target("other");
  request.set_author("ops");
  uint64_t moved = 0;
  shard_->RerouteMessages(request, [&moved](auto response) { moved = response->recipients(); });
  Run();
  EXPECT_EQ(moved, 1U);
  EXPECT_EQ(Queue("x.example/other").recipients(), 1U);
  EXPECT_EQ(Status().recipients(), 2U);
  Kill();
  Open();
  EXPECT_EQ(Listed(ByRcpt("a@x.example")), 1);
  TestWorker& worker = AddWorker("w1", 1, {}, {"other"});
  worker.auto_credit = 1;
  Run(std::chrono::seconds(2));
  ASSERT_EQ(worker.leases.size(), 1U);
  EXPECT_EQ(worker.leases[0].lease.deliveries(0).first_vmta(), "default");
  v1::ReadEventsResponse events;
  shard_->ReadEvents({}, [&events](auto response) { events = *response; });
  bool found = false;
  for (const auto& event : events.events()) {
    found |= event.kind() == common::v1::EVENT_KIND_REROUTED && event.author() == "ops" &&
             event.from_queue() == "x.example/default" && event.queue() == "x.example/other";
  }
  EXPECT_TRUE(found);
}

TEST_F(ShardTurnsTest, OneSourceIpBelongsToOneWorker) {
  auto* vmta = Section("vmta/default").mutable_virtual_mta();
  vmta->set_name("default");
  vmta->add_source_hosts()->set_ip("127.0.0.2");
  SetPolicy();
  TestWorker& first = AddWorker("w1");
  TestWorker& second = AddWorker("w2");
  for (int i = 0; i < 20; ++i) injector().Send({"a@d" + std::to_string(i) + ".example"});
  Run();
  EXPECT_EQ(first.announcements + second.announcements, 20);
  EXPECT_EQ(std::min(first.announcements, second.announcements), 0);
  // The one that had it goes; the other one takes over.
  (first.announcements > 0 ? workers_[0] : workers_[1])->Drop();
  Run(std::chrono::seconds(1));
  EXPECT_EQ(std::min(first.announcements, second.announcements), 20);
}

// The policy service says who has a queue: it goes there and nowhere else, and over to another one
// when the table changes.
TEST_F(ShardTurnsTest, AQueueGoesToTheWorkerThatTheTableNames) {
  const auto table = [](uint64_t epoch, const std::string& owner) {
    policy::v1::OwnersTable table;
    table.set_epoch(epoch);
    table.add_workers(owner);
    auto* entry = table.add_vmtas();
    entry->set_vmta("default");
    entry->add_hosts();
    return config::Owners::Build(table);
  };
  shard_->SetOwners(table(1, "w2"));
  TestWorker& w1 = AddWorker("w1");
  injector().Send({"a@d.example"});
  Run();
  EXPECT_TRUE(w1.ready.empty());
  std::string reason;
  v1::GetQueueRequest request;
  request.set_name("d.example/default");
  const auto look = [&] {
    shard_->GetQueue(request, [&](auto response) { reason = response->queue().reason(); });
  };
  look();
  EXPECT_EQ(reason, "waits for worker w2, to which the policy service has given it");
  TestWorker& w2 = AddWorker("w2");
  Run();
  EXPECT_EQ(w2.ready.size(), 1u);
  w2.Credit(w2.ready.begin()->second.queue_ref(), 1);
  Run();
  ASSERT_EQ(w2.leases.size(), 1u);
  injector().Send({"b@d.example"});
  Run();
  shard_->SetOwners(table(2, "w1"));
  Run();
  EXPECT_EQ(w2.gone.size(), 1u);
  EXPECT_EQ(w1.ready.size(), 1u) << "w2's lease does not keep it: policy has waited for w2";
}

// It stands in for the policy service, by the last table that it knows and no other one.
TEST_F(ShardTurnsTest, AShardVouchesForTheTableThatItKeepsToAlone) {
  const auto table = [](uint64_t epoch) {
    policy::v1::OwnersTable table;
    table.set_epoch(epoch);
    return config::Owners::Build(table);
  };
  TestWorker& worker = AddWorker("w1");
  Run();
  worker.AskVouch(1);  // it knows of none
  Run();
  shard_->SetOwners(table(4));
  for (uint64_t epoch : {3, 4, 5}) worker.AskVouch(epoch);
  Run();
  shard_->SetOwners(table(5));
  worker.AskVouch(4);
  Run();
  EXPECT_EQ(worker.vouched, std::vector<uint64_t>{4});
}

TEST_F(ShardTurnsTest, VirtualMtasTakeTurnsAndPriorityWeighsInEach) {
  for (int i = 0; i < 600; ++i) {
    injector().SendVia("big", "r@a.example");
    if (i < 40) injector().SendVia("small", "r@b.example");
  }
  Run();
  TestWorker& worker = AddWorker("w1", 1, {}, {"big", "small"});
  worker.auto_credit = 200;
  Run();
  // Among the first eighty leases the small one has its forty.
  int small = 0;
  ASSERT_GE(worker.leases.size(), 240U);
  for (size_t i = 0; i < 128; ++i) {
    small += worker.leases[i].lease.deliveries(0).vmta() == "small" ? 1 : 0;
  }
  EXPECT_EQ(small, 40);
}

TEST_F(ShardTurnsTest, DispatchOrderGivesVirtualMtasEqualSharesAndQueuesTheirWeight) {
  MemoryStore store;
  auto batch = store.NewBatch();
  QueueTable table(store);
  queue::Queue& heavy = table.Get("heavy.example", "a", "", *batch);
  queue::Queue& light = table.Get("light.example", "a", "", *batch);
  queue::Queue& alone = table.Get("x.example", "b", "", *batch);
  DispatchOrder order;
  for (queue::Queue* each : {&heavy, &light, &alone}) order.Add(*each);
  std::map<queue::Queue*, int> groups;
  for (int i = 0; i < 1000; ++i) {
    const auto turn =
        order.Next([&heavy](queue::Queue& queue) { return &queue == &heavy ? 100U : 20U; });
    groups[turn.queue] += turn.groups;
    order.Done(*turn.queue, turn.groups, true);
  }
  EXPECT_NEAR(groups[&alone], groups[&heavy] + groups[&light], DispatchOrder::kVmtaQuantum);
  EXPECT_GT(groups[&heavy], 3 * groups[&light]);
  EXPECT_GT(groups[&light], 0);
}

TEST_F(ShardTurnsTest, AJobOfManyDoesNotDelayASmallOneInTheSameQueue) {
  for (int i = 0; i < 50'000; ++i) {
    injector().Send({"big@x.example"}, "x", "big");
    if (i % 500 == 0) Run(std::chrono::milliseconds(3));
  }
  Run();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  Run();
  size_t answered = 0;
  auto work = [&] {
    for (; answered < worker.leases.size(); ++answered) {
      worker.Answer(worker.leases[answered].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250,
                    "");
      worker.Credit(worker.leases[answered].lease.queue_ref(), 1);
    }
    Run(std::chrono::milliseconds(1));
  };
  for (int i = 0; i < 100; ++i) work();
  for (int i = 0; i < 20; ++i) injector().Send({"small@x.example"}, "x", "small");
  const size_t before = worker.leases.size();
  for (int i = 0; i < 100; ++i) work();
  size_t first_small = 0;
  size_t last_small = 0;
  int small = 0;
  for (size_t i = before; i < worker.leases.size(); ++i) {
    if (worker.leases[i].lease.deliveries(0).job_id() != "small") continue;
    if (++small == 1) first_small = i;
    last_small = i;
  }
  EXPECT_EQ(small, 20);
  EXPECT_LE(last_small - first_small, 60U) << "every other turn is its own";
}

TEST_F(ShardTurnsTest, ARestartAnnouncesNoQueueThatHasNothingDue) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  Run();
  Kill();
  Open();
  TestWorker& again = AddWorker("w1", 2);
  Run(std::chrono::minutes(5));
  EXPECT_EQ(again.announcements, 0);
  Run(std::chrono::minutes(6));
  EXPECT_EQ(again.announcements, 1);
}

TEST_F(ShardTurnsTest, MailThatIsDueEarlierThanWhatWasReadBeforeIsFoundAfterAKill) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 2000;
  for (int i = 0; i < 600; ++i) injector().Send({"a@x.example"}, "x", "", "", "");
  Run();
  // All are deferred: the queue's floor has moved on towards what is due later.
  for (size_t i = 0; i < worker.leases.size(); ++i) {
    worker.Answer(worker.leases[i].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  }
  Run();
  worker.Revoke(worker.ready["x.example"].queue_ref(), true);
  injector().Send({"now@x.example"}, "x", "", "", "");
  Run();
  Kill();
  Open();
  TestWorker& again = AddWorker("w1", 2);
  again.auto_credit = 1;
  Run(std::chrono::seconds(3));
  ASSERT_EQ(again.leases.size(), 1U);
  EXPECT_EQ(again.leases[0].lease.deliveries(0).rcpt(), "now@x.example");
}

TEST_F(ShardTurnsTest, AQueueTakesLessThanAKilobyteOfMemory) {
  MemoryStore store;
  auto batch = store.NewBatch();
  constexpr int kQueues = 20'000;
  auto table = std::make_unique<QueueTable>(store);
  const size_t before = mallinfo2().uordblks;
  for (int i = 0; i < kQueues; ++i) {
    queue::Queue& queue = table->Get("some-customer-domain" + std::to_string(i) + ".example",
                                     "vmta-transactional-7", "pool-a", *batch);
    common::v1::Reply reply;
    reply.set_text("connection timed out: no MX of the domain could be reached within two minutes");
    for (int r = 0; r < 10; ++r) {
      table->Remember(queue, reply, r);
      table->WriteTouched(*batch);
    }
    batch->Clear();
    if (i % 100 == 0) table->WriteTouched(*batch);
  }
  batch->Clear();
  [[maybe_unused]] const size_t bytes = mallinfo2().uordblks - before;
#ifndef SLUICE_SANITIZER
  EXPECT_LT(bytes / kQueues, 1024U);
#endif
  EXPECT_EQ(table->size(), static_cast<size_t>(kQueues));
}

}  // namespace
}  // namespace sluice::queue
