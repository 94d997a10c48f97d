// Proves that reports by mail are queued as ours, tried again, and never sent twice.
#include "services/node/report_mailer.h"

#include <gtest/gtest.h>

#include "services/base/testing/manual_executor.h"
#include "services/ingest/testing/fake_shard.h"

namespace sluice::node {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

class ReportMailerTest : public ::testing::Test {
 protected:
  static delivery::TlsReportMail Mail() {
    return {"wants.example", {"tls@wants.example", "two@other.example"}, "Subject: x\r\n\r\ny\r\n"};
  }
  ::sluice::testing::ManualExecutor executor;
  ingest::testing::FakeShard shard;
  ReportMailer mailer{executor, {{"s", &shard.enqueue(), &shard.upload()}}, 7, nullptr};
};

TEST_F(ReportMailerTest, AMessageOfOurOwnInQueuesWithoutTlsPolicies) {
  EXPECT_EQ(shard.streams_opened, 0);  // most workers have nothing to report
  mailer.Send(Mail());
  executor.Advance(seconds(2));
  ASSERT_EQ(shard.taken.size(), 1u);
  const queue::v1::NewMessage& taken = shard.taken[0].message;
  EXPECT_EQ(shard.taken[0].body, Mail().content);
  EXPECT_EQ(taken.message().id().size(), 16u);
  EXPECT_EQ(taken.message().mail_from(), "");  // what bounces is not answered
  EXPECT_EQ(taken.message().source_type(), common::v1::SOURCE_TYPE_DSN);
  ASSERT_EQ(taken.deliveries_size(), 2);
  EXPECT_EQ(taken.deliveries(0).delivery().rcpt(), "tls@wants.example");
  EXPECT_EQ(taken.deliveries(0).delivery().queue_domain(), "{tls-report}wants.example");
  EXPECT_EQ(taken.deliveries(0).delivery().vmta(), "default");
  EXPECT_EQ(taken.deliveries(1).delivery().queue_domain(), "{tls-report}other.example");
  EXPECT_EQ(mailer.waiting(), 0u);
  executor.Advance(hours(1));
  EXPECT_EQ(shard.taken.size(), 1u);
}

TEST_F(ReportMailerTest, WhatNoShardTakesIsTriedAgainAndGivenUpInTheEnd) {
  shard.outcome = queue::v1::EnqueueResult::OUTCOME_REFUSED_BUSY;
  mailer.Send(Mail());
  executor.Advance(seconds(30));
  EXPECT_GE(shard.taken.size(), 1u);
  EXPECT_EQ(mailer.waiting(), 1u);
  shard.outcome = queue::v1::EnqueueResult::OUTCOME_QUEUED;
  executor.Advance(seconds(90));
  EXPECT_EQ(mailer.waiting(), 0u);

  shard.reachable = false;
  shard.Disconnect();
  executor.Advance(seconds(10));
  const size_t before = shard.taken.size();
  mailer.Send(Mail());
  executor.Advance(hours(5));
  EXPECT_EQ(mailer.waiting(), 1u);
  executor.Advance(hours(2));
  EXPECT_EQ(mailer.waiting(), 0u);
  EXPECT_EQ(shard.taken.size(), before);
}

TEST_F(ReportMailerTest, WhatMayHaveBeenTakenIsNotSentTwice) {
  shard.answers = false;
  mailer.Send(Mail());
  executor.Advance(seconds(2));
  EXPECT_EQ(shard.taken.size(), 1u);
  shard.Disconnect();
  executor.Advance(hours(1));
  EXPECT_EQ(shard.taken.size(), 1u);
  EXPECT_EQ(mailer.waiting(), 0u);
}

TEST_F(ReportMailerTest, ReportsThatWaitAreBounded) {
  shard.reachable = false;
  for (size_t i = 0; i < ReportMailer::kMostWaiting + 5; ++i) mailer.Send(Mail());
  EXPECT_EQ(mailer.waiting(), ReportMailer::kMostWaiting);
}

}  // namespace
}  // namespace sluice::node
