// Rules of one shard that need a policy, time or many queues: turns, pauses, expiry in every state,
// late answers, the index, the outbox, memory.
#include <malloc.h>

#include "services/queue/testing/shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::ShardFixture;
using testing::TestInjector;
using testing::TestWorker;

class ShardRulesTest : public ShardFixture {
 protected:
  policy::v1::SectionContent& Section(const std::string& name) {
    auto* section = policy_.add_sections();
    section->set_name(name);
    return *section->mutable_content();
  }
  void SetPolicy() {
    policy_.set_version(policy_.version() + 1);
    auto view = config::PolicyView::Build(policy_);
    ASSERT_TRUE(view.ok()) << view.status();
    shard_->SetPolicy(*view);
  }
  policy::v1::QueueSettings& Defaults() {
    return *Section("global").mutable_global()->mutable_queue_defaults();
  }
  void Pause(const std::string& pattern, const std::string& job, int64_t until_us = 0) {
    auto* entry = Section("control/1").mutable_control();
    entry->set_id("1");
    entry->set_kind(policy::v1::ControlEntry::KIND_PAUSE);
    entry->set_queue_pattern(pattern);
    entry->set_job_id(job);
    entry->set_reason("maintenance");
    entry->set_author("ops");
    entry->set_until_us(until_us);
    SetPolicy();
  }
  int64_t NowUs() { return ToUnixMicros(executor_.clock().WallNow()); }
  v1::QueueStatus Queue(const std::string& name) {
    v1::QueueStatus status;
    v1::GetQueueRequest request;
    request.set_name(name);
    shard_->GetQueue(request, [&status](auto response) {
      if (response.ok()) status = response->queue();
    });
    return status;
  }
  int Listed(const v1::MessageFilter& filter) {
    v1::ListMessagesRequest request;
    *request.mutable_filter() = filter;
    std::optional<int> found;
    shard_->ListMessages(request, [&found](auto response) { found = response->recipients_size(); });
    for (int i = 0; i < 1000 && !found; ++i) Run(std::chrono::microseconds(1));
    return found.value_or(-1);
  }
  static v1::MessageFilter ByRcpt(const std::string& rcpt) {
    v1::MessageFilter filter;
    filter.set_rcpt(rcpt);
    return filter;
  }
  policy::v1::PolicySnapshot policy_;
};

TEST_F(ShardRulesTest, ALateDeliveredWinsOverTheNextLease) {
  TestWorker& first = AddWorker("w1");
  first.auto_credit = 1;
  injector().Send({"a@x.example", "b@x.example"}, "x", "", "", "");
  Run();
  ASSERT_EQ(first.leases.size(), 1U);
  const uint64_t old_lease = first.leases[0].lease.lease_id();
  // It never renews: taken back, and leased again.
  first.auto_credit = 5;
  Run(options_.lease + options_.lost_contact_grace + std::chrono::seconds(5));
  ASSERT_EQ(first.lost, std::vector<uint64_t>{old_lease});
  ASSERT_EQ(first.leases.size(), 2U);
  first.Answer(old_lease, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "late");
  Run();
  EXPECT_EQ(Status().delivered_total(), 2U);
  EXPECT_EQ(store_.rows(Family::kDeliveries), 0U);
  // What the second one says changes nothing any more.
  first.Answer(first.leases[1].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "no");
  Run();
  EXPECT_EQ(Status().recipients(), 0U);
  EXPECT_EQ(store_.rows(Family::kMessages), 0U);
  EXPECT_EQ(store_.rows(Family::kLeases), 0U);
}

TEST_F(ShardRulesTest, ALateDeliveredCountsAlsoWhereTheMailWaitsAndAfterARestart) {
  AddWorker("w1").auto_credit = 1;
  injector().Send({"a@x.example"}, "x", "", "", "");
  Run();
  const uint64_t lease = workers_[0]->leases[0].lease.lease_id();
  Run(options_.lease + options_.lost_contact_grace + std::chrono::seconds(5));
  Kill();
  Open();
  TestWorker& again = AddWorker("w1", 1, {lease});
  Run();
  EXPECT_EQ(again.lost, std::vector<uint64_t>{lease});
  again.Answer(lease, v1::RECIPIENT_OUTCOME_DELIVERED, 250, "late");
  Run(std::chrono::seconds(1));
  EXPECT_EQ(again.acknowledged, std::vector<uint64_t>{lease});
  EXPECT_EQ(store_.rows(Family::kDeliveries), 0U);
}

TEST_F(ShardRulesTest, NewMailEndsTheRetryWaitOnlyWhereThePolicySaysSo) {
  Defaults().set_retry_upon_new_mail(true);
  SetPolicy();
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  worker.Fail(worker.ready["x.example"].queue_ref(), false, false);
  Run(std::chrono::seconds(10));
  const int before = worker.announcements;
  injector().Send({"b@x.example"});
  Run();
  EXPECT_EQ(worker.announcements, before + 1);
}

TEST_F(ShardRulesTest, MailIsPutOffFromMaxQueueSizeOnAndTakenAgainBelowIt) {
  Defaults();
  policy_.mutable_sections(0)
      ->mutable_content()
      ->mutable_global()
      ->mutable_settings()
      ->set_max_queue_size(1'000'000);
  SetPolicy();
  store_.health().live_bytes = 999'999;
  Run(std::chrono::seconds(2));
  const uint64_t first = injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(first), v1::EnqueueResult::OUTCOME_QUEUED);
  // What came in since the last look at the store counts.
  const uint64_t second = injector().Send({"b@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(second), v1::EnqueueResult::OUTCOME_REFUSED_FULL);
  EXPECT_EQ(Status().spool_limit_bytes(), 1'000'000U);
  store_.health().live_bytes = 1000;
  Run(std::chrono::seconds(2));
  const uint64_t third = injector().Send({"c@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(third), v1::EnqueueResult::OUTCOME_QUEUED);
}

TEST_F(ShardRulesTest, MailIsPutOffBelowSpoolMinFreeSpace) {
  Defaults();
  auto& settings =
      *policy_.mutable_sections(0)->mutable_content()->mutable_global()->mutable_settings();
  settings.set_spool_min_free_space_mb(5'000'000);
  SetPolicy();
  store_.health().volume_free_bytes = uint64_t{4'000'000} << 20;
  Run(std::chrono::seconds(2));
  const uint64_t refused = injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(refused), v1::EnqueueResult::OUTCOME_REFUSED_FULL);
  settings.set_spool_min_free_space_mb(3'000'000);
  SetPolicy();
  const uint64_t taken = injector().Send({"a@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(taken), v1::EnqueueResult::OUTCOME_QUEUED);
}

TEST_F(ShardRulesTest, EventsAreKeptAsLongAsThePolicySays) {
  Defaults();
  auto& settings =
      *policy_.mutable_sections(0)->mutable_content()->mutable_global()->mutable_settings();
  settings.set_events_keep_us(int64_t{600} * 1'000'000);
  SetPolicy();
  injector().Send({"a@x.example"});
  Run(std::chrono::minutes(9));
  EXPECT_EQ(Status().events_dropped_total(), 0U);
  Run(std::chrono::minutes(5));
  EXPECT_EQ(Status().events_dropped_total(), 1U);
  settings.set_events_keep_us(int64_t{86'400} * 1'000'000);
  settings.set_events_keep_bytes(1);
  SetPolicy();
  injector().Send({"b@x.example"});
  Run(std::chrono::minutes(5));
  EXPECT_EQ(Status().events_dropped_total(), 2U);
}

TEST_F(ShardRulesTest, WhatWasDeliveredIsCopiedOnceAndCopiesAreNot) {
  Defaults().set_bcc_upon_delivery("archive@copies.example");
  SetPolicy();
  TestWorker& worker = AddWorker("w1");
  worker.auto_credit = 5;
  injector().Send({"a@x.example", "b@x.example", "c@x.example"}, "the text", "", "", "");
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  const auto original = worker.leases[0].lease.message();
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok",
                {{1, v1::RECIPIENT_OUTCOME_TRANSIENT}});
  Run();
  ASSERT_EQ(worker.leases.size(), 2U);
  const auto& copy = worker.leases[1];
  EXPECT_EQ(copy.lease.deliveries(0).rcpt(), "archive@copies.example");
  EXPECT_EQ(copy.lease.deliveries(0).notify(), 1U);
  EXPECT_EQ(copy.body, "the text");
  EXPECT_EQ(copy.lease.message().parent_id(), original.id());
  EXPECT_NE(copy.lease.message().id(), original.id());
  EXPECT_EQ(copy.lease.message().mail_from(), original.mail_from());
  worker.Answer(copy.lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run();
  EXPECT_EQ(worker.leases.size(), 2U);
  EXPECT_EQ(Status().recipients(), 1U);
}

// RFC 3461: who asked for SUCCESS is told here, unless the remote does it; nobody else is.
TEST_F(ShardRulesTest, SuccessIsReportedWhereTheRemoteDoesNotDoIt) {
  const struct {
    uint32_t notify;
    bool passed_on;
    const char* type;
    const char* action;  // nullptr: no report
  } kCases[] = {{0, false, "smtp", nullptr},    {4 | 8, false, "smtp", nullptr},
                {1, false, "smtp", nullptr},    {2, true, "smtp", nullptr},
                {2, false, "smtp", "relayed"},  {2 | 4, false, "lmtp", "delivered"},
                {2, false, "file", "delivered"}};
  TestWorker& worker = AddWorker("w1");
  worker.auto_credit = 20;
  size_t leases = 0;
  for (const auto& each : kCases) {
    SCOPED_TRACE(::testing::Message() << each.notify << " " << each.type);
    injector().notify = each.notify;
    injector().Send({"a@x.example"}, "Subject: x\r\n\r\nsecret text\r\n");
    Run();
    ASSERT_EQ(worker.leases.size(), ++leases);
    const auto original = worker.leases.back().lease.message();
    worker.attempt.set_dsn_passed_on(each.passed_on);
    worker.attempt.set_delivery_type(each.type);
    worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250,
                  "ok");
    Run();
    if (each.action == nullptr) {
      EXPECT_EQ(worker.leases.size(), leases);
      continue;
    }
    ASSERT_EQ(worker.leases.size(), ++leases);
    const auto& report = worker.leases.back();
    EXPECT_EQ(report.lease.deliveries(0).rcpt(), "sender@from.example");
    EXPECT_EQ(report.lease.message().mail_from(), "");
    EXPECT_EQ(report.lease.message().parent_id(), original.id());
    EXPECT_NE(report.body.find(std::string("Action: ") + each.action), std::string::npos);
    EXPECT_EQ(report.body.find("secret text"), std::string::npos) << "headers only";
    worker.Answer(report.lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
    Run();
    EXPECT_EQ(worker.leases.size(), leases) << "no report on a report";
  }
}

TEST_F(ShardRulesTest, APausedQueueStandsSaysWhyAndGoesOnWhenItsTimeHasCome) {
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

TEST_F(ShardRulesTest, APausedJobDoesNotStandBeforeOthersAndItsMailStillExpires) {
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

TEST_F(ShardRulesTest, StepsOfRetryAfterAndTheLastAttempt) {
  policy::v1::QueueSettings& settings = Defaults();
  for (int64_t minutes : {5, 20, 60}) {
    settings.mutable_retry_after()->add_us(minutes * 60'000'000);
  }
  settings.set_retry_recipients_after_us(int64_t{600'000'000});
  settings.set_max_delivery_attempts(4);
  SetPolicy();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  injector().Send({"a@x.example"});
  Run();
  // The later of its own step and retry-recipients-after (10 min): 10, 20, 60.
  size_t attempts = 1;
  for (int minutes : {10, 20, 60}) {
    ASSERT_EQ(worker.leases.size(), attempts);
    worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450,
                  "later");
    Run(std::chrono::minutes(minutes) - std::chrono::seconds(1));
    EXPECT_EQ(worker.leases.size(), attempts) << minutes;
    Run(std::chrono::seconds(2));
    ++attempts;
  }
  ASSERT_EQ(worker.leases.size(), 4U);
  worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "no");
  Run();
  EXPECT_EQ(Status().failed_total(), 1U);
  ASSERT_EQ(worker.leases.size(), 5U);
  EXPECT_EQ(worker.leases[4].lease.message().source_type(), common::v1::SOURCE_TYPE_DSN);
  EXPECT_EQ(worker.leases[4].lease.deliveries(0).rcpt(), "sender@from.example");
}

TEST_F(ShardRulesTest, NoDsnWhereThePolicyOrTheSenderWantsNone) {
  Defaults().set_suppress_local_dsn(true);
  SetPolicy();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  injector().Send({"a@x.example"});
  Run();
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_PERMANENT, 550, "no");
  Run();
  EXPECT_EQ(Status().failed_total(), 1U);
  EXPECT_EQ(Status().recipients(), 0U);
}

TEST_F(ShardRulesTest, ReroutedMailGoesByTheOtherVirtualMtaAndTheEventSaysWho) {
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

TEST_F(ShardRulesTest, OneSourceIpBelongsToOneWorker) {
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
TEST_F(ShardRulesTest, AQueueGoesToTheWorkerThatTheTableNames) {
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

TEST_F(ShardRulesTest, AnUploadThatNoMessageNamesIsRemoved) {
  struct Handler final : Stream<v1::UploadRequest, v1::UploadResponse>::Handler {
    void OnFrame(Frame<v1::UploadResponse> frame) override {
      if (frame.header.has_opened()) id = frame.header.opened().upload_id();
      if (frame.header.has_progress()) chunks = frame.header.progress().chunks();
    }
    void OnClosed(absl::Status) override {}
    uint64_t id = 0;
    uint32_t chunks = 0;
  };
  auto upload = [this](Handler& handler, bool last) {
    InprocStreamClient<v1::UploadRequest, v1::UploadResponse> client(shard_->upload());
    auto stream = client.Open(executor_);
    stream->Start(&handler);
    Frame<v1::UploadRequest> open;
    open.header.mutable_open()->set_token(1);
    stream->Send(std::move(open));
    Run();
    Frame<v1::UploadRequest> chunk;
    chunk.header.mutable_chunk()->set_upload_id(handler.id);
    chunk.header.mutable_chunk()->set_last(last);
    chunk.bodies.emplace_back(std::string(200'000, 'x'));
    stream->Send(std::move(chunk));
    Run();
    return stream;
  };
  Handler broken;
  auto stream = upload(broken, false);
  EXPECT_EQ(broken.chunks, 1U);
  EXPECT_EQ(store_.rows(Family::kBodies), 1U);
  stream.reset();
  Run();
  EXPECT_EQ(store_.rows(Family::kBodies), 0U) << "its stream ended without a commit";
  Handler finished;
  stream = upload(finished, true);
  EXPECT_EQ(store_.rows(Family::kBodies), 1U);
  stream.reset();
  Kill();
  Open();
  Run(std::chrono::seconds(1));
  EXPECT_EQ(store_.rows(Family::kBodies), 0U) << "a restart finds it by its row";
}

TEST_F(ShardRulesTest, VirtualMtasTakeTurnsAndPriorityWeighsInEach) {
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

TEST_F(ShardRulesTest, DispatchOrderGivesVirtualMtasEqualSharesAndQueuesTheirWeight) {
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

TEST_F(ShardRulesTest, AJobOfManyDoesNotDelayASmallOneInTheSameQueue) {
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

TEST_F(ShardRulesTest, TheIndexHoldsWhatStaysAndNothingOfWhatGoesThrough) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"}, "x", "", "", "");
  Run();
  EXPECT_EQ(store_.rows(Family::kIndex), 0U);
  EXPECT_EQ(Listed(ByRcpt("a@X.EXAMPLE")), 1) << "found among the recent";
  Run(std::chrono::minutes(2));
  EXPECT_GT(store_.rows(Family::kIndex), 0U);
  EXPECT_EQ(Listed(ByRcpt("a@x.example")), 1) << "found by the index";
  Kill();
  Open();
  EXPECT_EQ(Listed(ByRcpt("a@x.example")), 1);
  v1::MessageFilter sender;
  sender.set_sender("sender@from.example");
  EXPECT_EQ(Listed(sender), 0);
  TestWorker& again = AddWorker("w1", 2);
  again.auto_credit = 1;
  Run(std::chrono::seconds(2));
  ASSERT_EQ(again.leases.size(), 1U);
  again.Answer(again.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "");
  Run();
  EXPECT_EQ(store_.rows(Family::kIndex), 0U);
  EXPECT_EQ(Listed(ByRcpt("a@x.example")), 0);
  (void)worker;
}

TEST_F(ShardRulesTest, AMessageOfManyRecipientsIsFoundByEachOfThem) {
  std::vector<std::string> rcpts;
  for (int i = 0; i < 3000; ++i) rcpts.push_back("r" + std::to_string(i) + "@x.example");
  injector().Send(rcpts, "x", "", "", "list@from.example");
  Run();
  EXPECT_EQ(Listed(ByRcpt("r2999@x.example")), 1);
  v1::MessageFilter sender;
  sender.set_sender("list@from.example");
  v1::ListMessagesRequest request;
  *request.mutable_filter() = sender;
  request.set_limit(700);
  size_t seen = 0;
  for (int page = 0; page < 10; ++page) {
    std::optional<v1::ListMessagesResponse> response;
    shard_->ListMessages(request, [&response](auto answer) { response = *answer; });
    for (int i = 0; i < 100 && !response; ++i) Run(std::chrono::microseconds(1));
    ASSERT_TRUE(response);
    seen += static_cast<size_t>(response->recipients_size());
    if (response->after().empty()) break;
    request.set_after(response->after());
  }
  EXPECT_EQ(seen, 3000U);
}

TEST_F(ShardRulesTest, TheOutboxDropsWholeStretchesByAgeAlsoOfEarlierRuns) {
  injector().Send({"a@x.example"});
  Run(std::chrono::minutes(2));
  Kill();
  Open();
  injector().Send({"b@x.example"});
  Run(std::chrono::hours(23));
  v1::ReadEventsResponse events;
  auto read = [&] {
    std::optional<v1::ReadEventsResponse> response;
    shard_->ReadEvents({}, [&response](auto answer) { response = *answer; });
    return response->events_size();
  };
  EXPECT_EQ(read(), 2);
  Run(std::chrono::hours(2));
  EXPECT_EQ(read(), 0);
  EXPECT_EQ(Status().events_dropped_total(), 2U);
  EXPECT_EQ(store_.rows(Family::kEvents), 0U);
}

TEST_F(ShardRulesTest, AStepOfTheWallClockExpiresNothingAtOnce) {
  injector().Send({"a@x.example"}, "x", "", "", "");
  Run(std::chrono::minutes(1));
  executor_.StepWallClock(std::chrono::hours(24 * 30));
  Run(std::chrono::minutes(9));
  EXPECT_EQ(Status().expired_total(), 0U);
  Run(std::chrono::minutes(3));
  EXPECT_EQ(Status().expired_total(), 1U) << "it has been quiet: the new time is believed";
}

TEST_F(ShardRulesTest, ARestartAnnouncesNoQueueThatHasNothingDue) {
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

TEST_F(ShardRulesTest, MailThatIsDueEarlierThanWhatWasReadBeforeIsFoundAfterAKill) {
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

TEST_F(ShardRulesTest, AQueueTakesLessThanAKilobyteOfMemory) {
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
