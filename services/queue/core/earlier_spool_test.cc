// A database that an earlier release wrote is read by this one with all that is in it. testdata has
// the rows of one spool for each format version (a line each: family, key, value, in hexadecimal);
// such a file is never changed, only new ones are added:
//   bazel run //services/queue/core:earlier_spool_test --
//       --gtest_filter=*Write* --gtest_also_run_disabled_tests --write=$PWD/spool_format_2.txt
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/escaping.h"
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {

std::string write_to;  // of the flag --write

namespace {

using std::chrono::seconds;
using testing::TestWorker;

constexpr char kSpool[] = "services/queue/core/testdata/spool_format_1.txt";

class EarlierSpoolTest : public testing::PolicyShardFixture {
 protected:
  void SetUp() override {}
  void Load(const std::string& path) {
    std::ifstream file(path);
    ASSERT_TRUE(file.good()) << path;
    auto batch = store_.NewBatch();
    std::string line;
    while (std::getline(file, line)) {
      std::istringstream words(line);
      int family = 0;
      std::string key, value;
      words >> family >> key >> value;
      batch->Put(static_cast<Family>(family), absl::HexStringToBytes(key),
                 absl::HexStringToBytes(value));
    }
    ASSERT_TRUE(store_.Commit(*batch, true).ok());
    executor_.Advance(std::chrono::hours(1));
    Open();
  }
  v1::GetMessageResponse Message(const std::string& id) {
    v1::GetMessageRequest request;
    request.set_message_id(id);
    request.set_with_body(true);
    std::optional<v1::GetMessageResponse> response;
    shard_->GetMessage(request, [&response](auto answer) {
      response = answer.ok() ? *answer : v1::GetMessageResponse();
    });
    for (int i = 0; i < 100 && !response; ++i) Run(std::chrono::microseconds(1));
    return response.value_or(v1::GetMessageResponse());
  }
  std::string IdOf(const std::string& rcpt) {
    v1::ListMessagesRequest request;
    *request.mutable_filter() = ByRcpt(rcpt);
    std::string id;
    shard_->ListMessages(request, [&id](auto answer) {
      if (answer->recipients_size() == 1) id = answer->recipients(0).message_id();
    });
    Run(std::chrono::milliseconds(1));
    return id;
  }
};

// One of everything: straight mail, a group with a job, deferred and leased mail, a queue in retry
// mode, a paused one, a held recipient, a deletion that was asked for, an idempotency key.
TEST_F(EarlierSpoolTest, DISABLED_WriteASpoolOfThisRelease) {
  Open();
  Pause("paused.example/*", "");
  injector().Send({"a@new.example"}, "Subject: new\r\n\r\nnew\r\n", "", "key-1");
  injector().Send({"a@job.example", "b@job.example", "c@job.example"}, "x", "news");
  injector().Send({"a@paused.example"});
  injector().SendVia("held", "a@held.example");
  for (uint64_t incarnation = 1; incarnation <= 6; ++incarnation) {
    AddWorker("w9", incarnation, {}, {"held"}).auto_credit = 1;
    Run(seconds(1));
  }
  injector().Send({"a@retry.example"});
  injector().Send({"a@late.example", "b@late.example"});
  injector().Send({"a@leased.example"});
  injector().Send({"a@deleted.example"});
  Run();
  TestWorker& worker = AddWorker();
  Run();
  worker.Fail(worker.ready["retry.example"].queue_ref(), true, false);
  for (const char* domain : {"late.example", "leased.example", "deleted.example"}) {
    worker.Credit(worker.ready[domain].queue_ref(), 1);
    Run();
  }
  ASSERT_EQ(worker.leases.size(), 3u);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_TRANSIENT, 450, "later",
                {{1, v1::RECIPIENT_OUTCOME_PERMANENT}});
  v1::DeleteMessagesRequest request;
  *request.mutable_filter() = ByRcpt("a@deleted.example");
  request.set_author("ops");
  shard_->DeleteMessages(request, [](auto) {});
  Run(seconds(10));
  ASSERT_FALSE(write_to.empty()) << "give --write=FILE";
  std::ofstream file(write_to);
  for (int family = 0; family < kFamilyCount; ++family) {
    for (auto row = store_.Scan(static_cast<Family>(family), "", ""); row->Valid(); row->Next()) {
      file << family << ' '
           << absl::BytesToHexString(absl::string_view(row->key().data(), row->key().size())) << ' '
           << absl::BytesToHexString(absl::string_view(row->value().data(), row->value().size()))
           << '\n';
    }
  }
  EXPECT_TRUE(file.good());
}

TEST_F(EarlierSpoolTest, EverythingInItIsThereAndGoesOn) {
  Load(kSpool);
  Run(seconds(2));
  // Nobody is connected: all of it is queued.
  const std::vector<std::string> expected = {
      "a@new.example",    "a@job.example",     "b@job.example",      "c@job.example",
      "a@held.example",   "a@paused.example",  "a@retry.example",    "a@late.example",
      "a@leased.example", "a@deleted.example", "sender@from.example"};
  EXPECT_FALSE(Status().counting());
  EXPECT_EQ(Status().recipients(), expected.size());
  for (const std::string& rcpt : expected) EXPECT_EQ(Listed(ByRcpt(rcpt)), 1) << rcpt;
  EXPECT_EQ(Status().held_recipients(), 1u);
  EXPECT_TRUE(Queue("paused.example/default").paused());
  EXPECT_EQ(Queue("retry.example/default").mode(), "retry");
  EXPECT_EQ(Message(IdOf("a@new.example")).body(), "Subject: new\r\n\r\nnew\r\n");
  EXPECT_EQ(Message(IdOf("a@job.example")).recipients_size(), 3);
  const uint64_t again = injector().Send({"a@new.example"}, "x", "", "key-1");
  Run();
  EXPECT_EQ(injector().outcome(again), v1::EnqueueResult::OUTCOME_DUPLICATE);
  v1::ReadEventsResponse events;
  shard_->ReadEvents({}, [&events](auto answer) { events = *answer; });
  std::set<int> kinds;
  for (const auto& event : events.events()) kinds.insert(event.kind());
  for (const int kind : {common::v1::EVENT_KIND_RECEIVED, common::v1::EVENT_KIND_TRANSIENT,
                         common::v1::EVENT_KIND_FAILED, common::v1::EVENT_KIND_HELD,
                         common::v1::EVENT_KIND_QUEUE_TRANSIENT}) {
    EXPECT_TRUE(kinds.contains(kind)) << kind;
  }
  // A new incarnation of the worker gives the leases back, and the deletion happens.
  TestWorker& worker = AddWorker("w1", 2);
  worker.auto_credit = 10;
  Run(seconds(2));
  EXPECT_EQ(Listed(ByRcpt("a@deleted.example")), 0);
  std::set<std::string> sent;
  for (int round = 0; round < 20; ++round) {
    for (const auto& held : std::exchange(worker.leases, {})) {
      for (const auto& delivery : held.lease.deliveries()) sent.insert(delivery.rcpt());
      worker.Answer(held.lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
    }
    Run(seconds(1));
  }
  EXPECT_EQ(sent, (std::set<std::string>{"a@new.example", "a@job.example", "b@job.example",
                                         "c@job.example", "a@retry.example", "a@late.example",
                                         "a@leased.example", "sender@from.example"}));
  EXPECT_EQ(Status().recipients(), 2u) << "the held one, and the paused one";
}

}  // namespace
}  // namespace sluice::queue

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  constexpr std::string_view kFlag = "--write=";
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with(kFlag)) sluice::queue::write_to = argument.substr(kFlag.size());
  }
  return RUN_ALL_TESTS();
}
