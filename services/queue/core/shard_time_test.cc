// What runs by the clock, and what a shard keeps of it over a kill: delay notices, the freeze after
// a step of the wall clock, the outbox's bounds as configured; and queues that fail for good.
#include "services/queue/testing/shard_fixture.h"

namespace sluice::queue {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using testing::ShardFixture;
using testing::TestWorker;

class ShardTimeTest : public ShardFixture {
 protected:
  void Use(const policy::v1::GlobalSection& global) {
    policy::v1::PolicySnapshot snapshot;
    snapshot.set_version(++version_);
    auto* section = snapshot.add_sections();
    section->set_name("global");
    *section->mutable_content()->mutable_global() = global;
    auto view = config::PolicyView::Build(snapshot);
    ASSERT_TRUE(view.ok()) << view.status();
    shard_->SetPolicy(*view);
  }
  std::vector<common::v1::Event> Events(common::v1::EventKind kind) {
    std::vector<common::v1::Event> found;
    shard_->ReadEvents({}, [&](auto response) {
      for (const auto& event : response->events()) {
        if (event.kind() == kind) found.push_back(event);
      }
    });
    return found;
  }
  uint64_t version_ = 0;
};

// notify-of-delay-every: the sender hears again and again, in every state of the queue, and the
// recipient stays where it is.
TEST_F(ShardTimeTest, ASenderIsToldOfADelayAgainAndAgain) {
  policy::v1::GlobalSection global;
  global.mutable_queue_defaults()->set_notify_of_delay_every_us(int64_t{4} * 3'600'000'000);
  Use(global);
  injector().Send({"a@d.example"});
  injector().Send({"b@d.example"}, "x", "", "", "");  // the null sender hears of nothing
  Run(hours(3));
  EXPECT_TRUE(Events(common::v1::EVENT_KIND_DELAYED).empty());
  Run(hours(1) + minutes(5));
  ASSERT_EQ(Events(common::v1::EVENT_KIND_DELAYED).size(), 1u);
  EXPECT_EQ(Events(common::v1::EVENT_KIND_DELAYED)[0].rcpt(), "a@d.example");
  EXPECT_EQ(Status().recipients(), 3u) << "two, and the notice";
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  Run();
  bool told = false;
  for (const auto& held : worker.leases) {
    if (held.lease.message().source_type() != common::v1::SOURCE_TYPE_DSN) continue;
    told = held.body.find("Action: delayed") != std::string::npos &&
           held.body.find("Will-Retry-Until:") != std::string::npos;
  }
  EXPECT_TRUE(told);
  worker.Drop();
  Kill();
  Open();
  Use(global);
  Run(hours(4) + minutes(5));
  EXPECT_EQ(Events(common::v1::EVENT_KIND_DELAYED).size(), 2u);
}

// The remote's "no such domain" holds for all of the queue's mail, whenever it is due.
TEST_F(ShardTimeTest, APermanentQueueFailureBouncesWhatIsDeferredToo) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1000;
  for (int i = 0; i < 1200; ++i) injector().Send({"a@d.example"}, "x", i % 3 == 0 ? "job" : "");
  Run();
  ASSERT_EQ(worker.leases.size(), 1200u);
  worker.auto_credit = 0;
  for (const auto& held : worker.leases) {
    worker.Answer(held.lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  }
  Run();
  ASSERT_EQ(Status().transient_total(), 1200u);
  worker.Fail(worker.ready["d.example"].queue_ref(), true, true);
  Run();
  EXPECT_EQ(Status().failed_total(), 1200u);
}

// accept-invalid-recipients: what comes with its time over and its verdict goes back at once for
// that, and holds up nobody.
TEST_F(ShardTimeTest, WhatComesWithItsVerdictGoesBackAtOnce) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  Run();
  injector().edit = [&](v1::NewMessage& message) {
    auto& late = *message.add_deliveries()->mutable_delivery();
    late.set_rcpt("no address");
    late.set_rcpt_given("no address");
    late.set_vmta("default");
    late.set_queue_domain("invalid-recipients.invalid");
    late.set_expires_us(ToUnixMicros(executor_.clock().WallNow()));
    late.mutable_last_reply()->set_code(501);
    late.mutable_last_reply()->set_enhanced("5.1.3");
    late.mutable_last_reply()->set_local(true);
  };
  injector().Send({"a@d.example"});
  injector().edit = nullptr;
  Run(minutes(2));
  EXPECT_EQ(Status().failed_total(), 1u);
  ASSERT_EQ(Events(common::v1::EVENT_KIND_FAILED).size(), 1u);
  EXPECT_EQ(Events(common::v1::EVENT_KIND_FAILED)[0].dsn_status(), "5.1.3");
  bool sent = false, told = false;
  std::string reports;
  for (const auto& held : worker.leases) {
    ASSERT_EQ(held.lease.deliveries_size(), 1);
    EXPECT_NE(held.lease.deliveries(0).rcpt(), "no address");
    sent |= held.lease.deliveries(0).rcpt() == "a@d.example";
    told |= held.lease.message().source_type() == common::v1::SOURCE_TYPE_DSN &&
            held.body.find("no address") != std::string::npos &&
            held.body.find("Status: 5.1.3") != std::string::npos;
    reports += held.body;
  }
  EXPECT_TRUE(sent);
  EXPECT_TRUE(told) << reports;
}

// X-Schedule: nothing leaves before its time, and what is not gone by its end goes back.
TEST_F(ShardTimeTest, AMessageWaitsForItsWindowAndGoesBackBehindIt) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  Run();
  const int64_t now_us = ToUnixMicros(executor_.clock().WallNow());
  injector().edit = [&](v1::NewMessage& message) {
    message.mutable_message()->set_not_before_us(now_us + int64_t{3'600'000'000});
    message.mutable_deliveries(0)->mutable_delivery()->set_expires_us(now_us +
                                                                      int64_t{5'400'000'000});
  };
  injector().Send({"a@d.example"});
  injector().edit = nullptr;
  Run(minutes(59));
  EXPECT_TRUE(worker.leases.empty());
  Run(minutes(2));
  ASSERT_EQ(worker.leases.size(), 1u);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  Run();
  worker.Drop();
  Run(minutes(31));
  EXPECT_EQ(Status().expired_total(), 1u);
}

// X-Schedule with several windows: a retry, and mail that no worker took in its window, wait for
// the next one.
TEST_F(ShardTimeTest, AMessageLeavesInsideItsWindowsOnly) {
  constexpr int64_t kHourUs = 3'600'000'000;
  TestWorker& worker = AddWorker();
  Run();
  const int64_t now_us = ToUnixMicros(executor_.clock().WallNow());
  injector().edit = [&](v1::NewMessage& message) {
    message.mutable_message()->set_not_before_us(now_us + kHourUs);
    common::v1::Delivery& delivery = *message.mutable_deliveries(0)->mutable_delivery();
    for (int day = 0; day < 3; ++day) {
      auto* window = delivery.add_windows();
      window->set_begin_us(now_us + day * 24 * kHourUs + kHourUs);
      window->set_end_us(now_us + day * 24 * kHourUs + kHourUs + kHourUs / 12);  // five minutes
      delivery.set_expires_us(window->end_us());
    }
  };
  injector().Send({"a@d.example"});
  injector().edit = nullptr;
  // Nobody has a credit for it on the first day.
  Run(hours(2));
  ASSERT_EQ(worker.ready.size(), 1u);
  worker.Credit(worker.ready.begin()->second.queue_ref(), 1);
  Run(hours(22) + minutes(59));
  EXPECT_TRUE(worker.leases.empty());
  worker.auto_credit = 1;
  worker.Credit(worker.ready.begin()->second.queue_ref(), 1);
  Run(minutes(2));
  ASSERT_EQ(worker.leases.size(), 1u);
  // The next step of retry-after lies behind the window.
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  worker.Credit(worker.ready.begin()->second.queue_ref(), 1);
  Run(hours(23) + minutes(55));
  EXPECT_EQ(worker.leases.size(), 1u);
  Run(minutes(5));
  ASSERT_EQ(worker.leases.size(), 2u);
  worker.Answer(worker.leases[1].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  Run(hours(1));
  EXPECT_EQ(Status().expired_total(), 1u);
}

TEST_F(ShardTimeTest, AFreezeOfExpirySurvivesAKill) {
  injector().Send({"a@d.example"}, "x", "", "", "");
  Run(minutes(1));
  executor_.StepWallClock(hours(24 * 30));
  Run(minutes(2));
  Kill();
  Open();
  Run(minutes(6));
  EXPECT_EQ(Status().expired_total(), 0u);
  EXPECT_GT(Status().expiry_frozen_us(), 0) << "operators see it";
  Run(minutes(5));
  EXPECT_EQ(Status().expired_total(), 1u);
  EXPECT_EQ(Status().expiry_frozen_us(), 0);
}

TEST_F(ShardTimeTest, AnOperatorConfirmsTheClock) {
  injector().Send({"a@d.example"}, "x", "", "", "");
  Run(minutes(1));
  executor_.StepWallClock(hours(24 * 30));
  Run(minutes(2));
  EXPECT_EQ(Status().expired_total(), 0u);
  EXPECT_NEAR(static_cast<double>(Status().clock_step_us()), 24.0 * 30 * 3600 * 1e6, 1e6);
  v1::ConfirmClockRequest request;
  request.set_author("olive");
  std::optional<v1::ConfirmClockResponse> said;
  const auto confirm = [&] {
    shard_->ConfirmClock(request, [&said](auto response) { said = *response; });
    Run();
  };
  confirm();
  EXPECT_GT(said->was_frozen_us(), 0);
  EXPECT_EQ(Status().expiry_frozen_us(), 0);
  EXPECT_EQ(Status().clock_step_us(), 0);
  Run(minutes(1));
  EXPECT_EQ(Status().expired_total(), 1u);
  // Durable; and a step that comes later is another one.
  Kill();
  Open();
  EXPECT_EQ(Status().expiry_frozen_us(), 0);
  confirm();
  EXPECT_EQ(said->was_frozen_us(), 0) << "nothing waits for it";
  executor_.StepWallClock(hours(2));
  Run(minutes(2));
  EXPECT_GT(Status().expiry_frozen_us(), 0);
}

TEST_F(ShardTimeTest, AStepWhileTheShardWasDownExpiresNothingAtOnce) {
  injector().Send({"a@d.example"}, "x", "", "", "");
  Run(minutes(1));
  Kill();
  executor_.StepWallClock(hours(24 * 30));
  Open();
  Run(minutes(9));
  EXPECT_EQ(Status().expired_total(), 0u);
  Run(minutes(3));
  EXPECT_EQ(Status().expired_total(), 1u);
}

// Time that went by in truth is no step.
TEST_F(ShardTimeTest, MailThatGrewTooOldWhileTheShardWasDownExpires) {
  injector().Send({"a@d.example"}, "x", "", "", "");
  Run(minutes(1));
  Kill();
  executor_.Advance(hours(24 * 30));
  Open();
  Run(minutes(2));
  EXPECT_EQ(Status().expired_total(), 1u);
}

TEST_F(ShardTimeTest, BytesAreThoseOfTheQueuedMailAlsoAfterAKill) {
  injector().Send({"a@d.example", "b@d.example"}, std::string(1000, 'x'));
  injector().Send({"c@d.example"}, std::string(500, 'x'));
  Run();
  EXPECT_EQ(Status().bytes(), 1500u);
  Kill();
  Open();
  EXPECT_EQ(Status().bytes(), 1500u);
  v1::DeleteMessagesRequest request;
  request.mutable_filter()->set_rcpt("c@d.example");
  shard_->DeleteMessages(request, [](auto) {});
  Run();
  EXPECT_EQ(Status().bytes(), 1000u);
}

TEST_F(ShardTimeTest, TheStatusSaysHowOldTheSnapshotIs) {
  EXPECT_EQ(Status().snapshot_age_us(), 0) << "there is none";
  Use({});
  Run(minutes(3));
  EXPECT_EQ(Status().snapshot_age_us(), 180'000'000);
}

// events-keep and events-keep-size.
TEST_F(ShardTimeTest, TheOutboxKeepsWhatIsConfigured) {
  policy::v1::GlobalSection global;
  global.mutable_settings()->set_events_keep_us(3'600'000'000);
  Use(global);
  injector().Send({"a@d.example"});
  Run(minutes(50));
  EXPECT_EQ(Events(common::v1::EVENT_KIND_RECEIVED).size(), 1u);
  Run(minutes(15));
  EXPECT_EQ(Events(common::v1::EVENT_KIND_RECEIVED).size(), 0u);
  global.mutable_settings()->set_events_keep_us(int64_t{240} * 3'600'000'000);
  global.mutable_settings()->set_events_keep_bytes(1);
  Use(global);
  injector().Send({"b@d.example"});
  Run(minutes(5));
  EXPECT_EQ(Events(common::v1::EVENT_KIND_RECEIVED).size(), 0u) << "more than a byte";
}

// A small size keeps the latest events, and not those of the last minute or none.
TEST_F(ShardTimeTest, ASmallOutboxKeepsTheLatest) {
  policy::v1::GlobalSection global;
  global.mutable_settings()->set_events_keep_bytes(64 << 10);
  Use(global);
  constexpr size_t kMessages = 2000;  // some 200 bytes each
  for (size_t i = 0; i < kMessages; ++i) {
    injector().Send({"a@d.example"});
    Run(std::chrono::milliseconds(10));
  }
  Run(std::chrono::seconds(1));
  const auto events = Events(common::v1::EVENT_KIND_RECEIVED);
  size_t bytes = 0;
  for (const auto& event : events) bytes += event.ByteSizeLong();
  EXPECT_GT(bytes, size_t{32} << 10);
  EXPECT_LT(bytes, size_t{80} << 10);
  EXPECT_EQ(Status().events_dropped_total(), kMessages - events.size());
}

// Keys are times, and tell how old mail is: a shard that is killed again and again gives none of
// the future, however often.
TEST_F(ShardTimeTest, KillsDoNotMakeMailYounger) {
  for (int kill = 0; kill < 50; ++kill) {
    injector().Send({"a@d.example"});
    Run(std::chrono::seconds(1));
    Kill();
    Open();
  }
  injector().Send({"b@new.example"});
  Run(std::chrono::seconds(3));
  v1::MessageFilter filter;
  filter.set_queue_pattern("new.example/*");
  filter.set_older_than_us(1'000'000);
  v1::ListMessagesRequest request;
  *request.mutable_filter() = filter;
  int listed = 0;
  shard_->ListMessages(std::move(request),
                       [&listed](auto answer) { listed = answer->recipients_size(); });
  Run();
  EXPECT_EQ(listed, 1);
}

}  // namespace
}  // namespace sluice::queue
