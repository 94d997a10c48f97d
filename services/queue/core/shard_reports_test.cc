// What senders and operators hear of mail: reports and their words, copies, replies that are kept.
#include <algorithm>

#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

class ShardReportsTest : public testing::PolicyShardFixture {};

// RFC 3461: who asked for SUCCESS is told here, unless the remote does it; nobody else is.
TEST_F(ShardReportsTest, SuccessIsReportedWhereTheRemoteDoesNotDoIt) {
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

// Of mail that grew too old in a queue that reached nobody, sender and event hear why nobody was
// reached.
TEST_F(ShardReportsTest, WhatExpiresInRetryModeSaysWhatStoodInTheWay) {
  TestWorker& worker = AddWorker("w1");
  injector().notify = 4;
  injector().Send({"a@x.example"});
  Run();
  for (int tries = 0; Status().expired_total() == 0; ++tries) {
    ASSERT_LT(tries, 24 * 5);
    if (const auto found = worker.ready.find("x.example"); found != worker.ready.end()) {
      worker.Fail(found->second.queue_ref(), false, false);
      worker.ready.erase(found);
    }
    Run(std::chrono::hours(1));
  }
  v1::ReadEventsResponse events;
  shard_->ReadEvents({}, [&events](auto answer) { events = *answer; });
  const auto expired =
      std::find_if(events.events().begin(), events.events().end(),
                   [](const auto& each) { return each.kind() == common::v1::EVENT_KIND_EXPIRED; });
  ASSERT_NE(expired, events.events().end());
  EXPECT_EQ(expired->reply().text(), "no MX answers");
  EXPECT_EQ(expired->dsn_status(), "4.4.7");
  ASSERT_TRUE(worker.ready.contains("from.example"));
  worker.Credit(worker.ready["from.example"].queue_ref(), 1);
  Run();
  ASSERT_EQ(worker.leases.size(), 1u);
  EXPECT_NE(worker.leases[0].body.find("no MX answers"), std::string::npos)
      << worker.leases[0].body;
}

// RFC 3030 section 3: what is no text is not put in a report, which goes as lines to any host.
TEST_F(ShardReportsTest, OfBinaryMailAReportHasTheHeaderAlone) {
  TestWorker& worker = AddWorker("w1");
  worker.auto_credit = 20;
  for (const bool binary : {false, true}) {
    injector().edit = [binary](v1::NewMessage& message) {
      message.mutable_message()->set_dsn_return(common::v1::DSN_RETURN_FULL);
      if (binary) message.mutable_message()->set_body_type(common::v1::BODY_TYPE_BINARYMIME);
    };
    injector().Send({"a@x.example"}, "Subject: x\r\n\r\na\n.\nMAIL FROM:<evil@x>\r\n");
    Run();
    worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_PERMANENT, 550,
                  "no");
    Run();
    const std::string report = worker.leases.back().body;
    EXPECT_NE(report.find("Subject: x\r\n"), std::string::npos) << report;
    EXPECT_EQ(report.find("evil") == std::string::npos, binary) << report;
    EXPECT_EQ(report.find("text/rfc822-headers") != std::string::npos, binary) << report;
    worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250,
                  "ok");
    Run();
  }
}

// Diagnostic-Code has the remote's reply with the status that it had; one of ours has none.
TEST_F(ShardReportsTest, TheRemotesWordsAreThereInFull) {
  TestWorker& worker = AddWorker("w1");
  worker.auto_credit = 20;
  for (const bool local : {false, true}) {
    injector().Send({"a@x.example"}, "Subject: x\r\n\r\nx\r\n");
    Run();
    Frame<v1::DispatchRequest> frame;
    auto* result = frame.header.add_results();
    result->set_lease_id(worker.leases.back().lease.lease_id());
    result->set_outcome(v1::RECIPIENT_OUTCOME_PERMANENT);
    result->mutable_reply()->set_code(local ? 0 : 550);
    result->mutable_reply()->set_enhanced("5.1.1");
    result->mutable_reply()->set_text("no such user");
    result->mutable_reply()->set_local(local);
    worker.Say(std::move(frame));
    Run();
    const std::string& report = worker.leases.back().body;
    EXPECT_NE(report.find("\r\nStatus: 5.1.1\r\n"), std::string::npos) << report;
    EXPECT_NE(report.find(local ? "\r\nDiagnostic-Code: x-sluice; no such user\r\n"
                                : "\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n"),
              std::string::npos)
        << report;
    worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250,
                  "ok");
    Run();
  }
}

// RFC 8689 section 5.
TEST_F(ShardReportsTest, TheReportOfMailThatRequiresTlsRequiresIt) {
  TestWorker& worker = AddWorker("w1");
  worker.auto_credit = 20;
  for (const bool required : {false, true}) {
    injector().edit = [required](v1::NewMessage& message) {
      message.mutable_message()->set_dsn_return(common::v1::DSN_RETURN_FULL);
      message.mutable_message()->set_require_tls(required);
    };
    injector().Send({"a@x.example"}, "Subject: x\r\n\r\nsecret\r\n");
    Run();
    worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_PERMANENT, 550,
                  "no");
    Run();
    EXPECT_EQ(worker.leases.back().lease.message().require_tls(), required);
    EXPECT_EQ(worker.leases.back().body.find("secret") == std::string::npos, required);
    worker.Answer(worker.leases.back().lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250,
                  "ok");
    Run();
  }
}

// postmaster, dsn-format, custom-dsn-from-header, dsn-failed-from-template,
// dsn-failed-subject-template, dsn-failed-body-template-from.
TEST_F(ShardReportsTest, ReportsHaveTheFormAndTheWordsThatThePolicySays) {
  auto& global = *Section("global").mutable_global();
  global.mutable_queue_defaults()->set_dsn_format("plain-text");
  global.mutable_queue_defaults()->set_notify_of_delay_every_us(3'600'000'000);
  global.mutable_settings()->set_host_name("mx.example");
  global.mutable_settings()->set_postmaster("post@brand.example");
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
  const std::string common = fail();
  EXPECT_TRUE(common.starts_with("From: Mail Delivery System <post@brand.example>\r\n")) << common;
  global.mutable_settings()->set_custom_dsn_from_header("Reports <reports@example>");
  SetPolicy();
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

TEST_F(ShardReportsTest, NoDsnWhereThePolicyOrTheSenderWantsNone) {
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

TEST_F(ShardReportsTest, WhatWasDeliveredIsCopiedOnceAndCopiesAreNot) {
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

// A remote may say more than is worth keeping, for each of many recipients.
TEST_F(ShardReportsTest, OfAReplyTwoKibibytesAreKept) {
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

TEST_F(ShardReportsTest, MaxEventsRecordedIsHowManyRepliesAreShown) {
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

}  // namespace
}  // namespace sluice::queue
