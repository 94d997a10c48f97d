// What the shard makes of a queue's rollup: the owner is the rollup's, its settings hold, an
// operator may name it, and all that survives a kill.
#include "services/queue/testing/policy_shard_fixture.h"

namespace sluice::queue {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;
using testing::TestWorker;

class ShardRollupTest : public testing::PolicyShardFixture {
 protected:
  void SetUp() override {
    PolicyShardFixture::SetUp();
    auto* domain = Section("domain/big.rollup").mutable_domain();
    domain->set_pattern("big.rollup");
    domain->mutable_settings()->mutable_retry_after()->add_us(int64_t{7200} * 1'000'000);
    auto* entry = Section("mx-rollup").mutable_mx_rollup()->add_entries();
    entry->set_mx("*.big.example");
    entry->set_queue("big.rollup");
    SetPolicy();
  }
  // w1 and w2 have an address each of the default virtual MTA.
  static std::shared_ptr<const config::Owners> TwoWorkers() {
    policy::v1::OwnersTable table;
    table.set_epoch(1);
    table.add_workers("w1");
    table.add_workers("w2");
    auto* vmta = table.add_vmtas();
    vmta->set_vmta("default");
    for (uint32_t i = 0; i < 2; ++i) {
      auto* host = vmta->add_hosts();
      host->set_ip("192.0.2." + std::to_string(i + 1));
      host->set_worker(i);
    }
    return config::Owners::Build(table);
  }
  static void Say(TestWorker& worker, const std::string& domain, const std::string& rollup) {
    Frame<v1::DispatchRequest> frame;
    auto* said = frame.header.add_rollups();
    said->set_queue_ref(worker.ready.at(domain).queue_ref());
    said->set_rollup(rollup);
    worker.Say(std::move(frame));
  }
};

TEST_F(ShardRollupTest, ItsSettingsHoldAndSurviveAKill) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "big.rollup");
  Run();
  EXPECT_EQ(Queue("x.example/default").rollup(), "big.rollup");
  worker.Fail(worker.ready["x.example"].queue_ref(), false, false);
  Run();
  EXPECT_GT(Queue("x.example/default").next_time_us(), NowUs() + int64_t{7000} * 1'000'000);
  Kill();
  Open();
  SetPolicy();
  EXPECT_EQ(Queue("x.example/default").rollup(), "big.rollup");
  TestWorker& again = AddWorker("w1", 2);
  Run(minutes(121));
  EXPECT_EQ(again.ready.at("x.example").rollup(), "big.rollup");
}

TEST_F(ShardRollupTest, AQueueStaysForAMinuteWhereItCame) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "big.rollup");
  Say(worker, "x.example", "");
  Run();
  EXPECT_EQ(Queue("x.example/default").rollup(), "big.rollup");
  Run(seconds(61));  // nobody has to say it again
  EXPECT_EQ(Queue("x.example/default").rollup(), "");
  EXPECT_EQ(worker.ready.at("x.example").rollup(), "");
  Say(worker, "x.example", "big.rollup");
  Run();
  EXPECT_EQ(Queue("x.example/default").rollup(), "big.rollup") << "at once";
}

TEST_F(ShardRollupTest, ANameThatOnlyTheWorkersPolicyHasIsHeededWhenItComesHere) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "new.rollup");
  Run();
  EXPECT_EQ(Queue("x.example/default").rollup(), "");
  auto* entry = policy_.mutable_sections()->rbegin()->mutable_content()->mutable_mx_rollup();
  entry->add_entries()->set_mx("*.new.example");
  entry->mutable_entries()->rbegin()->set_queue("new.rollup");
  SetPolicy();
  Run();
  EXPECT_EQ(Queue("x.example/default").rollup(), "new.rollup");
}

TEST_F(ShardRollupTest, AnOperatorsPatternAndAPauseMayNameTheRollup) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "big.rollup");
  Run();
  v1::SetQueueModeRequest request;
  request.set_pattern("big.rollup/*");
  request.set_backoff(true);
  request.set_author("olive");
  shard_->SetQueueMode(request, [](auto) {});
  Run();
  EXPECT_EQ(Queue("x.example/default").mode(), "backoff");
  v1::SetQueueModeRequest normal;
  normal.add_names("big.rollup/default");
  normal.set_author("olive");
  shard_->SetQueueMode(normal, [](auto response) {
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->queues(), 1U);
  });
  Run();
  EXPECT_EQ(Queue("x.example/default").mode(), "normal");
  Pause("big.rollup/default", "");
  EXPECT_TRUE(Queue("x.example/default").paused());
}

TEST_F(ShardRollupTest, AListThatIsGoneHoldsNobody) {
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  Say(worker, "x.example", "big.rollup");
  Run();
  policy_.mutable_sections()->RemoveLast();
  SetPolicy();
  EXPECT_EQ(Queue("x.example/default").rollup(), "");
}

// All domains of a rollup have one owner, so that no two workers have its limits.
TEST_F(ShardRollupTest, TheOwnerIsTheRollups) {
  const auto owners = TwoWorkers();
  shard_->SetOwners(owners);
  TestWorker& first = AddWorker("w1");
  TestWorker& second = AddWorker("w2");
  const std::string rollups(owners->OwnerOf("big.rollup/default", "default"));
  TestWorker& owner = rollups == "w1" ? first : second;
  TestWorker& other = rollups == "w1" ? second : first;
  for (int i = 0; i < 8; ++i) injector().Send({"a@x" + std::to_string(i) + ".example"});
  Run();
  ASSERT_FALSE(other.ready.empty());
  const auto theirs = other.ready;
  for (const auto& [domain, ready] : theirs) Say(other, domain, "big.rollup");
  Run();
  for (const auto& [domain, ready] : theirs) {
    EXPECT_TRUE(owner.ready.contains(domain)) << domain;
    EXPECT_EQ(owner.ready[domain].rollup(), "big.rollup");
  }
  EXPECT_EQ(other.gone.size(), theirs.size());
}

// Mail with "TLS-Required: No" has a queue beside its domain's: its settings, its owner and its
// pauses are those of the domain's queue.
TEST_F(ShardRollupTest, AQueueBesideItsDomainsIsUnderTheSameRules) {
  injector().edit = [](v1::NewMessage& message) {
    message.mutable_deliveries(0)->mutable_delivery()->set_queue_domain("{tls-optional}Big.Rollup");
  };
  const std::string name = "{tls-optional}big.rollup/default";
  TestWorker& worker = AddWorker();
  injector().Send({"a@x.example"});
  Run();
  ASSERT_TRUE(worker.ready.contains("{tls-optional}big.rollup"));
  worker.Fail(worker.ready["{tls-optional}big.rollup"].queue_ref(), false, false);
  Run();
  EXPECT_GT(Queue(name).next_time_us(), NowUs() + int64_t{7000} * 1'000'000) << "the domain's";
  Pause("big.rollup/default", "");
  EXPECT_TRUE(Queue(name).paused());
  Kill();
  Open();
  SetPolicy();
  EXPECT_TRUE(Queue(name).paused());
  EXPECT_EQ(Queue(name).recipients(), 1u);
}

TEST_F(ShardRollupTest, AQueueBesideItsDomainsHasItsOwner) {
  shard_->SetOwners(TwoWorkers());
  TestWorker& first = AddWorker("w1");
  TestWorker& second = AddWorker("w2");
  for (int i = 0; i < 16; ++i) {
    const std::string domain = "x" + std::to_string(i) + ".example";
    for (const std::string mark : {"", "{tls-optional}"}) {
      injector().edit = [&](v1::NewMessage& message) {
        message.mutable_deliveries(0)->mutable_delivery()->set_queue_domain(mark + domain);
      };
      injector().Send({"a@" + domain});
    }
    Run();
    EXPECT_EQ(first.ready.contains(domain), first.ready.contains("{tls-optional}" + domain));
    EXPECT_EQ(second.ready.contains(domain), second.ready.contains("{tls-optional}" + domain));
  }
  EXPECT_FALSE(first.ready.empty());
  EXPECT_FALSE(second.ready.empty());
}

}  // namespace
}  // namespace sluice::queue
