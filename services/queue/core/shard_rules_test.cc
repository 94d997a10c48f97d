// Rules for the mail of one shard that need a policy or time: late answers, limits, retries,
// reports, copies, uploads, the index, the outbox.
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

class ShardRulesTest : public testing::PolicyShardFixture {};

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

// queue-interval: what waits is due at multiples of it, and never before its own time.
TEST_F(ShardRulesTest, RetriesAreDueTogetherAtTheQueueInterval) {
  constexpr int64_t kSecondUs = 1'000'000;
  auto& global = *Section("global").mutable_global();
  global.mutable_queue_defaults()->set_retry_recipients_after_us(100 * kSecondUs);
  global.mutable_queue_defaults()->mutable_retry_after()->add_us(100 * kSecondUs);
  global.mutable_settings()->set_queue_interval_us(60 * kSecondUs);
  SetPolicy();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  injector().Send({"a@x.example"});
  injector().Send({"a@y.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 2U);
  const int64_t asked_us = NowUs();
  for (const auto& held : worker.leases) {
    worker.Answer(held.lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
    Run(std::chrono::milliseconds(50));
  }
  std::vector<int64_t> due;
  for (auto rows = store_.Scan(Family::kDeliveries, "", "", false); rows->Valid(); rows->Next()) {
    due.push_back(DeliveryKey::Decode(rows->key())->due_us);
  }
  ASSERT_EQ(due.size(), 2U);
  EXPECT_EQ(due[0], due[1]) << "though deferred at different times";
  EXPECT_EQ(due[0] % (60 * kSecondUs), 0);
  EXPECT_GE(due[0], asked_us + 100 * kSecondUs);
  EXPECT_LE(due[0], asked_us + 161 * kSecondUs);
}

TEST_F(ShardRulesTest, AGroupHasAtMostMaxRcptPerTransaction) {
  Defaults().set_max_rcpt_per_transaction(2);
  SetPolicy();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  Run();
  injector().Send({"a@x.example", "b@x.example", "c@x.example", "d@x.example", "e@x.example"});
  Run();
  std::vector<int> sizes;
  for (const auto& held : worker.leases) sizes.push_back(held.lease.deliveries_size());
  EXPECT_EQ(sizes, (std::vector<int>{2, 2, 1}));
}

TEST_F(ShardRulesTest, ADnsErrorWaitsForItsOwnTime) {
  Defaults().set_retry_after_dns_error_us(int64_t{300} * 1'000'000);
  SetPolicy();
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  worker.Fail(worker.ready["x.example"].queue_ref(), true, false);
  Run();
  const int before = worker.announcements;
  Run(std::chrono::seconds(299));
  EXPECT_EQ(worker.announcements, before);
  Run(std::chrono::seconds(2));
  EXPECT_EQ(worker.announcements, before + 1);
}

TEST_F(ShardRulesTest, AFailureThatIsPermanentFromAnAgeOnLeavesYoungMailInTheQueue) {
  constexpr int64_t kHourUs = 3'600'000'000;
  TestWorker& worker = AddWorker();
  injector().Send({"old@x.example"});
  Run(std::chrono::hours(1));
  injector().Send({"young@x.example"});
  Run();
  v1::GetQueueRequest request;
  request.set_name("x.example/default");
  const auto fail = [&] {
    worker.Fail(worker.ready["x.example"].queue_ref(), true, true, kHourUs);
    Run();
    v1::QueueStatus queue;
    shard_->GetQueue(request, [&queue](auto response) { queue = response->queue(); });
    return queue;
  };
  v1::QueueStatus queue = fail();
  EXPECT_EQ(queue.recipients(), 1U);
  EXPECT_EQ(queue.mode(), "retry");
  Run(std::chrono::minutes(30));
  EXPECT_EQ(fail().recipients(), 1U);
  Run(std::chrono::minutes(31));
  EXPECT_EQ(fail().recipients(), 0U);
}

TEST_F(ShardRulesTest, MailIsPutOffFromMaxQueueSizeOnAndTakenAgainWhenThereIsRoom) {
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
  // Clients are not let in and turned away by turns.
  store_.health().live_bytes = 950'000;
  Run(std::chrono::seconds(2));
  EXPECT_FALSE(Status().accepting());
  const uint64_t again = injector().Send({"b@x.example"});
  Run();
  EXPECT_EQ(injector().outcome(again), v1::EnqueueResult::OUTCOME_REFUSED_FULL);
  store_.health().live_bytes = 870'000;
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

// idempotency-keep: a key is known for that long, and at most an hour more.
TEST_F(ShardRulesTest, IdempotencyKeysAreKeptAsLongAsThePolicySays) {
  Defaults();
  policy_.mutable_sections(0)
      ->mutable_content()
      ->mutable_global()
      ->mutable_settings()
      ->set_idempotency_keep_us(int64_t{5} * 3600 * 1'000'000);
  SetPolicy();
  injector().Send({"a@x.example"}, "x", "", "key");
  Run(std::chrono::minutes(299));
  const uint64_t second = injector().Send({"a@x.example"}, "x", "", "key");
  Run();
  EXPECT_EQ(injector().outcome(second), v1::EnqueueResult::OUTCOME_DUPLICATE);
  Run(std::chrono::minutes(62));
  EXPECT_EQ(store_.rows(Family::kKeys), 0U);
  const uint64_t third = injector().Send({"a@x.example"}, "x", "", "key");
  Run();
  EXPECT_EQ(injector().outcome(third), v1::EnqueueResult::OUTCOME_QUEUED);
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

TEST_F(ShardRulesTest, ADnsErrorHasAWaitOfItsOwn) {
  auto& settings = Defaults();
  settings.mutable_retry_after()->add_us(int64_t{1800} * 1'000'000);
  settings.set_retry_after_dns_error_us(int64_t{60} * 1'000'000);
  SetPolicy();
  TestWorker& worker = AddWorker();
  for (const bool dns : {true, false}) {
    const std::string domain = dns ? "dns.example" : "connect.example";
    injector().Send({"a@" + domain});
    Run();
    worker.Fail(worker.ready[domain].queue_ref(), dns, false);
    const int64_t failed_us = NowUs();
    Run();
    EXPECT_EQ(Queue(domain + "/default").retry_until_us(),
              failed_us + int64_t{dns ? 60 : 1800} * 1'000'000);
  }
}

// A remote may say more than is worth keeping, for each of many recipients.
TEST_F(ShardRulesTest, OfAReplyTwoKibibytesAreKept) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"a@x.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450,
                std::string(100'000, 'x'));
  Run();
  v1::ListMessagesRequest request;
  request.mutable_filter()->set_all(true);
  size_t kept = 0;
  shard_->ListMessages(request, [&kept](auto answer) {
    kept = answer->recipients(0).delivery().last_reply().text().size();
  });
  Run();
  EXPECT_EQ(kept, 2048U);
  v1::ReadEventsResponse events;
  shard_->ReadEvents({}, [&events](auto answer) { events = *answer; });
  ASSERT_EQ(events.events_size(), 2);
  EXPECT_EQ(events.events(1).reply().text().size(), 2048U);
}

// dsn-format, custom-dsn-from-header, dsn-failed-from-template, dsn-failed-subject-template,
// dsn-failed-body-template-from.
TEST_F(ShardRulesTest, ReportsHaveTheFormAndTheWordsThatThePolicySays) {
  auto& global = *Section("global").mutable_global();
  global.mutable_queue_defaults()->set_dsn_format("plain-text");
  global.mutable_queue_defaults()->set_notify_of_delay_every_us(3'600'000'000);
  global.mutable_settings()->set_host_name("mx.example");
  global.mutable_settings()->set_custom_dsn_from_header("Reports <reports@example>");
  SetPolicy();
  TestWorker& worker = AddWorker();
  worker.auto_credit = 10;
  const auto fail = [&] {
    worker.leases.clear();
    injector().Send({"a@x.example"});
    Run();
    worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_PERMANENT, 550, "no");
    Run();
    return worker.leases.size() == 2 ? worker.leases[1].body : "";
  };
  const std::string plain = fail();
  EXPECT_TRUE(plain.starts_with("From: Reports <reports@example>\r\n")) << plain;
  EXPECT_NE(plain.find("Content-Type: text/plain; charset=us-ascii\r\n"), std::string::npos);
  EXPECT_EQ(plain.find("multipart"), std::string::npos);
  global.mutable_queue_defaults()->set_dsn_format("standard");
  global.mutable_settings()->set_dsn_failed_from_template("Bounces <bounce@${host}>");
  global.mutable_settings()->set_dsn_failed_subject_template("${recipient}: ${status}");
  global.mutable_settings()->set_dsn_failed_body_template("Sorry, ${recipient} said ${diagnostic}");
  SetPolicy();
  const std::string report = fail();
  EXPECT_TRUE(report.starts_with("From: Bounces <bounce@mx.example>\r\n")) << report;
  EXPECT_NE(report.find("\r\nSubject: a@x.example: 5.0.0\r\n"), std::string::npos) << report;
  EXPECT_NE(report.find("\r\nSorry, a@x.example said no\r\n"), std::string::npos);
  EXPECT_NE(report.find("multipart/report"), std::string::npos);
  // A delay is no failure: it has the common From, and our words.
  worker.leases.clear();
  worker.auto_credit = 1;
  injector().Send({"b@x.example"});
  Run();
  worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "no");
  Run(std::chrono::hours(2));
  std::string delayed;
  for (const auto& held : worker.leases) {
    if (held.lease.message().source_type() == common::v1::SOURCE_TYPE_DSN) delayed = held.body;
  }
  EXPECT_TRUE(delayed.starts_with("From: Reports <reports@example>\r\n")) << delayed;
  EXPECT_NE(delayed.find("Subject: Delayed mail (still trying)\r\n"), std::string::npos);
}

TEST_F(ShardRulesTest, MaxEventsRecordedIsHowManyRepliesAreShown) {
  Defaults().set_max_events_recorded(3);
  SetPolicy();
  TestWorker& worker = AddWorker();
  for (int i = 0; i < 5; ++i) {
    injector().Send({"a@x.example"});
    Run();
    worker.Credit(worker.ready["x.example"].queue_ref(), 1);
    Run();
    worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450,
                  "reply " + std::to_string(i));
    Run();
  }
  const v1::QueueStatus status = Queue("x.example/default");
  ASSERT_EQ(status.last_replies_size(), 3);
  EXPECT_EQ(status.last_replies(0).text(), "reply 4");
  EXPECT_EQ(status.last_replies(2).text(), "reply 2");
  policy_.clear_sections();
  Defaults().set_max_events_recorded(0);
  SetPolicy();
  injector().Send({"a@x.example"});
  Run();
  worker.Credit(worker.ready["x.example"].queue_ref(), 1);
  Run();
  worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "no");
  Run();
  EXPECT_EQ(Queue("x.example/default").last_replies(0).text(), "reply 4");
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
  // The null sender is told of no delay.
  injector().Send({"a@x.example"}, "x", "", "", "");
  Run(std::chrono::minutes(2));
  Kill();
  Open();
  injector().Send({"b@x.example"}, "x", "", "", "");
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

}  // namespace
}  // namespace sluice::queue
