// Proves of each family that one row which cannot be read stops neither its queue nor the start,
// that the mail beside it goes on, and that an operator is told of it with its key and can delete
// it.
#include <gtest/gtest.h>

#include "absl/strings/escaping.h"
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

constexpr char kGarbage[] = "\xff\xff\xff\xff not a row";

class ShardDamageTest : public testing::PolicyShardFixture {
 protected:
  std::vector<std::string> Keys(Family family, std::string_view prefix = {}) {
    std::vector<std::string> keys;
    auto rows = store_.Scan(family, prefix, PrefixEnd(prefix));
    for (; rows->Valid(); rows->Next()) keys.emplace_back(rows->key());
    return keys;
  }
  std::string Value(Family family, const std::string& key) {
    std::string value;
    EXPECT_TRUE(store_.Get(family, key, &value).ok());
    return value;
  }
  void Damage(Family family, const std::string& key, const std::string& value = kGarbage) {
    auto batch = store_.NewBatch();
    batch->Put(family, key, value);
    ASSERT_TRUE(store_.Commit(*batch, true).ok());
  }
  v1::GetShardStatusResponse Status() {
    v1::GetShardStatusResponse status;
    shard_->GetShardStatus({}, [&status](auto answer) { status = *answer; });
    return status;
  }
  bool Told(const std::string& family, const std::string& key) {
    const v1::GetShardStatusResponse status = Status();
    const std::string hex = absl::BytesToHexString(key);
    for (const auto& row : status.damaged_rows()) {
      if (row.family() == family && row.key() == hex && !row.what().empty()) return true;
    }
    ADD_FAILURE() << family << " " << hex << " is not in " << status.ShortDebugString();
    return false;
  }
  std::vector<v1::QueuedRecipient> List(const std::string& pattern) {
    v1::ListMessagesRequest request;
    request.mutable_filter()->set_queue_pattern(pattern);
    std::vector<v1::QueuedRecipient> shown;
    shard_->ListMessages(request, [&shown](auto answer) {
      shown.assign(answer->recipients().begin(), answer->recipients().end());
    });
    Run();
    return shown;
  }
  uint64_t Delete(const std::string& pattern) {
    v1::DeleteMessagesRequest request;
    request.mutable_filter()->set_queue_pattern(pattern);
    request.set_author("olive");
    uint64_t deleted = 0;
    shard_->DeleteMessages(request, [&deleted](auto answer) { deleted = answer->recipients(); });
    Run();
    return deleted;
  }
  // Delivers what a worker gets; the recipients.
  std::set<std::string> Deliver() {
    std::set<std::string> delivered;
    auto& worker = AddWorker();
    worker.auto_credit = 10;
    size_t answered = 0;
    for (int i = 0; i < 40; ++i) {
      Run();
      for (; answered < worker.leases.size(); ++answered) {
        for (const auto& delivery : worker.leases[answered].lease.deliveries()) {
          delivered.insert(delivery.rcpt());
        }
        worker.Answer(worker.leases[answered].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED,
                      250, "ok");
      }
    }
    return delivered;
  }
  // Three() and mail of a job in a second queue, at rest: the keys of the queues' rows.
  std::vector<std::string> TwoQueuesAtRest() {
    Three();
    injector().Send({"d@y.example"}, "Subject: x\r\n\r\nhi\r\n", "job7");
    Run();
    Kill();
    return Keys(Family::kQueues, "Q");
  }
  void Three() {
    for (const char* rcpt : {"a@x.example", "b@x.example", "c@x.example"}) {
      injector().Send({rcpt});
      Run();
    }
  }
};

using Names = std::set<std::string>;

TEST_F(ShardDamageTest, ADelivery) {
  Three();
  Kill();
  const std::string key = Keys(Family::kDeliveries)[1];
  Damage(Family::kDeliveries, key);
  Open();
  EXPECT_EQ(Deliver(), (Names{"a@x.example", "c@x.example"}));
  EXPECT_TRUE(Told("deliveries", key));
  EXPECT_EQ(Status().damaged_rows_total(), 1U) << "once, however often it is read";
  const auto shown = List("x.example/*");
  ASSERT_EQ(shown.size(), 1U);
  EXPECT_EQ(shown[0].state(), "damaged");
  EXPECT_NE(shown[0].reason().find(absl::BytesToHexString(key)), std::string::npos);
  EXPECT_EQ(Value(Family::kDeliveries, key), kGarbage) << "it is kept";
  EXPECT_EQ(Delete("x.example/*"), 1U);
  for (const Family family : {Family::kDeliveries, Family::kMessages, Family::kBodies}) {
    EXPECT_TRUE(Keys(family).empty());
  }
  EXPECT_EQ(Status().damaged_rows_size(), 0);
}

TEST_F(ShardDamageTest, AMessage) {
  Three();
  Kill();
  const std::string key = Keys(Family::kMessages)[1];
  Damage(Family::kMessages, key);
  Open();
  Defaults().set_bounce_after_us(int64_t{3600} * 1'000'000);
  SetPolicy();
  EXPECT_EQ(Deliver(), (Names{"a@x.example", "c@x.example"}));
  EXPECT_TRUE(Told("messages", key));
  const auto shown = List("x.example/*");
  ASSERT_EQ(shown.size(), 1U);
  EXPECT_EQ(shown[0].state(), "damaged");
  EXPECT_EQ(shown[0].delivery().rcpt(), "b@x.example");
  Run(std::chrono::hours(2));  // it stands through its expiry, and nothing goes round it
  EXPECT_EQ(List("x.example/*").size(), 1U);
  EXPECT_EQ(Delete("x.example/*"), 1U);
  EXPECT_TRUE(Keys(Family::kBodies).empty());
}

TEST_F(ShardDamageTest, ABodyThatIsGone) {
  Three();
  Kill();
  const std::string key = Keys(Family::kBodies)[1];
  auto batch = store_.NewBatch();
  batch->Delete(Family::kBodies, key);
  ASSERT_TRUE(store_.Commit(*batch, true).ok());
  Open();
  EXPECT_EQ(Deliver(), (Names{"a@x.example", "c@x.example"}));
  EXPECT_TRUE(Told("bodies", key));
}

TEST_F(ShardDamageTest, AQueueIsMadeAnewFromItsMail) {
  const std::vector<std::string> keys = TwoQueuesAtRest();
  ASSERT_EQ(keys.size(), 2U);
  for (const std::string& key : keys) Damage(Family::kQueues, key);
  Open();
  EXPECT_TRUE(Told("queues", keys[0]));
  EXPECT_TRUE(Told("queues", keys[1]));
  Run();
  EXPECT_EQ(Queue("x.example/default").recipients(), 3U);
  EXPECT_EQ(Deliver(), (Names{"a@x.example", "b@x.example", "c@x.example", "d@y.example"}));
  EXPECT_EQ(Value(Family::kMeta, "X" + keys[0]), kGarbage) << "what was there is kept";
  Kill();
  Open();
  EXPECT_EQ(Status().damaged_rows_total(), 0U) << "it was mended";
}

// A row that stands in another's place reads well; there are two queues of one name then.
TEST_F(ShardDamageTest, TwoQueuesOfOneName) {
  for (const size_t lost : {0U, 1U}) {
    const std::vector<std::string> keys = TwoQueuesAtRest();
    ASSERT_EQ(keys.size(), 2U);
    Damage(Family::kQueues, keys[lost], Value(Family::kQueues, keys[1 - lost]));
    Open();
    EXPECT_TRUE(Told("queues", keys[lost]));
    Run();
    EXPECT_EQ(Deliver(), (Names{"a@x.example", "b@x.example", "c@x.example", "d@y.example"}));
    Kill();
    Open();
    EXPECT_EQ(Status().damaged_rows_total(), 0U) << "it was mended";
  }
}

TEST_F(ShardDamageTest, ALaneIsMadeAnewFromItsMail) {
  injector().Send({"a@x.example"}, "Subject: x\r\n\r\nhi\r\n", "job7");
  injector().Send({"b@x.example"});
  Run();
  Kill();
  const std::vector<std::string> keys = Keys(Family::kQueues, "L");
  ASSERT_EQ(keys.size(), 1U);
  Damage(Family::kQueues, keys[0]);
  Open();
  EXPECT_TRUE(Told("queues", keys[0]));
  Pause("*/*", "job7");  // the job is known again
  EXPECT_EQ(Deliver(), (Names{"b@x.example"}));
  ASSERT_EQ(List("x.example/*").size(), 1U);
  EXPECT_EQ(List("x.example/*")[0].state(), "paused");
}

TEST_F(ShardDamageTest, ALease) {
  AddWorker().auto_credit = 1;
  Three();
  Kill();
  const std::vector<std::string> keys = Keys(Family::kLeases);
  ASSERT_FALSE(keys.empty());
  for (const std::string& key : keys) Damage(Family::kLeases, key);
  Open();
  EXPECT_TRUE(Told("leases", keys[0]));
  EXPECT_EQ(Deliver(), (Names{"a@x.example", "b@x.example", "c@x.example"}));
  EXPECT_EQ(Value(Family::kLeases, keys[0]), kGarbage);
}

TEST_F(ShardDamageTest, ALeaseOfAQueueThatIsNotThere) {
  AddWorker().auto_credit = 1;
  Three();
  Kill();
  const std::vector<std::string> keys = Keys(Family::kLeases);
  v1::LeaseRow row;
  ASSERT_TRUE(row.ParseFromString(Value(Family::kLeases, keys[0])));
  row.add_delivery_keys(DeliveryKey{777, 0, 1, 1, 0}.Encode());
  Damage(Family::kLeases, keys[0], row.SerializeAsString());
  Open();
  EXPECT_TRUE(Told("leases", keys[0]));
  Run(std::chrono::hours(1));
  EXPECT_EQ(Deliver(), (Names{"a@x.example", "b@x.example", "c@x.example"}));
}

TEST_F(ShardDamageTest, AnEventRecordAndTheOthersAreRead) {
  Three();
  const std::vector<std::string> keys = Keys(Family::kEvents);
  ASSERT_EQ(keys.size(), 3U);
  Damage(Family::kEvents, keys[1]);
  for (int restart = 0; restart < 2; ++restart) {
    std::optional<v1::ReadEventsResponse> response;
    shard_->ReadEvents({}, [&response](auto answer) {
      ASSERT_TRUE(answer.ok()) << answer.status();
      response = *std::move(answer);
    });
    Run();
    ASSERT_TRUE(response.has_value());
    ASSERT_EQ(response->events_size(), 2);
    EXPECT_EQ(response->events(0).rcpt(), "a@x.example");
    EXPECT_EQ(response->events(1).rcpt(), "c@x.example");
    ASSERT_EQ(response->damaged_sequences_size(), 1);
    EXPECT_EQ(response->damaged_sequences(0), ReadU64(keys[1], 0));
    EXPECT_FALSE(response->more());
    EXPECT_TRUE(Told("events", keys[1]));
    Kill();
    Open();
  }
}

// A count that cannot be read must not end the message with its first recipient.
TEST_F(ShardDamageTest, ACountOfRecipients) {
  injector().Send({"a@x.example", "b@y.example", "c@z.example"});
  Run();
  Kill();
  std::string count;
  for (const std::string& key : Keys(Family::kMessages)) {
    if (key.size() > 8) count = key;
  }
  ASSERT_FALSE(count.empty());
  Damage(Family::kMessages, count);
  Open();
  EXPECT_EQ(Deliver(), (Names{"a@x.example", "b@y.example", "c@z.example"}));
  EXPECT_TRUE(Told("messages", count));
}

// Made anew above all that it has numbered: no event and no lease is written over.
TEST_F(ShardDamageTest, TheEpochAndTheOtherNumbers) {
  Three();
  Kill();
  Open();
  Three();
  Kill();
  const size_t events = Keys(Family::kEvents).size();
  const std::string last = Keys(Family::kMessages).back();
  for (const char* key : {"epoch", "storage-key-mark", "last-queue-id", "index-watermark"}) {
    Damage(Family::kMeta, key);
  }
  Open();
  EXPECT_TRUE(Told("meta", "epoch"));
  EXPECT_GE(Status().epoch(), 3U);
  injector().Send({"d@x.example"});
  Run();
  EXPECT_EQ(Keys(Family::kEvents).size(), events + 1);
  EXPECT_GT(Keys(Family::kMessages).back(), last);
  EXPECT_EQ(List("x.example/*").size(), 7U);
}

}  // namespace
}  // namespace sluice::queue
