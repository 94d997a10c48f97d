// What other releases wrote is left as it was: fields that are unknown here survive the rewrite of
// their row, rows of an unknown kind do not keep the shard from starting. And a queue's row says
// that it is paused, where nothing else does.
#include <gtest/gtest.h>

#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::TestWorker;

// Field 1000, with three bytes.
constexpr std::string_view kLater = "\xc2\x3e\x03new";

class ShardRowsTest : public testing::PolicyShardFixture {
 protected:
  void Put(Family family, std::string_view key, std::string_view value) {
    auto batch = store_.NewBatch();
    batch->Put(family, key, value);
    ASSERT_TRUE(store_.Commit(*batch, true).ok());
  }
  // As a later release would have left the database.
  int AddLaterFieldToAll(Family family, size_t key_bytes) {
    std::vector<std::pair<std::string, std::string>> rows;
    for (auto row = store_.Scan(family, "", ""); row->Valid(); row->Next()) {
      if (row->key().size() == key_bytes) rows.emplace_back(row->key(), row->value());
    }
    for (const auto& [key, value] : rows) Put(family, key, value + std::string(kLater));
    return static_cast<int>(rows.size());
  }
  int WithLaterField(Family family) {
    int count = 0;
    for (auto row = store_.Scan(family, "", ""); row->Valid(); row->Next()) {
      count += row->value().find(kLater) != std::string_view::npos ? 1 : 0;
    }
    return count;
  }
};

TEST_F(ShardRowsTest, FieldsOfALaterReleaseSurviveARewrite) {
  TestWorker* worker = &AddWorker();
  worker->auto_credit = 1;
  injector().Send({"a@x.example"}, "x", "job");
  injector().Send({"b@x.example"}, "x", "job");
  Run();
  ASSERT_GE(worker->leases.size(), 1u);
  Kill();
  const int queues = AddLaterFieldToAll(Family::kQueues, 9);
  const int lanes = AddLaterFieldToAll(Family::kQueues, 17);
  const int leases = AddLaterFieldToAll(Family::kLeases, 8);
  EXPECT_EQ(queues, 1);
  EXPECT_EQ(lanes, 1);
  EXPECT_GE(leases, 1);
  EXPECT_EQ(AddLaterFieldToAll(Family::kMessages, 8), 2);
  EXPECT_EQ(AddLaterFieldToAll(Family::kDeliveries, 36), 2);
  Open();
  // The leases' rows are written again with what the operator asked.
  v1::DeleteMessagesRequest request;
  request.set_author("ops");
  request.mutable_filter()->set_rcpt("a@x.example");
  shard_->DeleteMessages(request, [](auto) {});
  Run();
  EXPECT_EQ(WithLaterField(Family::kLeases), leases);
  // The deliveries are put off, the queue goes into retry mode, and its lane moves its floor.
  worker = &AddWorker("w1", 2);
  worker->auto_credit = 1;
  Run(seconds(2));
  ASSERT_GE(worker->leases.size(), 1u);
  for (const auto& held : worker->leases) {
    worker->Answer(held.lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later");
  }
  Run();
  EXPECT_EQ(WithLaterField(Family::kDeliveries), static_cast<int>(Status().recipients()));
  EXPECT_GE(Status().recipients(), 1u);
  worker->Fail(worker->ready["x.example"].queue_ref(), false, false);
  Run();
  EXPECT_EQ(Queue("x.example/default").mode(), "retry");
  EXPECT_EQ(WithLaterField(Family::kQueues), queues + lanes);
}

TEST_F(ShardRowsTest, RowsOfAnUnknownKindAreLeftAlone) {
  injector().Send({"a@x.example"});
  Run();
  Kill();
  Put(Family::kQueues, "Z-later", "?");
  Put(Family::kLeases, "later", "?");
  Put(Family::kMeta, "later", "?");
  Open();
  Run();
  EXPECT_EQ(Listed(ByRcpt("a@x.example")), 1);
  std::string value;
  EXPECT_TRUE(store_.Get(Family::kQueues, "Z-later", &value).ok());
}

// A shard that starts without any snapshot (its file is lost, the policy service is away) sends
// nothing that an operator had stopped.
TEST_F(ShardRowsTest, APausedQueueStaysSoUntilASnapshotSaysOtherwise) {
  Pause("x.example/*", "");
  injector().Send({"a@x.example"});
  Run();
  Kill();
  Open();  // with no policy
  AddWorker("w1", 2).auto_credit = 1;
  Run(minutes(5));
  EXPECT_TRUE(workers_.back()->leases.empty());
  EXPECT_TRUE(Queue("x.example/default").paused());
  EXPECT_EQ(Queue("x.example/default").reason(), "paused by ops: maintenance");
  policy_.clear_sections();
  SetPolicy();
  Run(seconds(2));
  EXPECT_EQ(workers_.back()->leases.size(), 1u);
}

TEST_F(ShardRowsTest, APauseThatIsOverHoldsNothingAlsoWithoutASnapshot) {
  Pause("x.example/*", "", NowUs() + 60'000'000);
  injector().Send({"a@x.example"});
  Run();
  Kill();
  Open();
  AddWorker("w1", 2).auto_credit = 1;
  Run(seconds(50));
  EXPECT_TRUE(workers_.back()->leases.empty());
  Run(seconds(20));
  EXPECT_EQ(workers_.back()->leases.size(), 1u);
}

}  // namespace
}  // namespace sluice::queue
