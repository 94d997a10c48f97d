// What the admin API answers from all shards and workers, and who is missing from it.
#include "services/policy/core/admin_fixture.h"

namespace sluice::policy {
namespace {

using testing::AdminTest;
using testing::FakeShard;
using testing::MessageId;

TEST_F(AdminTest, StatusNamesWhoDoesNotAnswer) {
  s1_->mode = FakeShard::Mode::kSilent;
  const auto status = Call(&Admin::GetStatus, admin::v1::GetStatusRequest());
  ASSERT_TRUE(status.ok());
  ASSERT_EQ(status->shards_size(), 1);
  EXPECT_EQ(status->shards(0).shard(), "s0");
  EXPECT_EQ(status->workers_size(), 1);
  ASSERT_EQ(status->unreachable_size(), 1);
  EXPECT_EQ(status->unreachable(0), "s1");
  EXPECT_EQ(status->snapshot_version(), 1u);
  EXPECT_EQ(status->version(), "test");
  s1_->AnswerLate();
  executor_.RunPosted();
}

TEST_F(AdminTest, WorkersAreAskedForTheConnectionsThatAreWanted) {
  admin::v1::GetStatusRequest request;
  ASSERT_TRUE(Call(&Admin::GetStatus, request).ok());
  EXPECT_FALSE(worker_->asked.with_connections());
  request.set_with_connections(true);
  request.set_queue_pattern("a.test/*");
  ASSERT_TRUE(Call(&Admin::GetStatus, request).ok());
  EXPECT_TRUE(worker_->asked.with_connections());
  EXPECT_EQ(worker_->asked.queue_pattern(), "a.test/*");
}

// An address in the flags that is another shard's.
TEST_F(AdminTest, StatusNamesAShardThatIsAnotherOne) {
  s1_->calls_itself = "s7";
  const auto status = Call(&Admin::GetStatus, admin::v1::GetStatusRequest());
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(status->shards_size(), 1);
  ASSERT_EQ(status->unreachable_size(), 1);
  EXPECT_EQ(status->unreachable(0), "s1 (at its address is shard s7)");
}

TEST_F(AdminTest, QueuesAreMergedByNameAndSorted) {
  s0_->queues = {{"a/v", 5}, {"b/v", 6}};
  s1_->queues = {{"a/v", 5}, {"c/v", 1}};
  admin::v1::ListQueuesRequest request;
  request.mutable_request()->set_limit(2);
  const auto list = Call(&Admin::ListQueues, request);
  ASSERT_TRUE(list.ok());
  ASSERT_EQ(list->queues_size(), 2);
  EXPECT_EQ(list->queues(0).name(), "a/v");
  EXPECT_EQ(list->queues(0).recipients(), 10u);
  EXPECT_EQ(list->queues(1).name(), "b/v");
  EXPECT_TRUE(list->more());
}

TEST_F(AdminTest, PagesByNameMissNoQueue) {
  s0_->queues = {{"a", 1}, {"b", 1}, {"c", 1}};
  s1_->queues = {{"b", 1}, {"x", 1}, {"y", 1}};
  admin::v1::ListQueuesRequest request;
  request.mutable_request()->set_sort("name");
  request.mutable_request()->set_limit(2);
  std::string seen;
  for (int page = 0; page < 10; ++page) {
    const auto list = Call(&Admin::ListQueues, request);
    ASSERT_TRUE(list.ok());
    for (const auto& queue : list->queues()) {
      seen += queue.name() + std::to_string(queue.recipients());
    }
    if (!list->more()) break;
    ASSERT_FALSE(list->queues().empty());
    request.mutable_request()->set_after(list->queues().rbegin()->name());
  }
  EXPECT_EQ(seen, "a1b2c1x1y1");
}

TEST_F(AdminTest, OneQueueIsShownByShardWithWhatBlocksIt) {
  s1_->queues = {{"a.test/v", 5}};
  admin::v1::GetQueueRequest request;
  request.set_name("a.test/v");
  const auto queue = Call(&Admin::GetQueue, request);
  ASSERT_TRUE(queue.ok());
  ASSERT_EQ(queue->per_shard_size(), 1);
  EXPECT_EQ(queue->per_shard(0).shard(), "s1");
  EXPECT_EQ(queue->blocked_size(), 1);
  request.set_name("none/v");
  EXPECT_TRUE(absl::IsNotFound(Call(&Admin::GetQueue, request).status()));
  s0_->mode = FakeShard::Mode::kDown;
  EXPECT_TRUE(absl::IsUnavailable(Call(&Admin::GetQueue, request).status()));
}

TEST_F(AdminTest, PagesOfMessagesGoThroughAllShards) {
  s0_->messages = 5;
  s1_->messages = 4;
  admin::v1::ListMessagesRequest request;
  request.mutable_request()->set_limit(2);
  int seen = 0;
  int pages = 0;
  do {
    const auto page = Call(&Admin::ListMessages, request);
    ASSERT_TRUE(page.ok()) << page.status().message();
    seen += page->recipients_size();
    request.mutable_request()->set_after(page->after());
    ASSERT_LT(++pages, 10);
  } while (!request.request().after().empty());
  EXPECT_EQ(seen, 9);
  request.mutable_request()->set_after("nonsense");
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::ListMessages, request).status()));
}

TEST_F(AdminTest, MessagesAndEventsOfAllShards) {
  admin::v1::GetMessageRequest request;
  request.set_message_id(MessageId());
  EXPECT_TRUE(absl::IsNotFound(Call(&Admin::GetMessage, request).status()));
  s1_->has_message = true;
  EXPECT_EQ(Call(&Admin::GetMessage, request)->message().recipients(0).shard(), "s1");
  request.set_message_id("short");
  EXPECT_TRUE(absl::IsInvalidArgument(Call(&Admin::GetMessage, request).status()));

  s0_->event_times = {1, 5};
  s1_->event_times = {3, 4, 9};
  admin::v1::ListEventsRequest events;
  events.set_message_id(MessageId());
  const auto list = Call(&Admin::ListEvents, events);
  ASSERT_TRUE(list.ok());
  std::string times;
  for (const auto& event : list->events()) times += std::to_string(event.time_us());
  EXPECT_EQ(times, "13459");
}

// Operators see what services were sent, whatever the files say by now, and the lines that said it.
TEST_F(AdminTest, WhatIsInForceIsExplained) {
  Write("host-name two.test\n<domain a.test>\nmax-smtp-out 5\nauth-password hidden\n</domain>\n");
  ASSERT_TRUE(Call(&Admin::ReloadConfig, admin::v1::ReloadConfigRequest()).ok());
  admin::v1::ExplainConfigRequest request;
  request.set_domain("a.test");
  const auto rows = [&] {
    const auto response = Call(&Admin::ExplainConfig, request);
    EXPECT_TRUE(response.ok());
    std::string text;
    for (const auto& setting : response->subjects(0).settings()) {
      if (setting.is_default()) continue;
      const std::string& where = setting.where();
      text += setting.directive() + " " + setting.value() + " " + setting.section() + " " +
              where.substr(where.rfind('/') + 1) + "\n";
    }
    for (const std::string& note : response->notes()) text += note + "\n";
    return text;
  };
  EXPECT_EQ(rows(),
            "max-smtp-out 5 <domain a.test> a.conf:3\n"
            "auth-password (secret) <domain a.test> a.conf:4\n");
  // Not loaded yet: the old value holds, and no line says it.
  Write("host-name two.test\n\n<domain a.test>\nmax-smtp-out 6\n</domain>\n");
  EXPECT_EQ(rows(),
            "max-smtp-out 5 <domain a.test> \n"
            "auth-password (secret) <domain a.test> \n"
            "1 sections are different in the files by now; a reload brings them into force\n");
  Write("nonsense\n");
  EXPECT_NE(rows().find("max-smtp-out 5"), std::string::npos);
  EXPECT_NE(rows().find("the files do not load by now"), std::string::npos);
  request.set_vmta("nobody");
  EXPECT_TRUE(absl::IsNotFound(Call(&Admin::ExplainConfig, request).status()));
}

}  // namespace
}  // namespace sluice::policy
