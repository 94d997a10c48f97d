// Proves that a mail merge reaches the shard as one message: values, parts, virtual MTA and job of
// each recipient, and that bounds hold.
#include "services/ingest/core/merge_template.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/base/testing/manual_executor.h"
#include "services/ingest/core/smtp_connection.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"
#include "services/mail/merge_body.h"

namespace sluice::ingest {
namespace {

using testing::FakePolicy;
using testing::FakeShard;

class MergeTemplateTest : public ::testing::Test, private SmtpConnection::Driver {
 protected:
  void Start() {
    policy_->loopback->set_allow_mailmerge(true);
    policy_->AddVirtualMta("news");
    IngestOptions options;
    options.random = 42;
    ingest_ = std::make_unique<Ingest>(
        executor_, options,
        std::vector<ShardEndpoint>{{"shard", &shard_.enqueue(), &shard_.upload()}}, policy_);
    ingest_->Start();
    executor_.RunPosted();
    connection_.emplace(*ingest_, SmtpPeer{"127.0.0.1", "127.0.0.1", "127.0.0.1:25"},
                        static_cast<SmtpConnection::Driver&>(*this));
    connection_->Start();
    Say("EHLO c.test");
  }
  std::string Say(const std::string& line) {
    heard_.clear();
    connection_->session().OnBytes(executor_.clock().Now(), line + "\r\n");
    executor_.RunPosted();
    OnWake();
    return heard_;
  }
  void OnWake() override {
    heard_ += connection_->session().output();
    connection_->session().Sent(executor_.clock().Now(), connection_->session().output().size());
  }
  std::string Merged(const FakeShard::Taken& taken, int recipient) {
    return mail::MergedBody(taken.body, taken.message.message(),
                            taken.message.deliveries(recipient).delivery(), true);
  }

  sluice::testing::ManualExecutor executor_;
  std::shared_ptr<FakePolicy> policy_ = std::make_shared<FakePolicy>();
  FakeShard shard_;
  std::unique_ptr<Ingest> ingest_;
  std::optional<SmtpConnection> connection_;
  std::string heard_;
};

TEST_F(MergeTemplateTest, ABlindCopyIsWhatItsRecipientGot) {
  policy_->loopback->set_bcc("archive@z.test");
  Start();
  Say("XMRG FROM:<bounce@b.test>");
  Say("XDFN name=\"Bob\" *vmta=news");
  Say("RCPT TO:<bob@y.test>");
  Say("XDFN name=\"Eve\"");
  Say("RCPT TO:<eve@y.test>");
  Say("XPRT 1 LAST");
  EXPECT_TRUE(Say("To: [*to]\r\n\r\nDear [name]\r\n.").starts_with("250 "));
  ASSERT_EQ(shard_.taken.size(), 1u);
  const FakeShard::Taken& taken = shard_.taken[0];
  ASSERT_EQ(taken.message.deliveries_size(), 4);
  for (int i = 0; i < 2; ++i) {
    const common::v1::Delivery& copy = taken.message.deliveries(i + 2).delivery();
    EXPECT_EQ(copy.rcpt(), "archive@z.test");
    EXPECT_EQ(copy.notify(), mail::kNotifyNever);
    EXPECT_EQ(copy.vmta(), taken.message.deliveries(i).delivery().vmta());
    EXPECT_EQ(Merged(taken, i + 2), Merged(taken, i));
  }
  EXPECT_NE(Merged(taken, 2).find("To: bob@y.test"), std::string::npos);
  EXPECT_NE(Merged(taken, 3).find("Dear Eve"), std::string::npos);
}

TEST_F(MergeTemplateTest, OneMessageAndWhatEachRecipientGets) {
  policy_->loopback->set_process_x_job(true);
  Start();
  EXPECT_TRUE(Say("XMRG FROM:<bounce@b.test> VERP").starts_with("250 "));
  Say("XDFN name=\"Bob\" *parts=1,2 *vmta=news *jobid=mine");
  EXPECT_TRUE(Say("RCPT TO:<bob@y.test>").starts_with("250 "));
  Say("XDFN *vmta=nowhere");
  EXPECT_TRUE(Say("RCPT TO:<bad@y.test>").starts_with("554 5.7.1 "));
  Say("XDFN name=Ann *parts=1,3 *envid=e7");
  EXPECT_TRUE(Say("RCPT TO:<ann@y.test>").starts_with("250 "));
  EXPECT_TRUE(Say("XPRT 1").starts_with("354 "));
  EXPECT_TRUE(Say("X-Job: job\r\nTo: [*to]\r\n\r\nDear [name],\r\n.").starts_with("250 "));
  EXPECT_TRUE(Say("XPRT 2").starts_with("354 "));
  EXPECT_TRUE(Say("two\r\n.").starts_with("250 "));
  EXPECT_TRUE(Say("XPRT 3 LAST").starts_with("354 "));
  EXPECT_TRUE(Say("..three [*jobid]\r\n.").starts_with("250 "));
  ASSERT_EQ(shard_.taken.size(), 1u);
  const FakeShard::Taken& taken = shard_.taken[0];
  const common::v1::Message& message = taken.message.message();
  EXPECT_TRUE(message.is_template());
  EXPECT_TRUE(message.verp());
  EXPECT_EQ(message.body_size(), taken.body.size());
  ASSERT_EQ(message.parts_size(), 4);
  ASSERT_EQ(taken.message.deliveries_size(), 2);
  const common::v1::Delivery& bob = taken.message.deliveries(0).delivery();
  const common::v1::Delivery& ann = taken.message.deliveries(1).delivery();
  EXPECT_EQ(bob.vmta(), "news");
  EXPECT_EQ(bob.job_id(), "mine");
  EXPECT_EQ(ann.vmta(), "default");
  EXPECT_EQ(ann.job_id(), "job");
  EXPECT_EQ(ann.envelope_id(), "e7");
  const std::string front = taken.body.substr(0, message.parts(0).size());
  EXPECT_TRUE(front.starts_with("Received: "));
  EXPECT_EQ(Merged(taken, 0), front + "To: bob@y.test\r\n\r\nDear Bob,\r\ntwo\r\n");
  EXPECT_EQ(Merged(taken, 1), front + "To: ann@y.test\r\n\r\nDear Ann,\r\n.three job\r\n");
}

TEST_F(MergeTemplateTest, NotOfferedUnlessConfigured) {
  Start();
  policy_->loopback->set_allow_mailmerge(false);
  EXPECT_TRUE(Say("XMRG FROM:<a@b.test>").starts_with("502 "));
}

TEST_F(MergeTemplateTest, BoundsOfTextAndValues) {
  Start();
  Say("XMRG FROM:<a@b.test>");
  const std::string value(3900, 'v');
  std::string reply;
  int taken = 0;
  for (; taken < 1000; ++taken) {
    Say("XDFN a=" + value);
    Say("XDFN b=" + value);
    Say("XDFN c=" + value);
    reply = Say("RCPT TO:<x" + std::to_string(taken) + "@y.test>");
    if (!reply.starts_with("250 ")) break;
  }
  EXPECT_TRUE(reply.starts_with("452 4.5.3 "));
  EXPECT_GT(taken, 80);
  Say("XPRT 1 LAST");
  std::string text;
  for (int i = 0; i < 1100; ++i) text += "[a][a][a][a]\r\n";
  EXPECT_TRUE(Say(text + ".").starts_with("552 5.3.4 "));
  Say("XMRG FROM:<a@b.test>");
  Say("RCPT TO:<x@y.test>");
  Say("XPRT 1 LAST");
  text.clear();
  for (int i = 0; i < 5000; ++i) text += std::string(60, 'x') + "\r\n";
  EXPECT_TRUE(Say(text + ".").starts_with("552 5.3.4 "));
  EXPECT_EQ(shard_.taken.size(), 0u);
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

// What a recipient's own words make of a small text is bounded, too.
TEST_F(MergeTemplateTest, BoundsOfRepeatedPartsAndLongJobs) {
  Start();
  std::string repeated = "XDFN *parts=1";
  for (int i = 1; i < 1000; ++i) repeated += ",1";
  const std::string definitions[] = {repeated, "XDFN *jobid=" + std::string(3000, 'j')};
  std::string text = "Subject: [*jobid]\r\n\r\n";
  for (int i = 0; i < 1000; ++i) text += "twenty bytes [*jobid]\r\n";
  for (const std::string& definition : definitions) {
    Say("XMRG FROM:<a@b.test>");
    EXPECT_TRUE(Say(definition).starts_with("250 "));
    EXPECT_TRUE(Say("RCPT TO:<x@y.test>").starts_with("250 "));
    Say("XPRT 1 LAST");
    const bool fits = definition != repeated;  // 1,000 jobs of 3,000 bytes do
    EXPECT_EQ(Say(text + ".").starts_with("552 5.3.4 "), !fits) << definition.substr(0, 20);
  }
  for (int i = 0; i < 6000; ++i) text += "[*jobid]\r\n";
  Say("XMRG FROM:<a@b.test>");
  Say(definitions[1]);
  Say("RCPT TO:<x@y.test>");
  Say("XPRT 1 LAST");
  EXPECT_TRUE(Say(text + ".").starts_with("552 5.3.4 "));
  // The parts that recipients name count for the message.
  Say("XMRG FROM:<a@b.test>");
  std::string reply;
  int taken = 0;
  for (; taken < 1000; ++taken) {
    Say(repeated);
    reply = Say("RCPT TO:<x" + std::to_string(taken) + "@y.test>");
    if (!reply.starts_with("250 ")) break;
  }
  EXPECT_TRUE(reply.starts_with("452 4.5.3 "));
}

}  // namespace
}  // namespace sluice::ingest
