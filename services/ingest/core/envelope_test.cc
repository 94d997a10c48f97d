// Proves the header work on its own: what is captured, what is taken out and where from, what
// Received looks like, which route is chosen.
#include "services/ingest/core/envelope.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "services/ingest/testing/fake_policy.h"

namespace sluice::ingest {
namespace {

using testing::FakePolicy;

struct Outcome {
  std::string buffer;
  size_t removed = 0;
  common::v1::Message message;
  ControlFields control;
};

class EnvelopeTest : public ::testing::Test {
 protected:
  std::shared_ptr<const ClientProfile> Profile() {
    return ClientProfile::Make(policy_, policy_->loopback, mail::SmtpServerOptions());
  }
  Outcome Read(const std::string& header, const std::string& body = "body\r\n") {
    const std::string before = "Received: ours\r\n";
    Outcome o;
    o.buffer = before + header + body;
    o.removed = ReadHeader(*Profile(), before.size(), before.size() + header.size(), o.buffer,
                           o.message, o.control);
    EXPECT_TRUE(o.buffer.starts_with(before));
    EXPECT_TRUE(o.buffer.ends_with(body));
    EXPECT_EQ(o.buffer.size() + o.removed, before.size() + header.size() + body.size());
    o.buffer = o.buffer.substr(before.size(), o.buffer.size() - before.size() - body.size());
    return o;
  }

  std::shared_ptr<FakePolicy> policy_ = std::make_shared<FakePolicy>();
};

TEST_F(EnvelopeTest, FieldsStayWhereNothingIsAllowed) {
  const std::string header = "X-Virtual-MTA: v\r\nX-Job: j\r\nX-Envid: e\r\n\r\n";
  const Outcome o = Read(header);
  EXPECT_EQ(o.buffer, header);
  EXPECT_FALSE(o.control.virtual_mta);
  EXPECT_EQ(o.control.job_id, "");
  EXPECT_EQ(o.control.envid, "");
  EXPECT_EQ(o.message.captured_headers_size(), 0);
}

TEST_F(EnvelopeTest, EveryOccurrenceGoesTheFirstOneCounts) {
  policy_->loopback->set_process_x_job(true);
  policy_->loopback->set_process_x_virtual_mta(true);
  const Outcome o = Read(
      "X-Job: 1\r\nA: a\r\nx-job: 2\r\nX-Virtual-MTA:\r\nB: b\r\n folded\r\nX-JOB:\r\n 3\r\n\r\n");
  EXPECT_EQ(o.buffer, "A: a\r\nB: b\r\n folded\r\n\r\n");
  EXPECT_EQ(o.control.job_id, "1");
  EXPECT_EQ(o.control.virtual_mta, "");
  EXPECT_EQ(o.message.captured_headers_size(), 4);
}

TEST_F(EnvelopeTest, NothingButControlFields) {
  policy_->loopback->set_process_x_job(true);
  EXPECT_EQ(Read("X-Job: 1\r\n").buffer, "");
  EXPECT_EQ(Read("X-Job: 1\r\n\r\n").buffer, "\r\n");
  EXPECT_EQ(Read("\r\n").buffer, "\r\n");
  EXPECT_EQ(Read("", "").buffer, "");
}

TEST_F(EnvelopeTest, JobIdFromAnotherField) {
  policy_->loopback->set_process_x_job(true);
  policy_->loopback->set_retain_x_job(true);
  policy_->loopback->set_jobid_header("X-Campaign");
  const Outcome o = Read("X-Job: 1\r\nX-Campaign: c\r\n\r\n");
  EXPECT_EQ(o.control.job_id, "c");
  EXPECT_EQ(o.removed, 0u);
}

TEST_F(EnvelopeTest, CapturedValuesAreBoundedAndFirst) {
  const Outcome o = Read("Subject: " + std::string(5000, 's') + "\r\nSubject: two\r\n" +
                         "Sender: x\r\nFrom: Me <me@B.test>\r\nFROM: other@b.test\r\n\r\n");
  ASSERT_EQ(o.message.captured_headers_size(), 3);
  EXPECT_EQ(o.message.captured_headers(0).value().size(), kMaxCapturedBytes);
  EXPECT_EQ(o.message.header_from(), "me@b.test");
}

TEST_F(EnvelopeTest, ReceivedWithAndWithoutItsParts) {
  ReceivedWriter writer;
  std::string out;
  writer.Append({.client_name = "c.test",
                 .client_ip = "2001:db8::1",
                 .host_name = "mx.test",
                 .protocol = "ESMTP",
                 .id = "ID",
                 .recipient = "a@b.test"},
                FromUnixMicros(1'795'237'921'000'000), out);
  EXPECT_EQ(
      out,
      "Received: from c.test ([IPv6:2001:db8::1])\r\n\tby mx.test (Sluice) with ESMTP id ID\r\n"
      "\tfor <a@b.test>;\r\n\tSat, 21 Nov 2026 05:12:01 +0000\r\n");
  out.clear();
  writer.Append({.host_name = "mx.test", .protocol = "gRPC", .id = "ID"}, FromUnixMicros(0), out);
  EXPECT_EQ(
      out,
      "Received: by mx.test (Sluice) with gRPC id ID;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n");
}

TEST_F(EnvelopeTest, RoutesByName) {
  policy_->AddVirtualMta("v");
  policy_->pool.set_name("p");
  policy_->loopback->set_default_virtual_mta("p");
  const auto profile = Profile();
  Route route;
  EXPECT_FALSE(ChooseRoute(*profile, std::nullopt, route));
  EXPECT_EQ(route.pool, "p");
  EXPECT_EQ(route.vmta, "");
  EXPECT_FALSE(ChooseRoute(*profile, "v", route));
  EXPECT_EQ(route.vmta, "v");
  EXPECT_EQ(route.pool, "");
  EXPECT_EQ(ChooseRoute(*profile, "", route)->code, 554);
  EXPECT_EQ(ChooseRoute(*profile, "x\r\nEvil: 1", route)->enhanced, (mail::EnhancedCode{5, 7, 1}));
}

TEST_F(EnvelopeTest, EnvelopeDefaultsOfTheClient) {
  policy_->loopback->set_suppress_local_dsn(true);
  policy_->loopback->set_dsn_return_default("full");
  const auto profile = Profile();
  queue::v1::NewMessage message;
  AddRecipient(*profile, "\"a@b\"@c.test", 0, "", message);
  AddRecipient(*profile, "x@c.test", mail::kNotifyFailure, "rfc822;o@c.test", message);
  CompleteEnvelope(*profile, {"v", ""}, {}, message);
  EXPECT_EQ(message.message().dsn_return(), common::v1::DSN_RETURN_FULL);
  EXPECT_EQ(message.deliveries(0).delivery().rcpt(), "\"a@b\"@c.test");
  EXPECT_EQ(message.deliveries(0).delivery().notify(), mail::kNotifyNever);
  EXPECT_EQ(message.deliveries(1).delivery().notify(), mail::kNotifyFailure);
  EXPECT_EQ(message.deliveries(1).delivery().orcpt(), "rfc822;o@c.test");
  EXPECT_EQ(message.deliveries(1).delivery().vmta(), "v");
}

}  // namespace
}  // namespace sluice::ingest
