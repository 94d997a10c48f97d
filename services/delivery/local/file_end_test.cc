// Proves what type file writes, that it writes all or nothing, and that addresses choose no path.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "services/delivery/local/local_fixture.h"

namespace sluice::delivery {
namespace {

using queue::v1::RECIPIENT_OUTCOME_DELIVERED;
using queue::v1::RECIPIENT_OUTCOME_TRANSIENT;

class FileEndTest : public testing::LocalFixture {
 protected:
  FileEndTest() { settings_->set_type("file"); }
};

TEST_F(FileEndTest, NewFilesHoldTheMessageAndASecondAttemptReplacesTheFirst) {
  settings_->set_file_destination(folder_ + "/in");
  AddRcpt("a@b.test");
  AddRcpt("c@b.test");
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto verdicts = RunLocalJob(Job());
    ASSERT_EQ(verdicts.size(), 2u);
    EXPECT_EQ(verdicts[0].outcome, RECIPIENT_OUTCOME_DELIVERED) << verdicts[0].reply.text();
    EXPECT_EQ(verdicts[1].outcome, RECIPIENT_OUTCOME_DELIVERED);
    const auto files = FilesIn(folder_ + "/in");
    ASSERT_EQ(files.size(), 1u);
    EXPECT_TRUE(files[0].ends_with(".eml"));
    EXPECT_EQ(ReadFile(files[0]), "Subject: s\r\n\r\nbody\r\n");
  }
}

TEST_F(FileEndTest, PickupFilesBeginWithTheEnvelope) {
  settings_->set_file_destination(folder_);
  settings_->set_file_format("newfile-pickup");
  AddRcpt("a@b.test");
  AddRcpt("c@b.test");
  lease_->mutable_message()->set_envid("e1");
  lease_->mutable_deliveries(0)->set_job_id("j1");
  RunLocalJob(Job());
  ASSERT_EQ(FilesIn(folder_).size(), 1u);
  EXPECT_EQ(ReadFile(FilesIn(folder_)[0]),
            "x-sender: <from@a.test>\r\nx-receiver: <a@b.test>\r\nx-receiver: <c@b.test>\r\n"
            "x-envid: e1\r\nx-job: j1\r\nSubject: s\r\n\r\nbody\r\n");
}

TEST_F(FileEndTest, MaildirOfEachRecipientWhereverTheAddressPoints) {
  settings_->set_file_destination(folder_ + "/${local}");
  settings_->set_file_format("maildir");
  AddRcpt("anna@b.test");
  AddRcpt("\"../../evil\"@b.test");
  AddRcpt("..@b.test");
  const auto verdicts = RunLocalJob(Job());
  ASSERT_EQ(verdicts.size(), 3u);
  for (const auto& verdict : verdicts) EXPECT_EQ(verdict.outcome, RECIPIENT_OUTCOME_DELIVERED);
  const auto files = FilesIn(folder_ + "/anna/new");
  ASSERT_EQ(files.size(), 1u);
  EXPECT_NE(files[0].find("/1700000000."), std::string::npos);
  EXPECT_TRUE(files[0].ends_with(".mx.test"));
  EXPECT_EQ(ReadFile(files[0]),
            "Return-Path: <from@a.test>\nDelivered-To: anna@b.test\nSubject: s\n\nbody\n");
  EXPECT_TRUE(FilesIn(folder_ + "/anna/tmp").empty());
  EXPECT_EQ(FilesIn(folder_ + "/\".._.._evil\"/new").size(), 1u);
  EXPECT_EQ(FilesIn(folder_ + "/_../new").size(), 1u);
}

TEST_F(FileEndTest, MboxQuotesFromLinesAndGrows) {
  const std::string path = folder_ + "/mbox";
  settings_->set_file_destination(path);
  settings_->set_file_format("append-mbox");
  AddRcpt("a@b.test");
  EXPECT_EQ(RunLocalJob(Job({"A: 1\r\n\r\nFrom me\r\nFr", "om you\r\n>From him\r\nFromage\r\n"}))[0]
                .outcome,
            RECIPIENT_OUTCOME_DELIVERED);
  lease_->mutable_message()->set_mail_from("");
  RunLocalJob(Job({"B: 2\r\n\r\n"}));
  EXPECT_EQ(ReadFile(path),
            "From from@a.test Tue Nov 14 22:13:20 2023\nReturn-Path: <from@a.test>\n"
            "Delivered-To: a@b.test\nA: 1\n\n>From me\n>From you\n>>From him\nFromage\n\n"
            "From MAILER-DAEMON Tue Nov 14 22:13:20 2023\nReturn-Path: <>\n"
            "Delivered-To: a@b.test\nB: 2\n\n\n");
}

// As a kill in the middle of a message leaves it, or a program that ends no line.
TEST_F(FileEndTest, AMailboxThatWasCutOffGetsItsEndFirst) {
  const std::string path = folder_ + "/mbox";
  settings_->set_file_destination(path);
  settings_->set_file_format("append-mbox");
  AddRcpt("a@b.test");
  const struct {
    std::string there;
    std::string before;
  } kCases[] = {{"", ""},
                {"From x\n\ncut o", "\n\n"},
                {"From x\n\ncut\n", "\n"},
                {"whole\n\n", ""},
                {"c", "\n\n"},
                {"\n", ""}};
  for (const auto& each : kCases) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << each.there;
    EXPECT_EQ(RunLocalJob(Job())[0].outcome, RECIPIENT_OUTCOME_DELIVERED);
    EXPECT_TRUE(ReadFile(path).starts_with(each.there + each.before + "From from@a.test "))
        << ReadFile(path);
  }
}

// RFC 3030 section 3, RFC 8689 section 4.2.1.
TEST_F(FileEndTest, WhatAnEndCannotKeepBounces) {
  AddRcpt("a@b.test");
  AddRcpt("c@b.test");
  settings_->set_command("/bin/cat");
  const struct {
    const char* type;
    const char* format;
    const char* binary;  // enhanced codes
    const char* require_tls;
  } kCases[] = {{"file", "newfile-plain", "2.0.0", "2.0.0"},
                {"file", "newfile-pickup", "5.6.3", "5.7.30"},
                {"file", "maildir", "5.6.3", "2.0.0"},
                {"file", "append-mbox", "5.6.3", "2.0.0"},
                {"pipe", "", "5.6.3", "2.0.0"},
                {"discard", "", "2.0.0", "2.0.0"}};
  for (const auto& each : kCases) {
    settings_->set_type(each.type);
    settings_->set_file_format(each.format);
    settings_->set_file_destination(folder_ + "/" + each.type + each.format);
    auto& message = *lease_->mutable_message();
    message.set_body_type(common::v1::BODY_TYPE_BINARYMIME);
    const std::string bytes("S: s\r\n\r\na\0b\nc\r\n", 15);
    const auto binary = RunLocalJob(Job({bytes}));
    ASSERT_EQ(binary.size(), 2u);
    EXPECT_EQ(binary[1].reply.enhanced(), each.binary) << each.type << each.format;
    if (std::string(each.format) == "newfile-plain") {
      const auto files = FilesIn(folder_ + "/filenewfile-plain");
      ASSERT_EQ(files.size(), 1u);
      EXPECT_EQ(ReadFile(files[0]), bytes);
    }
    message.set_body_type(common::v1::BODY_TYPE_8BITMIME);
    message.set_require_tls(true);
    EXPECT_EQ(RunLocalJob(Job())[0].reply.enhanced(), each.require_tls) << each.type << each.format;
    message.set_require_tls(false);
  }
}

TEST_F(FileEndTest, WhatIsNoPlainFileIsLeftAlone) {
  settings_->set_file_format("append-mbox");
  AddRcpt("a@b.test");
  const std::string link = folder_ + "/link";
  ASSERT_EQ(symlink("/etc/hostname", link.c_str()), 0);
  for (const std::string& path : {link, std::string("/dev/null"), folder_, folder_ + "/no/box"}) {
    settings_->set_file_destination(path);
    EXPECT_EQ(RunLocalJob(Job())[0].outcome, RECIPIENT_OUTCOME_TRANSIENT) << path;
  }
  settings_->set_file_destination("");
  EXPECT_EQ(RunLocalJob(Job())[0].reply.enhanced(), "4.3.5");
  settings_->set_file_destination("/dev/full/x");
  settings_->set_file_format("newfile-plain");
  EXPECT_EQ(RunLocalJob(Job())[0].outcome, RECIPIENT_OUTCOME_TRANSIENT);
}

TEST_F(FileEndTest, FoldersOfRecipientsAreMadeAndNoOthers) {
  AddRcpt("anna@b.test");
  AddRcpt("bert@c.test");
  for (const char* const format : {"newfile-plain", "maildir", "append-mbox"}) {
    settings_->set_file_format(format);
    const std::string folder = folder_ + "/" + format;
    settings_->set_file_destination(folder + "/${domain}/of-${local}");
    // Its disk may not be there.
    EXPECT_EQ(RunLocalJob(Job())[0].outcome, RECIPIENT_OUTCOME_TRANSIENT) << format;
    std::filesystem::create_directory(folder);
    for (const auto& verdict : RunLocalJob(Job())) {
      EXPECT_EQ(verdict.outcome, RECIPIENT_OUTCOME_DELIVERED) << format << verdict.reply.text();
    }
    EXPECT_TRUE(std::filesystem::exists(folder + "/b.test/of-anna")) << format;
    EXPECT_TRUE(std::filesystem::exists(folder + "/c.test/of-bert")) << format;
  }
  settings_->set_file_format("newfile-plain");
  settings_->set_file_destination(folder_ + "/here/${local}");
  std::filesystem::create_directory(folder_ + "/here");
  EXPECT_EQ(RunLocalJob(Job())[1].outcome, RECIPIENT_OUTCOME_DELIVERED);
  EXPECT_EQ(FilesIn(folder_ + "/here/bert").size(), 1u);
}

TEST_F(FileEndTest, ALockedMailboxIsGivenUpWhenNobodyWaits) {
  const std::string path = folder_ + "/mbox";
  settings_->set_file_destination(path);
  settings_->set_file_format("append-mbox");
  AddRcpt("a@b.test");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  LocalJob job = Job();
  job.cancelled = std::make_shared<const std::atomic<bool>>(true);
  EXPECT_EQ(RunLocalJob(job)[0].reply.enhanced(), "4.2.0");
  EXPECT_EQ(ReadFile(path), "");
  close(fd);
  job.cancelled = nullptr;
  EXPECT_EQ(RunLocalJob(job)[0].outcome, RECIPIENT_OUTCOME_DELIVERED);
}

TEST_F(FileEndTest, DiscardTakesEverything) {
  settings_->set_type("discard");
  AddRcpt("a@b.test");
  AddRcpt("c@b.test");
  const auto verdicts = RunLocalJob(Job());
  ASSERT_EQ(verdicts.size(), 2u);
  EXPECT_EQ(verdicts[1].outcome, RECIPIENT_OUTCOME_DELIVERED);
  settings_->set_discard_as_bounce(true);
  const auto bounced = RunLocalJob(Job());
  ASSERT_EQ(bounced.size(), 2u);
  EXPECT_EQ(bounced[1].outcome, queue::v1::RECIPIENT_OUTCOME_PERMANENT);
  EXPECT_EQ(bounced[1].reply.text(), "discarded as a bounce");
}

}  // namespace
}  // namespace sluice::delivery
