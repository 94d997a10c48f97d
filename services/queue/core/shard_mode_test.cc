// Backoff mode and disabled sources in the shard: durable, agreed on with workers, ended by time,
// changed by operators, seen by all.
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::TestWorker;

constexpr int64_t kMinuteUs = int64_t{60} * 1'000'000;

class ShardModeTest : public testing::PolicyShardFixture {
 protected:
  void SetUp() override {
    options_.log = &log_;
    PolicyShardFixture::SetUp();
  }
  static LogOptions Keep(std::string& text) {
    LogOptions options;
    options.sink = [&text](std::string_view line) { text.append(line).append("\n"); };
    return options;
  }
  std::string logged_;
  Log log_{Keep(logged_), executor_.clock()};

  // Has a queue "x.example/default" with one message, announced to a worker.
  TestWorker& Begin() {
    TestWorker& worker = AddWorker();
    injector().Send({"a@x.example"});
    Run();
    return worker;
  }
  v1::QueueModeChange Backoff(TestWorker& worker, int64_t until_us = 0) {
    v1::QueueModeChange change;
    change.set_queue_ref(worker.ready.at("x.example").queue_ref());
    change.mutable_mode()->set_backoff(true);
    change.mutable_mode()->set_since_us(NowUs());
    change.mutable_mode()->set_until_us(until_us);
    change.mutable_mode()->set_author("w1");
    change.mutable_mode()->set_reason("421 too many");
    return change;
  }
  absl::Status Set(bool backoff, int64_t until_us = 0) {
    v1::SetQueueModeRequest request;
    request.set_pattern("x.example/*");
    request.set_backoff(backoff);
    request.set_author("olive");
    request.set_reason("asked to");
    request.set_until_us(until_us);
    std::optional<absl::Status> result;
    shard_->SetQueueMode(request, [&result](auto response) { result = response.status(); });
    Run();
    return result.value_or(absl::DeadlineExceededError("no answer"));
  }
  std::vector<common::v1::Event> Events(common::v1::EventKind kind) {
    std::vector<common::v1::Event> events;
    shard_->ReadEvents({}, [&](auto response) {
      for (const auto& event : response->events()) {
        if (event.kind() == kind) events.push_back(event);
      }
    });
    Run();
    return events;
  }
  std::vector<v1::QueueStatus> List(const std::string& mode) {
    v1::ListQueuesRequest request;
    request.set_mode(mode);
    std::vector<v1::QueueStatus> queues;
    shard_->ListQueues(request, [&](auto response) {
      queues.assign(response->queues().begin(), response->queues().end());
    });
    Run();
    return queues;
  }
};

TEST_F(ShardModeTest, SurvivesAKillAndIsAnnounced) {
  TestWorker& worker = Begin();
  worker.SendMode(Backoff(worker));
  Run();
  EXPECT_EQ(Queue("x.example/default").mode(), "backoff");
  EXPECT_EQ(Queue("x.example/default").backoff().reason(), "421 too many");
  const auto events = Events(common::v1::EVENT_KIND_QUEUE_BACKOFF);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].author(), "w1");
  EXPECT_EQ(events[0].queue(), "x.example/default");
  Kill();
  Open();
  EXPECT_EQ(List("backoff").size(), 1U);
  EXPECT_EQ(List("normal").size(), 0U);
  TestWorker& next = AddWorker("w1", 2);
  Run();
  EXPECT_TRUE(next.ready.at("x.example").mode().backoff());
  EXPECT_EQ(next.ready.at("x.example").mode().reason(), "421 too many");
}

TEST_F(ShardModeTest, TheLaterChangeHoldsAndWhoKnowsLessHearsOfIt) {
  TestWorker& worker = Begin();
  const v1::QueueModeChange early = Backoff(worker);
  Run();
  ASSERT_TRUE(Set(true).ok());
  ASSERT_EQ(worker.modes.size(), 1U) << "at once";
  EXPECT_TRUE(worker.modes[0].mode().by_operator());
  worker.SendMode(early);
  Run();
  EXPECT_EQ(Queue("x.example/default").backoff().author(), "olive");
  ASSERT_EQ(worker.modes.size(), 2U);
  EXPECT_EQ(worker.modes[1].mode().author(), "olive");
}

// backoff-retry-after, for the queue and for a recipient.
TEST_F(ShardModeTest, BackoffRetryAfterHoldsInBackoffMode) {
  auto& settings = Defaults();
  settings.mutable_retry_after()->add_us(10 * kMinuteUs);
  settings.set_retry_recipients_after_us(kMinuteUs);
  settings.mutable_backoff_retry_after()->add_us(30 * kMinuteUs);
  settings.mutable_backoff_retry_after()->add_us(60 * kMinuteUs);
  SetPolicy();
  TestWorker& worker = Begin();
  worker.auto_credit = 1;
  worker.SendMode(Backoff(worker));
  const uint64_t ref = worker.ready.at("x.example").queue_ref();
  worker.Fail(ref, false, false);
  Run();
  EXPECT_NEAR(static_cast<double>(Queue("x.example/default").retry_until_us() - NowUs()),
              30.0 * kMinuteUs, 1e6);
  EXPECT_EQ(Queue("x.example/default").mode(), "backoff");
  EXPECT_EQ(List("retry").size(), 1U) << "both";
  Run(minutes(31));
  ASSERT_EQ(worker.leases.size(), 1U);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  Run();
  EXPECT_NEAR(static_cast<double>(Queue("x.example/default").next_time_us() - NowUs()),
              30.0 * kMinuteUs, 1e6);
  EXPECT_EQ(Queue("x.example/default").mode(), "backoff") << "an answer ends retry mode alone";
  ASSERT_TRUE(Set(false).ok());
  Run(minutes(31));
  ASSERT_EQ(worker.leases.size(), 2U);
  worker.Answer(worker.leases[1].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  Run();
  EXPECT_NEAR(static_cast<double>(Queue("x.example/default").next_time_us() - NowUs()),
              10.0 * kMinuteUs, 1e6);
}

TEST_F(ShardModeTest, EndsByTimeAlsoWithoutAWorker) {
  TestWorker& worker = Begin();
  worker.SendMode(Backoff(worker, NowUs() + 5 * kMinuteUs));
  Run();
  workers_.clear();
  Run(minutes(4));
  EXPECT_EQ(Queue("x.example/default").mode(), "backoff");
  Run(minutes(2));
  EXPECT_EQ(Queue("x.example/default").mode(), "normal");
  const auto events = Events(common::v1::EVENT_KIND_QUEUE_NORMAL);
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].reason(), "the time of backoff mode is over");
}

// An empty queue in backoff mode is kept, as mail may come again; not for ever.
TEST_F(ShardModeTest, IsKeptWhileTheQueueIsEmpty) {
  TestWorker& worker = Begin();
  worker.auto_credit = 1;
  worker.SendMode(Backoff(worker));
  worker.Credit(worker.ready.at("x.example").queue_ref(), 1);
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run(hours(1));
  injector().Send({"b@x.example"});
  Run();
  EXPECT_EQ(Queue("x.example/default").mode(), "backoff");
  ASSERT_EQ(worker.leases.size(), 2U);
  worker.Answer(worker.leases[1].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run(hours(24 * 8));
  EXPECT_EQ(Queue("x.example/default").name(), "");
}

// A name without mail gets a row, so that mail to come finds the mode; it stays until an operator
// says otherwise, through kills and for as long as there is no mail.
TEST_F(ShardModeTest, AnOperatorsModeOfAQueueWithoutMail) {
  Section("virtual-mta/v1").mutable_virtual_mta()->set_name("V1");
  SetPolicy();
  v1::SetQueueModeRequest request;
  request.add_names("New.Example/v1");
  request.set_backoff(true);
  request.set_author("olive");
  std::optional<absl::StatusOr<v1::SetQueueModeResponse>> said;
  const auto ask = [&] {
    said.reset();
    shard_->SetQueueMode(request, [&said](auto response) { said = std::move(response); });
    Run();
  };
  ask();
  ASSERT_TRUE(said.has_value() && said->ok()) << said->status();
  EXPECT_EQ((*said)->queues(), 1U);
  EXPECT_EQ((*said)->changed(0), "new.example/V1") << "as the queue will be named";
  EXPECT_EQ(Events(common::v1::EVENT_KIND_QUEUE_BACKOFF).size(), 1U);
  Run(hours(24 * 8));
  Kill();
  Open();
  SetPolicy();
  EXPECT_EQ(Queue("new.example/V1").mode(), "backoff");
  TestWorker& worker = AddWorker("w1", 1, {}, {"V1"});
  injector().SendVia("V1", "a@new.example");
  Run();
  ASSERT_TRUE(worker.ready.contains("new.example"));
  EXPECT_TRUE(worker.ready.at("new.example").mode().by_operator());

  request.set_names(0, "new.example/none");
  ask();
  EXPECT_TRUE(absl::IsNotFound(said->status()));
  request.set_names(0, "new.example");
  ask();
  EXPECT_TRUE(absl::IsInvalidArgument(said->status()));
  request.set_names(0, "new.example/V1");
  for (const int64_t until_us : {INT64_MAX, INT64_MIN}) {
    request.set_until_us(until_us);
    ask();
    EXPECT_TRUE(absl::IsInvalidArgument(said->status()));
  }
}

// Elsewhere it was in backoff mode, so this shard is told of "normal" by name: later than what a
// worker may remember.
TEST_F(ShardModeTest, AnOperatorsNormalContradictsWhoHasNotHeardOfIt) {
  TestWorker& worker = Begin();
  const v1::QueueModeChange early = Backoff(worker);
  Run(seconds(1));
  v1::SetQueueModeRequest request;
  request.add_names("x.example/default");
  std::optional<v1::SetQueueModeResponse> said;
  shard_->SetQueueMode(request, [&said](auto response) { said = *response; });
  Run();
  EXPECT_EQ(said->queues(), 1U);
  EXPECT_EQ(said->changed_size(), 0) << "it was normal here";
  EXPECT_EQ(Events(common::v1::EVENT_KIND_QUEUE_NORMAL).size(), 0U);
  worker.modes.clear();
  worker.SendMode(early);
  Run();
  EXPECT_EQ(Queue("x.example/default").mode(), "normal");
  ASSERT_EQ(worker.modes.size(), 1U);
  EXPECT_FALSE(worker.modes[0].mode().backoff());
}

// Thousands are no long turn of the shard, and each has its event.
TEST_F(ShardModeTest, APatternGoesOverManyQueues) {
  constexpr int kQueues = 1500;
  for (int i = 0; i < kQueues; ++i) injector().Send({"a@x" + std::to_string(i) + ".example"});
  injector().Send({"a@other.test"});
  Run(seconds(1));
  v1::SetQueueModeRequest request;
  request.set_pattern("*.example/*");
  request.set_backoff(true);
  std::optional<v1::SetQueueModeResponse> said;
  shard_->SetQueueMode(request, [&said](auto response) { said = *response; });
  EXPECT_FALSE(said.has_value());
  Run(seconds(1));
  ASSERT_TRUE(said.has_value());
  EXPECT_EQ(said->queues(), uint64_t{kQueues});
  EXPECT_EQ(said->changed_size(), kQueues);
  EXPECT_EQ(List("backoff").size(), 1000U) << "a page";
  EXPECT_EQ(Queue("other.test/default").mode(), "normal");
}

TEST_F(ShardModeTest, BackoffNotifyAndDisabledSourceIpNotifySendMail) {
  auto& settings = Defaults();
  settings.mutable_backoff_notify()->add_values("ops@ours.example");
  settings.mutable_disabled_source_ip_notify()->add_values("net@ours.example");
  SetPolicy();
  TestWorker& worker = Begin();
  v1::QueueModeChange change = Backoff(worker);
  worker.auto_credit = 5;
  change.mutable_mode()->set_notify(true);
  worker.SendMode(change);
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  EXPECT_EQ(worker.leases[0].lease.deliveries(0).rcpt(), "ops@ours.example");
  EXPECT_NE(worker.leases[0].body.find("Subject: Queue x.example/default is in backoff mode\r\n"),
            std::string::npos);
  EXPECT_NE(worker.leases[0].body.find("    421 too many\r\n"), std::string::npos);
  EXPECT_TRUE(worker.leases[0].lease.message().mail_from().empty());
  Run(minutes(2));
  auto* source = change.add_sources();
  source->set_ip("192.0.2.7");
  source->set_disabled(true);
  source->set_notify(true);
  source->set_since_us(NowUs());
  source->set_reason("550 listed");
  worker.SendMode(change);
  Run();
  ASSERT_EQ(worker.leases.size(), 2U);
  EXPECT_EQ(worker.leases[1].lease.deliveries(0).rcpt(), "net@ours.example");
}

TEST_F(ShardModeTest, DisabledSourcesAreDurableAndAnOperatorEnablesThem) {
  Defaults().set_log_disabled_ips(true);
  SetPolicy();
  TestWorker& worker = Begin();
  v1::QueueModeChange change;
  change.set_queue_ref(worker.ready.at("x.example").queue_ref());
  auto* source = change.add_sources();
  source->set_ip("192.0.2.7");
  source->set_disabled(true);
  source->set_since_us(NowUs());
  source->set_until_us(NowUs() + 60 * kMinuteUs);
  source = change.add_sources();
  *source = change.sources(0);
  source->set_ip("192.0.2.8");
  source->set_until_us(0);
  worker.SendMode(change);
  Run();
  EXPECT_NE(logged_.find("event=source_disabled"), std::string::npos) << logged_;
  EXPECT_NE(logged_.find("source=192.0.2.8"), std::string::npos);
  Kill();
  Open();
  TestWorker& next = AddWorker("w1", 2);
  Run();
  EXPECT_EQ(next.ready.at("x.example").sources_size(), 2);
  EXPECT_EQ(Queue("x.example/default").sources_size(), 2);
  Run(minutes(61));
  ASSERT_EQ(Queue("x.example/default").sources_size(), 1);
  EXPECT_EQ(Queue("x.example/default").sources(0).ip(), "192.0.2.8");
  v1::SetQueueSourceRequest request;
  request.set_pattern("x.example/default");
  request.set_ip("192.0.2.8");
  shard_->SetQueueSource(request, [](auto response) { EXPECT_EQ(response->queues(), 1U); });
  Run();
  EXPECT_EQ(Queue("x.example/default").sources_size(), 0);
  ASSERT_EQ(next.modes.size(), 1U);
  EXPECT_EQ(Events(common::v1::EVENT_KIND_SOURCE_DISABLED).size(), 2U);
  EXPECT_EQ(Events(common::v1::EVENT_KIND_SOURCE_ENABLED).size(), 2U);
}

}  // namespace
}  // namespace sluice::queue
