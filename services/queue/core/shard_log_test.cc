// Proves that an operator reads in the log when a shard starts, turns mail away and takes it again,
// loses a worker and its leases, gives up on a queue, and drains; and that mail that goes straight
// through says nothing at the usual level.
#include <algorithm>

#include "services/queue/core/shard.h"
#include "services/queue/testing/shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::TestWorker;

class ShardLogTest : public testing::ShardFixture {
 protected:
  void SetUp() override {
    options_.log = &log_;
    ShardFixture::SetUp();
  }
  static LogOptions Keep(std::vector<std::string>& lines) {
    LogOptions options;
    options.sink = [&lines](std::string_view line) { lines.emplace_back(line); };
    return options;
  }
  // Lines with all of `parts`.
  int Count(const std::vector<std::string>& parts) const {
    return static_cast<int>(
        std::count_if(lines_.begin(), lines_.end(), [&parts](const std::string& line) {
          return std::all_of(parts.begin(), parts.end(), [&line](const std::string& part) {
            return line.find(part) != std::string::npos;
          });
        }));
  }
  std::vector<std::string> lines_;
  Log log_{Keep(lines_), executor_.clock()};
};

TEST_F(ShardLogTest, StartDrainAndMailThatGoesStraightThrough) {
  EXPECT_EQ(Count({"level=info", "event=shard_started", "shard=shard-0"}), 1);
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"u@x.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  worker.Answer(worker.leases[0].lease.lease_id(), v1::RECIPIENT_OUTCOME_DELIVERED, 250, "ok");
  Run();
  EXPECT_EQ(Count({"event=worker_connected", "worker=w1"}), 1);
  EXPECT_EQ(Count({"message_"}), 0);
  shard_->Drain([] {});
  EXPECT_EQ(Count({"event=shard_drains"}), 1);
}

TEST_F(ShardLogTest, AWorkerThatIsLostWithItsLeases) {
  TestWorker& worker = AddWorker();
  worker.auto_credit = 1;
  injector().Send({"u@x.example"});
  Run();
  ASSERT_EQ(worker.leases.size(), 1U);
  worker.Drop();
  Run();
  EXPECT_EQ(Count({"event=worker_gone", "worker=w1", "leases=1"}), 1);
  AddWorker("w1", 2);
  Run();
  EXPECT_EQ(Count({"level=warn", "event=lease_lost", "queue=x.example/default", "worker=w1"}), 1);
}

TEST_F(ShardLogTest, AQueueThatReachesNobody) {
  TestWorker& worker = AddWorker();
  injector().Send({"u@x.example"});
  Run();
  ASSERT_TRUE(worker.ready.contains("x.example"));
  worker.Fail(worker.ready["x.example"].queue_ref(), false, false);
  Run();
  EXPECT_EQ(Count({"level=warn", "event=queue_failed", "queue=x.example/default",
                   "reply=\"no MX answers\""}),
            1);
}

TEST_F(ShardLogTest, MailThatIsTurnedAwayIsSaidOnceEachWay) {
  Run(std::chrono::seconds(2));
  EXPECT_EQ(Count({"intake"}), 0);
  store_.health().stalling = true;
  store_.health().detail = "too many memtables";
  Run(std::chrono::seconds(5));
  EXPECT_EQ(Count({"level=warn", "event=intake_stopped", "too many memtables"}), 1);
  EXPECT_EQ(Count({"intake"}), 1);
  store_.health().stalling = false;
  Run(std::chrono::seconds(5));
  EXPECT_EQ(Count({"level=info", "event=intake_resumed"}), 1);
  EXPECT_EQ(Count({"intake"}), 2);
}

}  // namespace
}  // namespace sluice::queue
