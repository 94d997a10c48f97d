// The class that a failure's event has: by what a line about replies says, or by
// <bounce-category-patterns>.
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

class ShardCategories : public testing::PolicyShardFixture {
 protected:
  void SetUp() override {
    PolicyShardFixture::SetUp();
    auto& list = *Section("bounce-categories").mutable_bounce_categories();
    const auto add = [&list](const char* regex, const char* category) {
      auto* rule = list.add_rules();
      rule->set_regex(regex);
      rule->set_category(category);
    };
    add("(?i)^5\\.1\\.1 550 ", "bad-mailbox");
    add("(?i)FULL", "quota-issues");
    add("^4\\.4\\.7", "message-expired");
    SetPolicy();
  }
  // What became of a message that the remote refused so.
  common::v1::Event Refused(const common::v1::Reply& reply) {
    TestWorker& worker = AddWorker();
    worker.auto_credit = 1;
    injector().Send({"a@x.example"});
    Run();
    Run();
    Frame<v1::DispatchRequest> frame;
    auto* result = frame.header.add_results();
    result->set_lease_id(worker.leases.at(0).lease.lease_id());
    result->set_outcome(v1::RECIPIENT_OUTCOME_PERMANENT);
    *result->mutable_reply() = reply;
    worker.Say(std::move(frame));
    Run();
    return Last(common::v1::EVENT_KIND_FAILED);
  }
  common::v1::Event Last(common::v1::EventKind kind) {
    common::v1::Event last;
    shard_->ReadEvents({}, [&last, kind](auto answer) {
      for (const auto& event : answer->events()) {
        if (event.kind() == kind) last = event;
      }
    });
    return last;
  }
  static common::v1::Reply Reply(uint32_t code, const char* enhanced, const char* text) {
    common::v1::Reply reply;
    reply.set_code(code);
    reply.set_enhanced(enhanced);
    reply.set_text(text);
    return reply;
  }
};

TEST_F(ShardCategories, TheFirstLineThatMatchesStatusAndText) {
  const auto event = Refused(Reply(550, "5.1.1", "user unknown, or full"));
  EXPECT_EQ(event.bounce_category(), "bad-mailbox");
  EXPECT_EQ(event.bounce_rule(), "(?i)^5\\.1\\.1 550 ");
}

TEST_F(ShardCategories, ByTheTextWhereThereIsNoStatus) {
  EXPECT_EQ(Refused(Reply(552, "", "mailbox full")).bounce_category(), "quota-issues");
}

TEST_F(ShardCategories, NoneWhereNoneMatches) {
  const auto event = Refused(Reply(554, "5.7.1", "no"));
  EXPECT_EQ(event.kind(), common::v1::EVENT_KIND_FAILED);
  EXPECT_EQ(event.bounce_category(), "");
}

TEST_F(ShardCategories, TheReplysOwnLineGoesBefore) {
  auto reply = Reply(550, "5.1.1", "user unknown");
  reply.set_bounce_category("our-own");
  const auto event = Refused(reply);
  EXPECT_EQ(event.bounce_category(), "our-own");
  EXPECT_EQ(event.bounce_rule(), "");
}

TEST_F(ShardCategories, ANewPolicyHoldsForWhatFailsFromThenOn) {
  policy_.mutable_sections()->RemoveLast();
  SetPolicy();
  EXPECT_EQ(Refused(Reply(550, "5.1.1", "user unknown")).bounce_category(), "");
}

TEST_F(ShardCategories, WhatExpiresHasOneToo) {
  Defaults().set_bounce_after_us(int64_t{3600} * 1'000'000);
  SetPolicy();
  injector().Send({"a@x.example"});
  Run();
  AddWorker();
  Run(std::chrono::hours(2));
  EXPECT_EQ(Last(common::v1::EVENT_KIND_EXPIRED).bounce_category(), "message-expired");
}

}  // namespace
}  // namespace sluice::queue
