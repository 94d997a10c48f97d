// Proves what a program is given, and what its end means.
#include "services/config/command_line.h"
#include "services/delivery/local/destination.h"
#include "services/delivery/local/local_fixture.h"

namespace sluice::delivery {
namespace {

using queue::v1::RECIPIENT_OUTCOME_DELIVERED;
using queue::v1::RECIPIENT_OUTCOME_PERMANENT;
using queue::v1::RECIPIENT_OUTCOME_TRANSIENT;

class PipeEndTest : public testing::LocalFixture {
 protected:
  PipeEndTest() { settings_->set_type("pipe"); }
  LocalVerdict Run(const std::string& command) {
    settings_->set_command(command);
    return RunLocalJob(Job())[0];
  }
};

TEST_F(PipeEndTest, TheProgramGetsTheTextWithUnixLineEnds) {
  AddRcpt("a@b.test");
  const LocalVerdict verdict = Run("/bin/sh -c \"cat > " + folder_ + "/got; echo thanks\" unused");
  EXPECT_EQ(verdict.outcome, RECIPIENT_OUTCOME_DELIVERED) << verdict.reply.text();
  EXPECT_EQ(verdict.reply.text(), "thanks");
  EXPECT_EQ(ReadFile(folder_ + "/got"), "Subject: s\n\nbody\n");
}

TEST_F(PipeEndTest, EachRecipientHasItsOwnRunWhereTheCommandNamesIt) {
  AddRcpt("a b;$(id)@b.test");
  AddRcpt("-rf@b.test");
  settings_->set_command("/usr/bin/printf %s,%s ${rcpt} ${from}");
  const auto verdicts = RunLocalJob(Job());
  ASSERT_EQ(verdicts.size(), 2u);
  EXPECT_EQ(verdicts[0].reply.text(), "a b;$(id)@b.test,from@a.test");
  EXPECT_EQ(verdicts[1].outcome, RECIPIENT_OUTCOME_PERMANENT);
  EXPECT_EQ(verdicts[1].reply.enhanced(), "5.1.3");
}

TEST_F(PipeEndTest, NoShellRunsWhatASenderWrote) {
  AddRcpt("`touch${IFS}" + folder_ + "/pwned`@b.test");
  settings_->set_macro_variables_preserve_case(true);
  for (const char* const command :
       {"/bin/sh -c \"echo ${local}\"", "/bin/bash -ec \"exit 0; # ${from}\"", "sh -c ${rcpt}",
        "/usr/bin/env python3 -c \"print('${domain}')\"", "perl -e \"print '${local}'\""}) {
    const LocalVerdict verdict = Run(command);
    EXPECT_EQ(verdict.outcome, RECIPIENT_OUTCOME_TRANSIENT) << command;
    EXPECT_EQ(verdict.reply.enhanced(), "4.3.5") << command;
  }
  EXPECT_EQ(Run("/bin/sh -c \"printf '%s' \\\"$1\\\"; : ${id}\" x ${rcpt}").reply.text(),
            lease_->deliveries(0).rcpt());
  EXPECT_TRUE(FilesIn(folder_).empty());
}

TEST_F(PipeEndTest, ExitStatusesAreThoseOfSysexits) {
  AddRcpt("a@b.test");
  EXPECT_EQ(Run("/bin/true").outcome, RECIPIENT_OUTCOME_DELIVERED);
  EXPECT_EQ(Run("/bin/sh -c \"exit 75\"").outcome, RECIPIENT_OUTCOME_TRANSIENT);
  EXPECT_EQ(Run("/bin/sh -c \"exit 67\"").reply.enhanced(), "5.1.1");
  EXPECT_EQ(Run("/bin/sh -c \"exit 1\"").outcome, RECIPIENT_OUTCOME_PERMANENT);
  EXPECT_EQ(Run("/bin/sh -c \"kill -9 $$\"").outcome, RECIPIENT_OUTCOME_TRANSIENT);
  EXPECT_EQ(Run("/no/such/program").reply.enhanced(), "4.3.5");
  EXPECT_EQ(Run("").reply.enhanced(), "4.3.5");
  const LocalVerdict verdict = Run("/bin/sh -c \"echo no room >&2; exit 69\"");
  EXPECT_EQ(verdict.reply.text(), "the program ended with status 69: no room");
}

TEST_F(PipeEndTest, AProgramThatReadsNothingOrNeverEndsIsNoTrouble) {
  AddRcpt("a@b.test");
  settings_->set_command("/bin/true");
  const std::vector<std::string> large(20, std::string(200'000, 'x') + "\r\n");
  EXPECT_EQ(RunLocalJob(Job(large))[0].outcome, RECIPIENT_OUTCOME_DELIVERED);
  settings_->set_smtp_data_termination_timeout_us(200'000);
  settings_->set_command("/bin/sh -c \"sleep 1000 & wait\"");
  EXPECT_EQ(RunLocalJob(Job(large))[0].reply.enhanced(), "4.4.2");
  // One that it left behind, with its output open, is not waited for.
  settings_->set_smtp_data_termination_timeout_us(60'000'000);
  settings_->set_command("/bin/sh -c \"sleep 5 & exit 0\"");
  EXPECT_EQ(RunLocalJob(Job())[0].outcome, RECIPIENT_OUTCOME_DELIVERED);
}

TEST(Destination, WordsAndVariables) {
  EXPECT_EQ(config::SplitCommand(R"( a  "b c"d \" "" )"),
            (std::vector<std::string>{"a", "b cd", "\"", ""}));
  queue::v1::Lease lease;
  lease.add_deliveries()->set_rcpt("x@y.test");
  EXPECT_EQ(Expand("${local}-${domain}-${none}-${rcpt", lease, 0, true, true),
            "x-y.test-${none}-${rcpt");
  // macro-variables-preserve-case
  lease.mutable_deliveries(0)->set_rcpt("Ann.B@Y.test");
  lease.mutable_message()->set_mail_from("List-1@X.test");
  lease.mutable_message()->set_id(std::string(16, '\xAB'));
  EXPECT_EQ(Expand("A ${local} ${rcpt} ${from}", lease, 0, false, false),
            "A ann.b ann.b@y.test list-1@x.test");
  EXPECT_EQ(Expand("A ${local} ${from} ${domain}", lease, 0, false, true),
            "A Ann.B List-1@X.test Y.test");
  EXPECT_EQ(Expand("${id}", lease, 0, false, false), Expand("${id}", lease, 0, false, true));
  EXPECT_TRUE(NamesRecipient("a ${rcpt}"));
  EXPECT_FALSE(NamesRecipient("${from} ${id}"));
}

}  // namespace
}  // namespace sluice::delivery
