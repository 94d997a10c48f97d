// <limits>: throttle, error-throttle and defer-throttle hold over all workers and all queues of a
// domain, also while sources change hands.
#include "gtest/gtest.h"
#include "services/config/policy_view.h"
#include "services/delivery/core/worker.h"
#include "services/delivery/core/worker_fakes.h"

namespace sluice::delivery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;
constexpr auto kTransient = queue::v1::RECIPIENT_OUTCOME_TRANSIENT;

void SetRate(policy::v1::ClusterRate* said, uint64_t count, Duration period) {
  said->mutable_rate()->set_count(count);
  said->mutable_rate()->set_period_us(static_cast<uint64_t>(period.count()));
}

// Workers w0 and w1 and virtual MTAs v0 to v3 of one source each; mail to d.test in each.
class WorkerDomains : public ::testing::Test {
 protected:
  WorkerDomains() {
    resolver_.answer.outcome = MxOutcome::kFound;
    resolver_.answer.hosts = {{"mx1", 10, {"192.0.2.1"}}};
    resolver_.answer.from_dns = false;
    resolver_.answer.expires = executor_.clock().Now() + std::chrono::hours(100);
    snapshot_.set_version(1);
    auto* domain = snapshot_.add_sections()->mutable_content()->mutable_domain();
    domain->set_pattern("d.test");
    settings_ = domain->mutable_settings();
    for (int i = 0; i < 4; ++i) {
      auto* vmta = snapshot_.add_sections()->mutable_content()->mutable_virtual_mta();
      vmta->set_name("v" + std::to_string(i));
      vmta->add_source_hosts()->set_ip("127.0.0." + std::to_string(5 + i));
    }
  }
  // Which worker has each of the four.
  void Begin(std::vector<int> owners) {
    for (int i = 0; i < 2; ++i) {
      WorkerOptions options;
      options.name = "w" + std::to_string(i);
      options.incarnation = 7;
      options.follows_owners = true;
      workers_.push_back(std::make_unique<Worker>(
          options, executor_, resolver_, sites_,
          std::vector<ShardAddress>{{"s0", &shards_[static_cast<size_t>(i)], nullptr}}));
    }
    auto view = config::PolicyView::Build(snapshot_);
    ASSERT_TRUE(view.ok());
    for (const auto& worker : workers_) worker->SetPolicy(*view);
    Table(owners, owners);
    for (const auto& worker : workers_) worker->Start();
    executor_.RunPosted();
    for (auto& shard : shards_) shard.Hello(3600);
    Announce();
  }
  // From these owners to those: a change where they differ.
  void Table(const std::vector<int>& from, const std::vector<int>& to) {
    policy::v1::OwnersTable table;
    table.set_epoch(++epoch_);
    table.add_workers("w0");
    table.add_workers("w1");
    for (size_t i = 0; i < from.size(); ++i) {
      auto* entry = table.add_vmtas();
      entry->set_vmta("v" + std::to_string(i));
      const auto add = [&](policy::v1::HostOwner* host, int worker) {
        host->set_ip("127.0.0." + std::to_string(5 + i));
        host->set_worker(static_cast<uint32_t>(worker));
      };
      add(entry->add_hosts(), from[i]);
      if (from[i] == to[i]) continue;
      entry->set_moving_since_epoch(epoch_);
      add(entry->add_next(), to[i]);
    }
    owners_ = to;
    for (const auto& worker : workers_) worker->SetOwners(config::Owners::Build(table));
    executor_.RunPosted();
  }
  // Every worker hears of the mail that it may send now.
  void Announce() {
    for (size_t i = 0; i < owners_.size(); ++i) {
      shards_[static_cast<size_t>(owners_[i])].Ready(i + 1, 1000, 0, domain_,
                                                     "v" + std::to_string(i));
    }
    executor_.RunPosted();
  }
  // Leases one group for each credit, and answers at once.
  void Drive(Duration time, uint32_t code = 250) {
    const MonotonicTime end = executor_.clock().Now() + time;
    while (executor_.clock().Now() < end) {
      executor_.RunPosted();
      for (auto& shard : shards_) {
        const queue::v1::DispatchRequest said = shard.Take();
        for (const auto& blocked : said.blocked()) {
          if (&shard == &shards_[0]) blocked_ = blocked.limit();
        }
        for (const auto& credit : said.credits()) {
          for (uint32_t i = 0; i < credit.groups(); ++i) {
            shard.Lease(++id_, credit.queue_ref(), credit.max_recipients() == 1 ? 1 : group_);
          }
        }
      }
      for (size_t i = 0; i < sites_.open.size(); ++i) {
        if (!std::exchange(sites_.open[i]->greeted, true)) sites_.open[i]->handler->OnReady();
      }
      for (size_t i = 0; i < sites_.open.size(); ++i) {
        testing::FakeSites::Remote& remote = *sites_.open[i];
        while (!remote.under_way.empty()) {
          remote.Answer(code == 250 ? kDelivered : kTransient, code, "so it is");
        }
        if (remote.quit) remote.Close(true);
      }
      executor_.Advance(milliseconds(20));
    }
  }
  size_t SentSince(MonotonicTime when) const {
    size_t sum = 0;
    for (const auto& each : sites_.sends) {
      if (each.when >= when) sum += static_cast<size_t>(each.recipients);
    }
    return sum;
  }
  void ExpectNoWindowAbove(size_t most, Duration period) {
    const auto& sends = sites_.sends;
    for (size_t i = 0; i + most < sends.size(); ++i) {
      ASSERT_GE(sends[i + most].when - sends[i].when, period) << "from attempt " << i;
    }
  }

  sluice::testing::ManualExecutor executor_;
  testing::FakeSites sites_{executor_};
  testing::FakeResolver resolver_;
  testing::FakeShard shards_[2];
  std::vector<std::unique_ptr<Worker>> workers_;
  policy::v1::PolicySnapshot snapshot_;
  policy::v1::QueueSettings* settings_ = nullptr;
  std::string domain_ = "d.test";
  std::vector<int> owners_;
  uint64_t epoch_ = 0;
  uint64_t id_ = 100;
  int group_ = 1;  // recipients of a message, where they may go together
  std::string blocked_;
};

TEST_F(WorkerDomains, AThrottleHoldsOverTwoWorkers) {
  SetRate(settings_->mutable_domain_throttle(), 20, seconds(10));
  Begin({0, 0, 1, 0});
  Drive(seconds(60));
  ExpectNoWindowAbove(20, seconds(10));
  EXPECT_GE(sites_.sends.size(), 100u) << "and is used";
  std::map<std::string, int> by_source;
  for (const auto& each : sites_.sends) ++by_source[each.source_ip];
  EXPECT_EQ(by_source.size(), 4u) << "every queue has its turn";
  EXPECT_NEAR(by_source["127.0.0.7"], static_cast<double>(sites_.sends.size()) / 4, 3);
}

// The worker that gets a source leaves its part alone for a period: the other may have used it up.
TEST_F(WorkerDomains, AThrottleHoldsWhileSourcesChangeHands) {
  SetRate(settings_->mutable_domain_throttle(), 20, seconds(10));
  Begin({0, 1, 0, 1});
  std::vector<int> owners = owners_;
  uint64_t seed = 1;
  for (int i = 0; i < 40; ++i) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    Drive(milliseconds(seed >> 40 & 0x3fff));
    const std::vector<int> from = owners;
    for (size_t j = 0; j < 4; ++j) owners[j] = static_cast<int>(seed >> (33 + j) & 1);
    Table(from, owners);
    Drive(milliseconds(100));  // what moves is closed
    Table(owners, owners);
    Announce();
  }
  ExpectNoWindowAbove(20, seconds(10));
  const MonotonicTime then = executor_.clock().Now();
  Drive(seconds(40));
  ExpectNoWindowAbove(20, seconds(10));
  EXPECT_GE(SentSince(then), 50u) << "nothing is stranded";
}

TEST_F(WorkerDomains, AWorkerWithoutAPartSaysSo) {
  SetRate(settings_->mutable_domain_throttle(), 1, seconds(10));
  Begin({0, 0, 0, 1});  // the last one gets it
  Drive(seconds(30));
  ExpectNoWindowAbove(1, seconds(10));
  EXPECT_GE(sites_.sends.size(), 2u);
  for (const auto& each : sites_.sends) EXPECT_EQ(each.source_ip, "127.0.0.8");
  EXPECT_NE(blocked_.find("<limits> throttle 1/10s of d.test (this worker's part: 0)"),
            std::string::npos)
      << blocked_;
  domain_ = "other.test";
  const MonotonicTime since = executor_.clock().Now();
  for (uint64_t ref = 11; ref < 14; ++ref) shards_[0].Ready(ref, 100, 0, domain_, "v0");
  Drive(seconds(1));
  EXPECT_GT(SentSince(since), 40u) << "the limit is of one domain";
}

TEST_F(WorkerDomains, OneWorkerHasAllOfIt) {
  SetRate(settings_->mutable_domain_throttle(), 3, seconds(1));
  Begin({0, 0, 0, 0});
  Drive(seconds(20));
  ExpectNoWindowAbove(3, seconds(1));
  EXPECT_GE(sites_.sends.size(), 50u);
}

// In a <domain> of a virtual MTA: its queue's alone, whoever has that.
TEST_F(WorkerDomains, AThrottleOfABindingIsItsQueues) {
  SetRate(settings_->mutable_binding_throttle(), 2, seconds(1));
  Begin({0, 1, 0, 1});
  Drive(seconds(20));
  std::map<std::string, std::vector<MonotonicTime>> by_source;
  for (const auto& each : sites_.sends) by_source[each.source_ip].push_back(each.when);
  ASSERT_EQ(by_source.size(), 4u);
  for (const auto& [source, times] : by_source) {
    EXPECT_GE(times.size(), 30u) << source;
    for (size_t i = 0; i + 2 < times.size(); ++i) EXPECT_GE(times[i + 2] - times[i], seconds(1));
  }
}

TEST_F(WorkerDomains, AnErrorThrottleHoldsForItsTimeAfterAReply) {
  SetRate(settings_->mutable_domain_error_throttle(), 4, seconds(10));
  settings_->mutable_domain_error_throttle()->add_codes("4xx");
  SetRate(settings_->mutable_domain_defer_throttle(), 1, seconds(30));
  settings_->mutable_domain_defer_throttle()->add_codes("421");
  group_ = 3;
  Begin({0, 0, 0, 0});
  Drive(seconds(1));
  EXPECT_GT(sites_.sends.size(), 40u) << "no limit before such a reply";
  Drive(milliseconds(20), 450);
  const MonotonicTime since = executor_.clock().Now();
  Drive(milliseconds(9'900));
  EXPECT_LE(SentSince(since), 4u);
  EXPECT_GE(SentSince(since), 2u);
  const MonotonicTime over = since + seconds(11);
  Drive(seconds(3));
  EXPECT_GT(SentSince(over), 40u) << "nobody said so again";
}

}  // namespace
}  // namespace sluice::delivery
