// Proves that a listing, page by page, misses nothing that operators move to places which it has
// passed, that a reroute to a pool ends, and that a position made up by somebody does no harm.
#include <gtest/gtest.h>

#include <set>

#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

class ShardWalkTest : public testing::PolicyShardFixture {
 protected:
  void SetUp() override {
    PolicyShardFixture::SetUp();
    for (const char* name : {"default", "other", "third"}) {
      Section(std::string("vmta/") + name).mutable_virtual_mta()->set_name(name);
    }
    auto* pool = Section("pool/all").mutable_pool();
    pool->set_name("all");
    for (const char* name : {"other", "third"}) pool->add_virtual_mtas(name);
    SetPolicy();
  }
  // Deferred, so that each is due later.
  void Deferred(const std::string& domain, int count) {
    auto& worker = AddWorker();
    worker.auto_credit = 1000;
    for (int i = 0; i < count; ++i) {
      injector().Send({"u" + std::to_string(i) + "@" + domain});
      Run(std::chrono::milliseconds(10));
    }
    Run();
    ASSERT_EQ(worker.leases.size(), static_cast<size_t>(count));
    for (const auto& held : worker.leases) {
      worker.Answer(held.lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
    }
    Run();
    worker.Drop();
    Run(std::chrono::minutes(2));
  }
  // One page; the position for the next one, empty behind the last.
  std::string Page(const std::string& queues, const std::string& after, uint32_t limit,
                   std::multiset<std::string>* into) {
    v1::ListMessagesRequest request;
    request.mutable_filter()->set_queue_pattern(queues);
    request.set_limit(limit);
    request.set_after(after);
    std::optional<v1::ListMessagesResponse> response;
    shard_->ListMessages(request, [&response](auto answer) { response = *std::move(answer); });
    for (int i = 0; i < 1000 && !response; ++i) Run(std::chrono::microseconds(10));
    EXPECT_TRUE(response.has_value());
    if (!response) return {};
    for (const auto& shown : response->recipients()) into->insert(shown.delivery().rcpt());
    return response->after();
  }
  // What the pages show when `meanwhile` happens behind the first one.
  std::multiset<std::string> Pages(const std::string& queues,
                                   absl::AnyInvocable<void()> meanwhile) {
    std::multiset<std::string> found;
    std::string after = Page(queues, "", 10, &found);
    EXPECT_FALSE(after.empty());
    meanwhile();
    int pages = 1;
    while (!after.empty() && ++pages < 100) after = Page(queues, after, 10, &found);
    EXPECT_LT(pages, 100) << "it does not end";
    return found;
  }
  static size_t Distinct(const std::multiset<std::string>& found) {
    return std::set<std::string>(found.begin(), found.end()).size();
  }
};

TEST_F(ShardWalkTest, WhatAnOperatorMakesDueMeanwhileIsListed) {
  Deferred("x.example", 40);
  const auto found = Pages("x.example/*", [this] {
    v1::RetryQueuesRequest request;
    request.set_pattern("x.example/*");
    request.set_recipients(true);
    uint64_t queues = 0;
    shard_->RetryQueues(request, [&queues](auto answer) { queues = answer->queues(); });
    Run();
    EXPECT_EQ(queues, 1U);
  });
  EXPECT_EQ(Distinct(found), 40U);
}

TEST_F(ShardWalkTest, WhatIsReroutedToAnEarlierQueueMeanwhileIsListed) {
  injector().Send({"first@x.example"}, "Subject: x\r\n\r\nhi\r\n");
  Run();
  v1::RerouteMessagesRequest make;
  make.mutable_filter()->set_rcpt("first@x.example");
  make.set_target("other");
  shard_->RerouteMessages(make, [](auto) {});
  Run(std::chrono::seconds(1));  // x.example/other is the second queue
  for (int i = 0; i < 40; ++i) injector().Send({"u" + std::to_string(i) + "@x.example"});
  Run(std::chrono::seconds(1));
  v1::RerouteMessagesRequest away;
  away.mutable_filter()->set_queue_pattern("x.example/default");
  away.set_target("third");
  shard_->RerouteMessages(away, [](auto) {});
  Run(std::chrono::seconds(1));
  ASSERT_EQ(Queue("x.example/third").recipients(), 40U);
  const auto found = Pages("x.example/*", [this] {
    v1::RerouteMessagesRequest back;
    back.mutable_filter()->set_queue_pattern("x.example/third");
    back.set_target("other");
    shard_->RerouteMessages(back, [](auto) {});
    Run(std::chrono::seconds(1));
    EXPECT_EQ(Queue("x.example/other").recipients(), 41U);
  });
  EXPECT_EQ(Distinct(found), 41U);
}

TEST_F(ShardWalkTest, WithoutMovesEachIsListedOnce) {
  Deferred("x.example", 35);
  const auto found = Pages("*/*", [] {});
  EXPECT_EQ(found.size(), 35U);
  EXPECT_EQ(Distinct(found), 35U);
}

TEST_F(ShardWalkTest, ARerouteToAPoolMovesEachOnce) {
  for (int i = 0; i < 30; ++i) injector().Send({"u" + std::to_string(i) + "@x.example"});
  Run(std::chrono::seconds(1));
  v1::RerouteMessagesRequest request;
  request.mutable_filter()->set_queue_pattern("x.example/*");
  request.set_target("all");
  std::optional<uint64_t> moved;
  shard_->RerouteMessages(request, [&moved](auto answer) { moved = answer->recipients(); });
  Run(std::chrono::seconds(1));
  EXPECT_EQ(moved, 30U);
  EXPECT_EQ(Queue("x.example/other").recipients() + Queue("x.example/third").recipients(), 30U);
}

TEST_F(ShardWalkTest, APositionThatIsMadeUpIsRefusedOrHarmless) {
  injector().Send({"u@x.example"});
  Run();
  for (const char phase : {'D', 'M', 'I', 'R', 'x', '\0'}) {
    for (const size_t size : {1, 12, 13, 36, 37, 44, 45, 60}) {
      std::string after(size, '\x7f');
      after[0] = phase;
      v1::ListMessagesRequest request;
      request.mutable_filter()->set_queue_pattern("*/*");
      request.set_after(after);
      bool answered = false;
      shard_->ListMessages(request, [&answered](auto) { answered = true; });
      for (int i = 0; i < 1000 && !answered; ++i) Run(std::chrono::microseconds(10));
      EXPECT_TRUE(answered) << phase << size;
    }
  }
}

}  // namespace
}  // namespace sluice::queue
