// Proves the way of a message from an SMTP client to a shard: what is taken and refused, what the
// shard gets, what the client hears.
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/ingest/core/ingest_metrics.h"
#include "services/ingest/testing/ingest_fixture.h"
#include "services/mail/message_id.h"

namespace sluice::ingest {
namespace {

using queue::v1::EnqueueResult;
using testing::FakePolicy;
using testing::SmtpClient;

constexpr char kEnvelope[] =
    "EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n";

class SmtpConnectionTest : public testing::IngestFixture {};

TEST_F(SmtpConnectionTest, MessageReachesTheShardWhole) {
  Start();
  auto client = Connect();
  client->Say(
      "EHLO c.test\r\nMAIL FROM:<a@B.test> BODY=8BITMIME\r\nRCPT TO:<X@Y.test>\r\n"
      "RCPT TO:<postmaster>\r\nDATA\r\n");
  const std::string heard = client->Say(
      "From: A <A@b.test>\r\nSubject: one\r\n two\r\nX-Job: 5\r\nMessage-ID: <1@b.test>\r\n\r\n"
      "..dot\r\nbody\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& [message, body] = shard().taken[0];
  const common::v1::Message& m = message.message();
  const std::string id = mail::FormatMessageId(m.id());
  EXPECT_EQ(heard, "250 2.0.0 OK, queued as " + id + "\r\n");
  const std::string received =
      "Received: from c.test ([127.0.0.1])\r\n\tby mx.test (Sluice) with ESMTP id " + id +
      ";\r\n\tTue, 14 Nov 2023 23:13:20 +0000\r\n";
  EXPECT_EQ(body, received +
                      "From: A <A@b.test>\r\nSubject: one\r\n two\r\nX-Job: 5\r\n"
                      "Message-ID: <1@b.test>\r\n\r\n.dot\r\nbody\r\n");
  EXPECT_EQ(m.mail_from(), "a@b.test");
  EXPECT_EQ(m.body_type(), common::v1::BODY_TYPE_8BITMIME);
  EXPECT_EQ(m.source_type(), common::v1::SOURCE_TYPE_SMTP);
  EXPECT_EQ(m.client_name(), "c.test");
  EXPECT_EQ(m.client_ip(), "127.0.0.1");
  EXPECT_EQ(m.header_from(), "A@b.test");
  EXPECT_EQ(m.body_size(), body.size());
  EXPECT_EQ(m.header_size(), body.find("\r\n\r\n") + 4);
  EXPECT_EQ(m.snapshot_version(), 7u);
  EXPECT_EQ(m.time_queued_us() % 1'000'000, 0);
  ASSERT_EQ(m.captured_headers_size(), 3);
  EXPECT_EQ(m.captured_headers(1).name(), "Subject");
  EXPECT_EQ(m.captured_headers(1).value(), "one two");
  ASSERT_EQ(message.deliveries_size(), 2);
  EXPECT_EQ(message.deliveries(0).delivery().rcpt(), "X@y.test");
  EXPECT_EQ(message.deliveries(0).delivery().vmta(), "default");
  EXPECT_EQ(message.deliveries(0).delivery().job_id(), "");
  EXPECT_EQ(message.deliveries(1).delivery().rcpt_given(), "postmaster");
  EXPECT_EQ(message.deliveries(1).delivery().rcpt(), "postmaster@mx.test");
  EXPECT_EQ(ingest_->counters().messages_accepted, 1u);
  EXPECT_EQ(ingest_->counters().recipients_accepted, 2u);
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

TEST_F(SmtpConnectionTest, ReceivedNamesTheOnlyRecipient) {
  Start();
  auto client = Connect("::1");
  client->Say(std::string(kEnvelope) + "S: 1\r\n\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 1u);
  EXPECT_NE(shard().taken[0].body.find("([IPv6:::1])"), std::string::npos);
  EXPECT_NE(shard().taken[0].body.find("\r\n\tfor <x@y.test>;"), std::string::npos);
}

TEST_F(SmtpConnectionTest, ManyMessagesOfOneTurnShareAFrame) {
  Start();
  auto a = Connect();
  auto b = Connect();
  a->Say(kEnvelope);
  b->Say(kEnvelope);
  const MonotonicTime now = executor_.clock().Now();
  a->connection().session().OnBytes(now, "S: 1\r\n\r\n.\r\n");
  b->connection().session().OnBytes(now, "S: 2\r\n\r\n.\r\n");
  executor_.RunPosted();
  EXPECT_EQ(shard().frames, 1);
  EXPECT_EQ(shard().taken.size(), 2u);
}

TEST_F(SmtpConnectionTest, NoRelayForOthers) {
  prepare_ = [this] { policy_->global_settings.mutable_relay_domains()->add_values("ours.test"); };
  Start();
  auto client = Connect("192.0.2.1");
  client->Say("EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n");
  EXPECT_EQ(client->Say("RCPT TO:<x@y.test>\r\n"), "550 5.7.1 Relaying denied\r\n");
  EXPECT_EQ(client->Say("RCPT TO:<x@OURS.test>\r\n"), "250 2.1.5 Recipient OK\r\n");
  EXPECT_EQ(ingest_->counters().recipients_refused, 1u);
}

TEST_F(SmtpConnectionTest, ClientSettingsThatRefuse) {
  prepare_ = [this] {
    policy_->others->set_smtp_service(false);
    policy_->loopback->set_require_auth(true);
  };
  Start();
  auto stranger = Connect("192.0.2.1");
  EXPECT_TRUE(stranger->connection().session().closing());
  auto client = Connect();
  client->Say("EHLO c.test\r\n");
  EXPECT_EQ(client->Say("MAIL FROM:<a@b.test>\r\n"), "530 5.7.0 Authentication is required\r\n");
}

// Nobody writes on in a field of ours: what begins with a fold, or with no field at all, is text.
TEST_F(SmtpConnectionTest, ATextWithoutHeaderBeginsBehindAnEmptyLine) {
  prepare_ = [this] { policy_->loopback->set_add_message_id_header(true); };
  Start();
  auto client = Connect();
  client->Say("EHLO c.test\r\n");
  const struct {
    const char* text;
    bool header;
  } kCases[] = {{" by forged.test\r\nSubject: x\r\n\r\ntext\r\n", false},
                {"\tfor <forged@x.test>\r\n", false},
                {"no header at all\r\n", false},
                {"No header, so: text\r\n\r\n", false},
                {"", true},
                {"\r\ntext\r\n", true},
                {"Subject: x\r\n\r\ntext\r\n", true},
                {"Subject : x\r\n", true},
                {"From a@b.test Sat Nov 21 00:00:00 2026\r\nSubject: x\r\n\r\n", true}};
  for (const auto& each : kCases) {
    SCOPED_TRACE(each.text);
    client->Say(std::string("MAIL FROM:<>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n") + each.text +
                ".\r\n");
    ASSERT_EQ(shard().taken.size(), 1u);
    const auto& [message, body] = shard().taken[0];
    const std::string expected = (each.header ? "" : "\r\n") + std::string(each.text);
    ASSERT_TRUE(body.ends_with(expected)) << body;
    const std::string ours = body.substr(0, body.size() - expected.size());
    EXPECT_TRUE(ours.starts_with("Received: ")) << ours;
    EXPECT_TRUE(ours.ends_with("@mx.test>\r\n")) << ours;
    EXPECT_EQ(message.message().body_size(), body.size());
    if (!each.header) {
      EXPECT_EQ(message.message().header_size(), ours.size() + 2);
    }
    shard().taken.clear();
  }
}

TEST_F(SmtpConnectionTest, ControlFieldsActAndGoWhereAllowed) {
  prepare_ = [this] {
    policy_->loopback->set_process_x_virtual_mta(true);
    policy_->loopback->set_process_x_job(true);
    policy_->loopback->set_process_x_envid(true);
    policy_->loopback->set_retain_x_envid(true);
    policy_->loopback->mutable_remove_header()->add_values("x-secret");
    policy_->AddVirtualMta("v1");
    policy_->pool.set_name("p1");
  };
  Start();
  auto client = Connect();
  client->Say(std::string(kEnvelope) +
              "X-Virtual-MTA: v1\r\nA: 1\r\nX-JOB:\r\n job 5\r\nX-Secret: s\r\n\tmore\r\n"
              "X-Envid: e1\r\nB: 2\r\n\r\nX-Job: stays\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& [message, body] = shard().taken[0];
  EXPECT_EQ(body.substr(body.find("A: 1")), "A: 1\r\nX-Envid: e1\r\nB: 2\r\n\r\nX-Job: stays\r\n");
  EXPECT_EQ(message.message().header_size(), body.find("\r\n\r\n") + 4);
  EXPECT_EQ(message.message().body_size(), body.size());
  EXPECT_EQ(message.message().envid(), "e1");
  EXPECT_EQ(message.deliveries(0).delivery().vmta(), "v1");
  EXPECT_EQ(message.deliveries(0).delivery().job_id(), "job 5");
  EXPECT_EQ(message.message().captured_headers_size(), 3);

  client->Say("MAIL FROM:<>\r\nRCPT TO:<x@y.test>\r\nDATA\r\nX-Virtual-MTA: p1\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 2u);
  EXPECT_EQ(shard().taken[1].message.deliveries(0).delivery().pool(), "p1");
  EXPECT_EQ(shard().taken[1].message.deliveries(0).delivery().vmta(), "");

  const std::string heard = client->Say(
      "MAIL FROM:<>\r\nRCPT TO:<x@y.test>\r\nDATA\r\nX-Virtual-MTA: other\r\n\r\n.\r\n");
  EXPECT_NE(heard.find("554 5.7.1 There is no virtual MTA \"other\"\r\n"), std::string::npos);
  EXPECT_EQ(shard().taken.size(), 2u);
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

TEST_F(SmtpConnectionTest, UnknownVirtualMtaFallsBackWhereConfigured) {
  prepare_ = [this] {
    policy_->loopback->set_process_x_virtual_mta(true);
    policy_->loopback->set_reject_invalid_virtual_mta(false);
    policy_->AddVirtualMta("fallback");
    policy_->global_settings.set_invalid_virtual_mta_fallback("fallback");
  };
  Start();
  auto client = Connect();
  client->Say(std::string(kEnvelope) + "X-Virtual-MTA: other\r\n\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 1u);
  EXPECT_EQ(shard().taken[0].message.deliveries(0).delivery().vmta(), "fallback");
}

TEST_F(SmtpConnectionTest, QueueToMayNameAPool) {
  prepare_ = [this] {
    policy_->queue_to_domain = "y.test";
    policy_->queue_to = "gmail.rollup/p";
    policy_->pool.set_name("p");
  };
  Start();
  auto client = Connect();
  client->Say(std::string(kEnvelope) + "S: 1\r\n\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& delivery = shard().taken[0].message.deliveries(0).delivery();
  EXPECT_EQ(delivery.queue_domain(), "gmail.rollup");
  EXPECT_EQ(delivery.vmta(), "");
  EXPECT_EQ(delivery.pool(), "p");
}

TEST_F(SmtpConnectionTest, QueueToChangesTheQueueNotTheRecipient) {
  prepare_ = [this] {
    policy_->queue_to_domain = "y.test";
    policy_->queue_to = "gmail.rollup/v2";
    policy_->AddVirtualMta("v2");
  };
  Start();
  auto client = Connect();
  client->Say(std::string(kEnvelope) + "S: 1\r\n\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& delivery = shard().taken[0].message.deliveries(0).delivery();
  EXPECT_EQ(delivery.queue_domain(), "gmail.rollup");
  EXPECT_EQ(delivery.vmta(), "v2");
  EXPECT_EQ(delivery.rcpt(), "x@y.test");
}

// The configuration names domains as DNS does.
TEST_F(SmtpConnectionTest, ADomainBeyondAsciiHasItsSettings) {
  prepare_ = [this] {
    policy_->queue_to_domain = "xn--bcher-kva.test";
    policy_->queue_to = "books.rollup";
  };
  Start();
  auto client = Connect();
  client->Say(
      "EHLO c.test\r\nMAIL FROM:<a@b.test> SMTPUTF8\r\n"
      "RCPT TO:<x@B\xc3\xbc"
      "cher.test>\r\nDATA\r\nS: 1\r\n\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& delivery = shard().taken[0].message.deliveries(0).delivery();
  EXPECT_EQ(delivery.queue_domain(), "books.rollup");
  EXPECT_EQ(delivery.rcpt(),
            "x@b\xc3\xbc"
            "cher.test");
}

TEST_F(SmtpConnectionTest, NewPolicyHoldsFromTheNextMail) {
  Start();
  auto client = Connect();
  client->Say("EHLO c.test\r\n");
  EXPECT_EQ(client->Say("MAIL FROM:<a@b.test>\r\n"), "250 2.1.0 Sender OK\r\n");
  auto next = std::make_shared<FakePolicy>();
  next->loopback->set_require_auth(true);
  ingest_->SetPolicy(next);
  EXPECT_EQ(client->Say("RCPT TO:<x@y.test>\r\n"), "250 2.1.5 Recipient OK\r\n");
  client->Say("RSET\r\n");
  EXPECT_EQ(client->Say("MAIL FROM:<a@b.test>\r\n").substr(0, 4), "530 ");
}

TEST_F(SmtpConnectionTest, WhatIsRefusedIsCountedByItsReason) {
  policy_->loopback->set_max_rcpt_per_message(1);
  policy_->loopback->set_max_message_size(2000);
  policy_->loopback->set_max_message_hops(1);
  policy_->loopback->set_allow_mailmerge(true);
  Start();
  auto client = Connect();
  client->Say("EHLO c.test\r\nXCLIENT ADDR=192.0.2.1\r\nMAIL FROM:<a@b.test> SIZE=2001\r\n");
  client->Say("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nRCPT TO:<z@y.test>\r\n");
  EXPECT_TRUE(client->Say("DATA\r\nReceived: a\r\nReceived: b\r\n\r\n.\r\n").ends_with("loop\r\n"));
  client->Say("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
  client->Say(std::string(3000, 'x') + "\r\n.\r\n");
  client->Say("XMRG FROM:<a@b.test>\r\nXDFN a=\"x\x01\"\r\n");
  const IngestCounters& counters = ingest_->counters();
  EXPECT_EQ(counters.xclient_refused, 1u);
  EXPECT_EQ(counters.too_large_refused, 2u);
  EXPECT_EQ(counters.too_many_recipients, 1u);
  EXPECT_EQ(counters.mail_loops_refused, 1u);
  EXPECT_EQ(counters.header_injections_refused, 1u);
  EXPECT_EQ(counters.messages_refused, 2u);
}

TEST_F(SmtpConnectionTest, MetricsAreSumsWithNamesOfTheirOwn) {
  Start();
  auto client = Connect();
  client->Say(std::string(kEnvelope) + "S: 1\r\n\r\n.\r\n");
  const Ingest* const twice[] = {ingest_.get(), ingest_.get()};
  std::set<std::string_view> names;
  for (const IngestMetric& metric : ReadMetrics(twice)) {
    EXPECT_TRUE(names.insert(metric.name).second);
    EXPECT_EQ(metric.name.ends_with("_total"), !metric.is_gauge);
    if (metric.name == "sluice_ingest_messages_accepted_total" ||
        metric.name == "sluice_ingest_loops_ready") {
      EXPECT_EQ(metric.value, 2u);
    }
  }
  EXPECT_TRUE(names.contains("sluice_ingest_messages_accepted_total"));
}

TEST_F(SmtpConnectionTest, SizeLimitIsTheSmallerOfClientAndGlobal) {
  prepare_ = [this] {
    policy_->global_settings.set_max_message_size(1000);
    policy_->loopback->set_max_message_size(500);
  };
  Start();
  auto client = Connect();
  EXPECT_NE(client->Say("EHLO c.test\r\n").find("250-SIZE 500\r\n"), std::string::npos);
  auto other = Connect("192.0.2.1");
  EXPECT_NE(other->Say("EHLO c.test\r\n").find("250-SIZE 1000\r\n"), std::string::npos);
}

TEST_F(SmtpConnectionTest, EnvelopeOptionsStandInTheRecords) {
  Start();
  const auto client = Connect();
  client->Say(
      "EHLO c.test\r\nMAIL FROM:<\xc3\xa4@b.test> SMTPUTF8 RET=HDRS ENVID=a+2Bb BODY=8BITMIME "
      "MT-PRIORITY=4\r\n"
      "RCPT TO:<x@y.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2Bx@y.test\r\n"
      "RCPT TO:<z@y.test> NOTIFY=NEVER\r\n"
      "BDAT 14\r\nSubject: s\r\n\r\nBDAT 4 LAST\r\ntext");
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& taken = shard().taken[0];
  const common::v1::Message& m = taken.message.message();
  EXPECT_EQ(m.mail_from(), "\xc3\xa4@b.test");
  EXPECT_TRUE(m.smtputf8());
  EXPECT_EQ(m.priority(), 70u);
  EXPECT_EQ(m.envid(), "a+b");
  EXPECT_EQ(m.dsn_return(), common::v1::DSN_RETURN_HEADERS);
  EXPECT_EQ(m.body_type(), common::v1::BODY_TYPE_8BITMIME);
  EXPECT_EQ(m.body_size(), taken.body.size());
  EXPECT_EQ(m.header_size() + 6, m.body_size());
  EXPECT_TRUE(taken.body.ends_with("Subject: s\r\n\r\ntext\r\n"));
  EXPECT_NE(taken.body.find(" with UTF8SMTP id "), std::string::npos);
  ASSERT_EQ(taken.message.deliveries_size(), 2);
  EXPECT_EQ(taken.message.deliveries(0).delivery().notify(), 10u);
  EXPECT_EQ(taken.message.deliveries(0).delivery().orcpt(), "rfc822;x+x@y.test");
  EXPECT_EQ(taken.message.deliveries(1).delivery().notify(), 1u);
}

TEST_F(SmtpConnectionTest, OffersAreAsConfigured) {
  prepare_ = [&] {
    policy_->loopback->set_allow_smtputf8(false);
    policy_->others->set_allow_smtputf8(true);
  };
  Start();
  const std::string here = Connect()->Say("EHLO c.test\r\n");
  EXPECT_NE(here.find("250-CHUNKING\r\n"), std::string::npos);
  EXPECT_EQ(here.find("SMTPUTF8"), std::string::npos);
  const std::string there = Connect("192.0.2.1")->Say("EHLO c.test\r\n");
  EXPECT_EQ(there.find("CHUNKING"), std::string::npos);
  EXPECT_NE(there.find("250-SMTPUTF8\r\n"), std::string::npos);
}

TEST_F(SmtpConnectionTest, ATrustedProxySpeaksForItsClients) {
  prepare_ = [&] { policy_->loopback->set_allow_xclient(true); };
  Start();
  const auto stranger = Connect("192.0.2.1");
  EXPECT_TRUE(stranger->Say("XCLIENT ADDR=127.0.0.1\r\n").starts_with("550 "));
  const auto client = Connect();
  EXPECT_NE(client->Say("EHLO proxy.test\r\n").find("XCLIENT"), std::string::npos);
  EXPECT_TRUE(client->Say("XCLIENT ADDR=nonsense\r\n").starts_with("501 "));
  // A record with such a user could not be read again, and its message would be lost.
  EXPECT_TRUE(client->Say("XCLIENT LOGIN=+FFbob\r\n").starts_with("501 5.5.4 LOGIN "));
  // Rules are those of the client, who may not relay.
  EXPECT_TRUE(client->Say("XCLIENT ADDR=192.0.2.9 HELO=c.test\r\n").starts_with("220 "));
  client->Say("EHLO proxy.test\r\nMAIL FROM:<a@b.test>\r\n");
  EXPECT_TRUE(client->Say("RCPT TO:<x@y.test>\r\n").starts_with("550 5.7.1 "));
  EXPECT_TRUE(client->Say("RSET\r\n").starts_with("250 "));
  EXPECT_TRUE(
      client->Say("XCLIENT ADDR=IPv6:::1 HELO=other.test LOGIN=bob\r\n").starts_with("220 "));
  client->Say(std::string(kEnvelope) + "Subject: s\r\n\r\n.\r\n");
  ASSERT_EQ(shard().taken.size(), 1u);
  const common::v1::Message& m = shard().taken[0].message.message();
  EXPECT_EQ(m.client_ip(), "::1");
  EXPECT_EQ(m.client_name(), "other.test");
  EXPECT_EQ(m.user(), "bob");
}

}  // namespace
}  // namespace sluice::ingest
