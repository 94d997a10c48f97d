// Proves which files are taken, when they go, and what becomes of bad ones.
#include "services/ingest/pickup/pickup.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "gtest/gtest.h"
#include "services/base/testing/manual_executor.h"
#include "services/base/testing/temp_folder.h"
#include "services/ingest/pickup/pickup_file.h"
#include "services/ingest/testing/fake_policy.h"

namespace sluice::ingest {
namespace {

constexpr char kGood[] = "x-sender: <a@b.test>\nx-receiver: c@d.test\nSubject: s\n\nbody\n";

TEST(PickupFile, EnvelopeThenMessage) {
  const auto request = ReadPickupFile(
      "X-Sender: <a@b.test>\r\nx-receiver: <c@d.test>\r\nx-receiver:e@f.test\r\nx-envid: e 1\r\n"
      "x-job: j\r\nx-virtual-mta: v\r\nSubject: s\r\nx-receiver: <no@more.test>\r\n\r\nbody\r\n");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->mail_from(), "a@b.test");
  ASSERT_EQ(request->recipients_size(), 2);
  EXPECT_EQ(request->recipients(1).address(), "e@f.test");
  EXPECT_EQ(request->envid(), "e 1");
  EXPECT_EQ(request->job_id(), "j");
  EXPECT_EQ(request->virtual_mta(), "v");
  EXPECT_EQ(request->content(), "Subject: s\r\nx-receiver: <no@more.test>\r\n\r\nbody\r\n");
  EXPECT_EQ(ReadPickupFile("x-sender: <>\nx-receiver: a@b\n\n")->mail_from(), "");
}

// pickup-remove-dot: RFC 5321 section 4.5.2.
TEST(PickupFile, DotsAreUndoneWhereThatIsSaid) {
  const std::string envelope = "x-sender: <a@b.test>\nx-receiver: c@d.test\n";
  const struct {
    const char* text;
    const char* message;
  } kCases[] = {
      {"S: s\n\n..\n.a\n...b\nc.\n.\n", "S: s\n\n.\na\n..b\nc.\n"},
      {"S: s\r\n\r\nx\r\n.\r\nmore\r\n", "S: s\r\n\r\nx\r\n"},
      {"S: s\n\nno end", "S: s\n\nno end"},
      {"S: s\n\nx\n.", "S: s\n\nx\n"},
      {"S: s\n\n. \n", "S: s\n\n \n"},
  };
  for (const auto& each : kCases) {
    EXPECT_EQ(ReadPickupFile(envelope + each.text, true)->content(), each.message) << each.text;
    EXPECT_EQ(ReadPickupFile(envelope + each.text)->content(), each.text);
  }
  EXPECT_FALSE(ReadPickupFile(envelope + ".\n", true).ok());
}

TEST(PickupFile, BadOnesSayWhy) {
  for (const auto& [text, words] : std::vector<std::pair<std::string, std::string>>{
           {"", "no x-sender"},
           {"Subject: s\n\nx\n", "no x-sender"},
           {"x-receiver: a@b\nSubject: s\n\n", "no x-sender"},
           {"x-sender: a@b\nSubject: s\n\n", "no x-receiver"},
           {"x-sender: a@b\nx-sender: c@d\nx-receiver: a@b\nS: s\n\n", "two"},
           {"x-sender: a@b\nx-receiver: c@d\n", "no message"},
           {"x-sender: a@b\nx-receiver: c@d", "ends in its envelope"},
           {"x-sender: " + std::string(2000, 'a') + "\n", "too long"},
       }) {
    const auto request = ReadPickupFile(text);
    ASSERT_FALSE(request.ok()) << text;
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(request.status().message()).find(words), std::string::npos)
        << request.status().message();
  }
}

class PickupTest : public ::testing::Test {
 protected:
  PickupTest() {
    std::filesystem::create_directory(folder_ + "/in");
    std::filesystem::create_directory(folder_ + "/bad");
    auto* const pickup = policy_.global_settings.add_pickups();
    pickup->set_folder(folder_ + "/in");
    pickup->set_bad_folder(folder_ + "/bad");
  }

  void Make(const PickupOptions& options = {}) {
    pickup_ = std::make_unique<Pickup>(
        executor_.clock(),
        [this](v1::InjectRequest request, absl::AnyInvocable<void(absl::Status)> done) {
          requests_.push_back(std::move(request));
          answers_.push_back(std::move(done));
        },
        options, &log_);
    pickup_->SetPolicy(policy_);
  }
  // From now on file modes hold for root, too.
  void ObeyModes(bool obey = true) {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct sets[2] = {};
    ASSERT_EQ(syscall(SYS_capget, &header, sets), 0);
    constexpr uint32_t kOverride = 1U << CAP_DAC_OVERRIDE | 1U << CAP_DAC_READ_SEARCH;
    sets[0].effective =
        obey ? sets[0].effective & ~kOverride : sets[0].effective | (sets[0].permitted & kOverride);
    ASSERT_EQ(syscall(SYS_capset, &header, sets), 0);
  }
  void TearDown() override { ObeyModes(false); }
  size_t Logged(const std::string& words) const {
    size_t count = 0;
    for (size_t at = logged_.find(words); at != logged_.npos; at = logged_.find(words, at + 1)) {
      ++count;
    }
    return count;
  }
  // Of long ago, for the executor's clock.
  void Put(const std::string& name, const std::string& text, int64_t at = 1'600'000'000) {
    const std::string path = folder_ + "/in/" + name;
    std::ofstream(path, std::ios::binary) << text;
    const timespec times[2] = {{at, 0}, {at, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
  bool Has(const std::string& name) { return std::filesystem::exists(folder_ + "/" + name); }
  std::string Text(const std::string& name) {
    std::ifstream file(folder_ + "/" + name);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  LogOptions KeepLog() {
    LogOptions options;
    options.sink = [this](std::string_view line) { logged_.append(line).append("\n"); };
    return options;
  }

  const sluice::testing::TempFolder temp_{"pickup"};
  const std::string folder_ = temp_.path();
  std::string logged_;
  sluice::testing::ManualExecutor executor_;
  Log log_{KeepLog(), executor_.clock()};
  testing::FakePolicy policy_;
  std::vector<v1::InjectRequest> requests_;
  std::vector<absl::AnyInvocable<void(absl::Status)>> answers_;
  std::unique_ptr<Pickup> pickup_;
};

TEST_F(PickupTest, AFileGoesOnceItsMessageIsDurable) {
  Make();
  Put("one", kGood);
  pickup_->RunOnce();
  pickup_->RunOnce();
  ASSERT_EQ(requests_.size(), 1u);
  EXPECT_EQ(requests_[0].content(), "Subject: s\n\nbody\n");
  EXPECT_TRUE(Has("in/one"));
  answers_[0](absl::OkStatus());
  pickup_->RunOnce();
  EXPECT_FALSE(Has("in/one"));
  EXPECT_EQ(pickup_->counters().taken, 1u);
}

TEST_F(PickupTest, TheSameFileHasTheSameKeyAfterARestartAndAnotherOneHasNot) {
  Make();
  Put("one", kGood);
  pickup_->RunOnce();
  Make();  // as after a crash: the first answer is lost
  answers_[0](absl::OkStatus());
  pickup_->RunOnce();
  ASSERT_EQ(requests_.size(), 2u);
  EXPECT_EQ(requests_[0].idempotency_key(), requests_[1].idempotency_key());
  EXPECT_LE(requests_[0].idempotency_key().size(), 128u);
  answers_[1](absl::OkStatus());
  pickup_->RunOnce();
  Put("one", kGood, 1'600'000'001);
  pickup_->RunOnce();
  ASSERT_EQ(requests_.size(), 3u);
  EXPECT_NE(requests_[0].idempotency_key(), requests_[2].idempotency_key());
}

TEST_F(PickupTest, BadFilesAreMovedWithTheirReason) {
  Make();
  Put("no-envelope", "Subject: s\n\nx\n");
  Put("refused", kGood);
  pickup_->RunOnce();
  EXPECT_EQ(Text("bad/no-envelope"), "Subject: s\n\nx\n");
  EXPECT_EQ(Text("bad/no-envelope.reason"), "there is no x-sender line in front\n");
  ASSERT_EQ(answers_.size(), 1u);
  answers_[0](absl::PermissionDeniedError("relaying denied"));
  pickup_->RunOnce();
  EXPECT_EQ(Text("bad/refused.reason"), "relaying denied\n");
  EXPECT_FALSE(Has("in/refused"));
  EXPECT_EQ(pickup_->counters().bad, 2u);
}

// A program that always uses the same name, or goes on writing after a pause.
TEST_F(PickupTest, WhatCameToTheNameMeanwhileIsAMessageOfItsOwn) {
  Make();
  Put("one", kGood);
  Put("two", kGood);
  pickup_->RunOnce();
  ASSERT_EQ(answers_.size(), 2u);
  Put("new", std::string(kGood) + "of the second\n", 1'600'000'001);
  std::filesystem::rename(folder_ + "/in/new", folder_ + "/in/one");
  Put("two", std::string(kGood) + "longer\n", 1'600'000'002);
  answers_[0](absl::OkStatus());
  answers_[1](absl::PermissionDeniedError("relaying denied"));
  pickup_->RunOnce();
  ASSERT_EQ(requests_.size(), 4u);
  EXPECT_EQ(requests_[2].content(), "Subject: s\n\nbody\nof the second\n");
  EXPECT_NE(requests_[2].idempotency_key(), requests_[0].idempotency_key());
  EXPECT_EQ(requests_[3].content(), "Subject: s\n\nbody\nlonger\n");
  EXPECT_FALSE(Has("bad/two"));
  answers_[2](absl::OkStatus());
  answers_[3](absl::OkStatus());
  pickup_->RunOnce();
  EXPECT_FALSE(Has("in/one"));
  EXPECT_FALSE(Has("in/two"));
  EXPECT_EQ(pickup_->counters().taken, 3u);
}

TEST_F(PickupTest, BadFilesOfOneNameAreAllKept) {
  Make();
  for (int i = 0; i < 3; ++i) {
    Put("one", "Subject: " + std::to_string(i) + "\n\nx\n");
    pickup_->RunOnce();
    EXPECT_FALSE(Has("in/one"));
  }
  EXPECT_EQ(Text("bad/one"), "Subject: 0\n\nx\n");
  EXPECT_EQ(Text("bad/one.1"), "Subject: 1\n\nx\n");
  EXPECT_EQ(Text("bad/one.2"), "Subject: 2\n\nx\n");
  EXPECT_EQ(Text("bad/one.2.reason"), "there is no x-sender line in front\n");
}

TEST_F(PickupTest, WhatIsPutOffIsTriedAgainLater) {
  Make();
  Put("one", kGood);
  pickup_->RunOnce();
  answers_[0](absl::UnavailableError("no shard"));
  pickup_->RunOnce();
  EXPECT_EQ(requests_.size(), 1u);
  executor_.Advance(std::chrono::seconds(10));
  pickup_->RunOnce();
  EXPECT_EQ(requests_.size(), 2u);
  EXPECT_TRUE(Has("in/one"));
  EXPECT_EQ(pickup_->counters().put_off, 1u);
}

// What cannot be read is said, tried again and in the end shown; nothing waits behind it.
TEST_F(PickupTest, UnreadableFilesAreTriedAgainAndEndInTheBadFolder) {
  PickupOptions options;
  options.max_reads = 4;
  Make(options);
  Put("locked", kGood);
  Put("mended", kGood);
  Put("open", kGood);
  for (const char* name : {"locked", "mended"}) {
    ASSERT_EQ(chmod((folder_ + "/in/" + name).c_str(), 0000), 0);
  }
  ObeyModes();
  pickup_->RunOnce();
  ASSERT_EQ(requests_.size(), 1u);
  EXPECT_EQ(pickup_->counters().unreadable, 2u);
  EXPECT_EQ(pickup_->counters().stuck, 2u);
  EXPECT_EQ(Logged("cannot be read: Permission denied; try 1 of 4"), 2u);
  pickup_->RunOnce();  // not before its time
  EXPECT_EQ(pickup_->counters().unreadable, 2u);
  ASSERT_EQ(chmod((folder_ + "/in/mended").c_str(), 0666), 0);
  for (const int after_s : {10, 20, 40}) {
    executor_.Advance(std::chrono::seconds(after_s - 1));
    const uint64_t before = pickup_->counters().unreadable;
    pickup_->RunOnce();
    EXPECT_EQ(pickup_->counters().unreadable, before) << after_s;
    executor_.Advance(std::chrono::seconds(1));
    pickup_->RunOnce();
    EXPECT_EQ(pickup_->counters().unreadable, before + 1) << after_s;
  }
  EXPECT_EQ(requests_.size(), 2u);
  EXPECT_FALSE(Has("in/locked"));
  EXPECT_TRUE(Has("bad/locked"));
  EXPECT_EQ(Text("bad/locked.reason"), "the file cannot be read: Permission denied\n");
  EXPECT_EQ(pickup_->counters().bad, 1u);
  answers_[1](absl::OkStatus());
  pickup_->RunOnce();
  EXPECT_EQ(pickup_->counters().stuck, 0u);
}

// A file whose message is taken is never offered again, however long it stays.
TEST_F(PickupTest, WhatCannotBeRemovedIsNotSentTwice) {
  Make();
  Put("one", kGood);
  ObeyModes();
  pickup_->RunOnce();
  ASSERT_EQ(answers_.size(), 1u);
  ASSERT_EQ(chmod((folder_ + "/in").c_str(), 0555), 0);
  answers_[0](absl::OkStatus());
  for (int i = 0; i < 3; ++i) {
    pickup_->RunOnce();
    executor_.Advance(std::chrono::minutes(20));
  }
  EXPECT_EQ(requests_.size(), 1u);
  EXPECT_TRUE(Has("in/one"));
  EXPECT_EQ(pickup_->counters().stuck, 2u);  // the folder, too
  EXPECT_EQ(Logged("may not be written to"), 1u);
  ASSERT_EQ(chmod((folder_ + "/in").c_str(), 0755), 0);
  pickup_->RunOnce();
  EXPECT_FALSE(Has("in/one"));
  pickup_->RunOnce();
  EXPECT_EQ(pickup_->counters().stuck, 0u);
  EXPECT_EQ(requests_.size(), 1u);
}

// Many that wait leave room for those that can be taken.
TEST_F(PickupTest, BadFilesThatCannotBeMovedHoldUpNobody) {
  std::filesystem::remove_all(folder_ + "/bad");
  PickupOptions options;
  options.max_messages = 10'000;
  Make(options);
  for (int i = 0; i < 1100; ++i) Put("bad" + std::to_string(i), "x");
  Put("z", kGood);
  for (int i = 0; i < 3; ++i) pickup_->RunOnce();
  EXPECT_EQ(requests_.size(), 1u);
  EXPECT_EQ(pickup_->counters().stuck, 1100u);
}

// pickup-retry-interval and pickup-remove-dot, also of a policy that comes later.
TEST_F(PickupTest, ThePolicySaysHowLongAFolderWaitsAndHowItsFilesAreRead) {
  policy_.global_settings.set_pickup_retry_interval_us(60'000'000);
  Make();
  Put("one", std::string(kGood) + "..\n.\n");
  pickup_->RunOnce();
  EXPECT_EQ(requests_.back().content(), "Subject: s\n\nbody\n..\n.\n");
  answers_[0](absl::UnavailableError("no shard"));
  pickup_->RunOnce();
  executor_.Advance(std::chrono::seconds(59));
  pickup_->RunOnce();
  EXPECT_EQ(requests_.size(), 1u);
  policy_.global_settings.set_pickup_retry_interval_us(5'000'000);
  policy_.global_settings.set_pickup_remove_dot(true);
  pickup_->SetPolicy(policy_);
  pickup_->RunOnce();
  ASSERT_EQ(requests_.size(), 2u);
  EXPECT_EQ(requests_.back().content(), "Subject: s\n\nbody\n.\n");
  answers_[1](absl::UnavailableError("no shard"));
  pickup_->RunOnce();
  executor_.Advance(std::chrono::seconds(5));
  pickup_->RunOnce();
  EXPECT_EQ(requests_.size(), 3u);
}

TEST_F(PickupTest, UnfinishedHiddenAndOddFilesAreLeftAlone) {
  Make();
  Put(".hidden", kGood);
  Put("new", kGood, 1'700'003'600);  // the clock's present second
  ASSERT_EQ(symlink("/etc/hostname", (folder_ + "/in/link").c_str()), 0);
  ASSERT_EQ(mkfifo((folder_ + "/in/fifo").c_str(), 0600), 0);
  std::filesystem::create_directory(folder_ + "/in/folder");
  pickup_->RunOnce();
  EXPECT_EQ(requests_.size(), 0u);
  executor_.Advance(std::chrono::seconds(2));
  pickup_->RunOnce();
  EXPECT_EQ(requests_.size(), 1u);
  EXPECT_TRUE(Has("in/fifo") && Has("in/.hidden"));
}

TEST_F(PickupTest, NoMoreThanTheLimitsAreOnTheirWay) {
  PickupOptions options;
  options.max_messages = 3;
  options.max_bytes = 2 * sizeof kGood;
  options.max_file_bytes = 1000;
  Make(options);
  for (const char* name : {"a", "b", "c", "d"}) Put(name, kGood);
  Put("e", std::string(1001, 'x'));
  pickup_->RunOnce();
  EXPECT_EQ(requests_.size(), 2u);
  answers_[0](absl::OkStatus());
  pickup_->RunOnce();
  EXPECT_EQ(requests_.size(), 3u);
  answers_[1](absl::OkStatus());
  answers_[2](absl::OkStatus());
  pickup_->RunOnce();
  answers_[3](absl::OkStatus());
  pickup_->RunOnce();
  EXPECT_EQ(Text("bad/e.reason"), "the file is too large\n");
}

TEST_F(PickupTest, TheThreadTakesFilesAndStops) {
  PickupOptions options;
  options.period = std::chrono::milliseconds(1);
  Put("one", kGood);
  std::atomic<int> taken = 0;
  Pickup pickup(
      executor_.clock(),
      [&](v1::InjectRequest, absl::AnyInvocable<void(absl::Status)> done) {
        done(absl::OkStatus());
        ++taken;
        taken.notify_all();
      },
      options, nullptr);
  pickup.SetPolicy(policy_);
  pickup.Start();
  taken.wait(0);
  pickup.Stop(std::chrono::seconds(10));
  EXPECT_FALSE(Has("in/one"));
}

}  // namespace
}  // namespace sluice::ingest
