// Proves what `sluicectl inject` sends, what it makes of refusals and breaks, and what it counts.
#include <fstream>
#include <string>

#include "services/base/testing/temp_folder.h"
#include "tools/ctl/app_fixture.h"

namespace sluice::ctl {
namespace {

using testing::AppTest;
using testing::Has;
using testing::kId;

TEST_F(AppTest, InjectMadeUpMessages) {
  EXPECT_EQ(
      Run({"inject",  "--from",     "a@x",    "--to",     "u%n@y",  "--to",     "v@z",
           "--count", "1000",       "--size", "2000",     "--vmta", "v1",       "--job",
           "j",       "--metadata", "k=v",    "--window", "10",     "--notify", "success,failure"}),
      kExitOk);
  EXPECT_TRUE(Has(out_, "1000 accepted"));
  ASSERT_EQ(ingest_.taken.size(), 1000u);
  const auto& last = ingest_.taken.back();
  EXPECT_EQ(last.recipients(0).address(), "u1000@y");
  EXPECT_EQ(last.recipients(0).notify(), 6u);
  EXPECT_EQ(last.recipients(1).address(), "v@z");
  EXPECT_EQ(last.content().size(), 2000u);
  EXPECT_EQ(last.virtual_mta(), "v1");
  EXPECT_EQ(last.job_id(), "j");
  EXPECT_EQ(last.metadata().at("k"), "v");
  EXPECT_EQ(last.idempotency_key(), "");
}

TEST_F(AppTest, InjectFilesAndStandardInput) {
  const sluice::testing::TempFolder folder("inject");
  const std::string file = folder.File("message.eml");
  std::ofstream(file) << "Subject: file\n\nx\n";
  in_.str("Subject: stdin\n\ny\n");
  EXPECT_EQ(Run({"inject", file, "-", "--from", "<>", "--to", "b@y", "--unary", "--ids"}), kExitOk);
  ASSERT_EQ(ingest_.taken.size(), 2u);
  EXPECT_EQ(ingest_.taken[0].content(), "Subject: file\n\nx\n");
  EXPECT_EQ(ingest_.taken[1].content(), "Subject: stdin\n\ny\n");
  EXPECT_EQ(ingest_.taken[0].mail_from(), "");
  EXPECT_TRUE(Has(out_, kId));
  EXPECT_EQ(Run({"inject", "/nonexistent.eml", "--from", "a@x", "--to", "b@y"}), kExitUsage);
  EXPECT_TRUE(Has(err_, "cannot read /nonexistent.eml"));
}

TEST_F(AppTest, InjectSaysWhatWasRefused) {
  EXPECT_EQ(Run({"inject", "--from", "a@x", "--to", "refused@x", "--count", "20"}), kExitRefused);
  EXPECT_TRUE(Has(out_, "0 accepted, 20 refused"));
  EXPECT_TRUE(Has(err_, "message 1: no such? domain"));
  EXPECT_TRUE(Has(err_, "and 10 more"));
  ingest_.busy = 1;
  EXPECT_EQ(Run({"-o", "json", "inject", "--from", "a@x", "--to", "b@y", "--count", "2"}),
            kExitPartly);
  EXPECT_TRUE(Has(out_, "\"accepted\": 1, \"duplicates\": 0, \"refused\": 1"));
}

TEST_F(AppTest, InjectRetriesUnderAKeyAndNothingIsTakenTwice) {
  ingest_.busy = 5;
  ingest_.break_after = 30;
  EXPECT_EQ(Run({"inject", "--from", "a@x", "--to", "b@y", "--count", "100", "--retry", "60s"}),
            kExitOk);
  EXPECT_EQ(ingest_.taken.size(), 100u);
  EXPECT_EQ(ingest_.keys.size(), 100u);
  EXPECT_TRUE(Has(out_, "100 accepted"));
  EXPECT_EQ(
      Run({"inject", "--from", "a@x", "--to", "b@y", "--count", "2", "--idempotency-key", "same"}),
      kExitUsage);
}

TEST_F(AppTest, InjectCountsWhatStayedWithoutAnAnswer) {
  ingest_.break_after = 30;
  EXPECT_EQ(Run({"inject", "--from", "a@x", "--to", "b@y", "--count", "100"}), kExitPartly);
  EXPECT_TRUE(Has(out_, "30 accepted"));
  EXPECT_TRUE(Has(out_, "70 unanswered"));
  EXPECT_TRUE(Has(err_, "going down"));
}

}  // namespace
}  // namespace sluice::ctl
