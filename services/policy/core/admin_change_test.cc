// What operators change through the admin API: modes, sources, clocks, pauses, queued mail, files.
#include <filesystem>
#include <fstream>

#include "services/policy/core/admin_fixture.h"

namespace sluice::policy {
namespace {

using testing::AdminTest;
using testing::FakeShard;

TEST_F(AdminTest, AModeIsSetInAllShardsAlsoWhereThereIsNoMailNow) {
  s0_->queues = {{"a.test/v", 5}, {"b.test/v", 5}};
  admin::v1::SetQueueModeRequest request;
  request.mutable_request()->set_backoff(true);
  request.mutable_request()->set_pattern("*/v");
  auto answer = Call(&Admin::SetQueueMode, request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->queues(), 2u);
  EXPECT_EQ(answer->names(0), "a.test/v");
  EXPECT_EQ(s1_->named, (std::vector<std::string>{"a.test/v", "b.test/v"})) << "it has none";
  EXPECT_TRUE(s0_->named.empty());
  s1_->named.clear();
  // Nobody has this one: all of them make it.
  request.mutable_request()->set_pattern("new.test/v");
  answer = Call(&Admin::SetQueueMode, request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->queues(), 1u);
  EXPECT_EQ(s0_->named, s1_->named);
  EXPECT_EQ(s0_->named, (std::vector<std::string>{"new.test/v"}));
  // What is normal needs no row; and there is no such virtual MTA.
  request.mutable_request()->set_backoff(false);
  EXPECT_EQ(Call(&Admin::SetQueueMode, request).status().message(),
            "no shard has a queue that matches new.test/v, so nothing is to be undone");
  request.mutable_request()->set_backoff(true);
  request.mutable_request()->set_pattern("a.test/none");
  EXPECT_TRUE(absl::IsNotFound(Call(&Admin::SetQueueMode, request).status()));
  request.mutable_request()->set_pattern("a.test");
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::SetQueueMode, request).status()));
}

TEST_F(AdminTest, NormalIsToldToShardsThatDoNotHaveTheQueue) {
  s0_->queues = {{"a.test/v", 5}, {"b.test/v", 5}};
  s0_->backoff = {"a.test/v"};
  admin::v1::SetQueueModeRequest request;
  request.mutable_request()->set_pattern("*/*");
  auto answer = Call(&Admin::SetQueueMode, request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->queues(), 1u) << "the other one is normal";
  EXPECT_EQ(s1_->named, (std::vector<std::string>{"a.test/v"}));
  request.mutable_request()->set_pattern("A.Test/v");
  answer = Call(&Admin::SetQueueMode, request);
  ASSERT_TRUE(answer.ok()) << "as queues are named: " << answer.status();
}

TEST_F(AdminTest, AShardThatDoesNotHearOfAModeIsNamed) {
  s0_->queues = {{"a.test/v", 5}};
  s1_->mode = FakeShard::Mode::kDown;
  admin::v1::SetQueueModeRequest request;
  request.mutable_request()->set_backoff(true);
  request.mutable_request()->set_pattern("a.test/v");
  auto answer = Call(&Admin::SetQueueMode, request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ(answer->unreachable_size(), 1);
  EXPECT_EQ(answer->unreachable(0), "s1");
  s0_->mode = FakeShard::Mode::kDown;
  EXPECT_TRUE(absl::IsUnavailable(Call(&Admin::SetQueueMode, request).status()));
}

TEST_F(AdminTest, TheClockIsConfirmedInEveryShardThatAnswers) {
  s1_->mode = FakeShard::Mode::kDown;
  admin::v1::ConfirmClockRequest request;
  request.set_author("olive");
  const auto answer = Call(&Admin::ConfirmClock, request);
  ASSERT_TRUE(answer.ok());
  ASSERT_EQ(answer->shards_size(), 1);
  EXPECT_EQ(answer->shards(0).shard(), "s0");
  EXPECT_EQ(answer->shards(0).was_frozen_us(), 7);
  EXPECT_EQ(answer->unreachable(0), "s1");
}

TEST_F(AdminTest, ASourceIsNamedAsItIsKept) {
  admin::v1::SetQueueSourceRequest request;
  request.mutable_request()->set_pattern("a.test/v");
  request.mutable_request()->set_disable(true);
  request.mutable_request()->set_ip("2001:DB8:0:0::1");
  ASSERT_TRUE(Call(&Admin::SetQueueSource, request).ok());
  EXPECT_EQ(s1_->source, "2001:db8::1");
  request.mutable_request()->set_ip("out1.test");
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::SetQueueSource, request).status()));
}

TEST_F(AdminTest, DeletesEverywhereOrUpToTheLimit) {
  s0_->messages = 25'000;
  s1_->messages = 7;
  admin::v1::DeleteMessagesRequest request;
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::DeleteMessages, request).status()));
  request.mutable_request()->mutable_filter()->set_all(true);
  request.mutable_request()->set_limit(5);
  EXPECT_EQ(Call(&Admin::DeleteMessages, request)->recipients(), 5u);
  request.mutable_request()->set_limit(0);
  EXPECT_EQ(Call(&Admin::DeleteMessages, request)->recipients(), 25'002u);
  EXPECT_EQ(s0_->messages + s1_->messages, 0);
  s0_->mode = FakeShard::Mode::kDown;
  EXPECT_EQ(Call(&Admin::DeleteMessages, request)->unreachable(0), "s0");
}

TEST_F(AdminTest, WhatWasDoneInPartSaysSo) {
  s0_->queues = {{"a", 1}, {"b", 1}};
  s1_->mode = FakeShard::Mode::kDown;
  const auto done = Call(&Admin::RetryQueues, admin::v1::RetryQueuesRequest());
  EXPECT_TRUE(absl::IsUnavailable(done.status()));
  EXPECT_EQ(done.status().message(), "no answer from s1; 2 queues changed elsewhere");
}

// A name that nobody knows is no reroute of no mail.
TEST_F(AdminTest, ARerouteToWhatNoShardKnowsIsNotFound) {
  admin::v1::RerouteMessagesRequest request;
  request.mutable_request()->mutable_filter()->set_all(true);
  request.mutable_request()->set_target("v1");
  EXPECT_TRUE(Call(&Admin::RerouteMessages, request).ok());
  request.mutable_request()->set_target("v2");
  const auto status = Call(&Admin::RerouteMessages, request).status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_EQ(status.message(), "there is no virtual MTA or pool named v2");
  // One that has a newer configuration knows it.
  s1_->target = "v2";
  EXPECT_TRUE(Call(&Admin::RerouteMessages, request).ok());
  s1_->mode = FakeShard::Mode::kDown;
  EXPECT_TRUE(absl::IsUnavailable(Call(&Admin::RerouteMessages, request).status()));
}

TEST_F(AdminTest, PauseAndResume) {
  admin::v1::PauseRequest pause;
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::Pause, pause).status()));
  pause.set_queue_pattern("A.test/*");
  pause.set_author("ann");
  const auto paused = Call(&Admin::Pause, pause);
  ASSERT_TRUE(paused.ok());
  EXPECT_EQ(paused->entry().queue_pattern(), "a.test/*");
  EXPECT_EQ(Call(&Admin::ListPauses, admin::v1::ListPausesRequest())->entries_size(), 1);
  admin::v1::ResumeRequest resume;
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::Resume, resume).status()));
  resume.set_queue_pattern("b.test/*");
  EXPECT_EQ(Call(&Admin::Resume, resume)->resumed(), 0u);
  resume.set_queue_pattern("a.test/*");
  EXPECT_EQ(Call(&Admin::Resume, resume)->resumed(), 1u);
}

TEST_F(AdminTest, ReloadAndCheck) {
  Write("no-such-directive yes\n");
  const auto bad = Call(&Admin::ReloadConfig, admin::v1::ReloadConfigRequest());
  EXPECT_TRUE(absl::IsFailedPrecondition(bad.status()));
  EXPECT_NE(bad.status().message().find("a.conf:1:1: error: "), std::string::npos);
  EXPECT_FALSE(Call(&Admin::CheckConfig, admin::v1::CheckConfigRequest())->loads());
  Write("host-name two.test\n<source 127.0.0.1>\nlog-data yes\n</source>\n");
  const auto good = Call(&Admin::ReloadConfig, admin::v1::ReloadConfigRequest());
  ASSERT_TRUE(good.ok());
  EXPECT_TRUE(good->changed());
  EXPECT_EQ(good->version(), 2u);
  EXPECT_EQ(good->warnings_size(), 1);
  EXPECT_TRUE(Call(&Admin::CheckConfig, admin::v1::CheckConfigRequest())->loads());
}

// Diagnostics show lines: whoever may ask must not read every file of the machine by them.
TEST_F(AdminTest, OnlyFilesBesideOursAreCheckedByName) {
  const auto check = [this](const std::string& file) {
    admin::v1::CheckConfigRequest request;
    request.add_files(file);
    return Call(&Admin::CheckConfig, request).status().code();
  };
  namespace fs = std::filesystem;
  const fs::path folder = folder_;
  const std::string ending = ".conf";
  fs::create_directories(folder / "new");
  const std::string beside = folder / "new" / ("b" + ending);
  std::ofstream(beside) << "host-name three.test\n";
  EXPECT_EQ(check(folder_ + "/a.conf"), absl::StatusCode::kOk);
  EXPECT_EQ(check(beside), absl::StatusCode::kOk);
  const std::string link = folder / ("link" + ending);
  fs::create_symlink("/etc/passwd", link);
  const std::string secret = folder / "key.pem";
  std::ofstream(secret) << "secret\n";
  for (const std::string& other :
       {std::string("/etc/passwd"), link, secret, folder.string(),
        (folder / "absent.conf").string(), (folder / ".." / ".." / "etc" / "passwd").string()}) {
    EXPECT_EQ(check(other), absl::StatusCode::kPermissionDenied) << other;
  }
}

}  // namespace
}  // namespace sluice::policy
