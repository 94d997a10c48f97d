// Limits on bytes over a restart: a worker that ended in good order goes on where it was, one that
// was killed waits until nothing that it may have sent counts any more, and says so.
#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::FakeSites;
using testing::World;

constexpr uint64_t kMost = 100'000;
constexpr uint64_t kBytes = 1'000;
constexpr Duration kPeriod = hours(1);

// Which limit there is.
enum class Limit { kQueue, kQueueAndSource, kVirtualMta, kPool };

policy::v1::PolicySnapshot Snapshot(Limit limit) {
  policy::v1::PolicySnapshot snapshot;
  snapshot.set_version(1);
  const auto set = [](policy::v1::Rate* rate) {
    rate->set_count(kMost);
    rate->set_period_us(static_cast<uint64_t>(kPeriod.count()));
  };
  policy::v1::Section* section = snapshot.add_sections();
  section->set_name("global");
  auto& queue = *section->mutable_content()->mutable_global()->mutable_queue_defaults();
  if (limit == Limit::kQueue) set(queue.mutable_max_data_volume_rate());
  if (limit == Limit::kQueueAndSource) {
    auto* entry = queue.mutable_source_ip_max_data_volume_rate()->add_entries();
    entry->set_key("127.0.0.5/32");
    set(entry->mutable_rate());
  }
  section = snapshot.add_sections();
  section->set_name("vmta/v");
  auto* vmta = section->mutable_content()->mutable_virtual_mta();
  vmta->set_name("v");
  vmta->add_source_hosts()->set_ip("127.0.0.5");
  if (limit == Limit::kVirtualMta) set(vmta->mutable_max_smtp_data_volume_rate());
  if (limit == Limit::kPool) {
    section = snapshot.add_sections();
    section->set_name("pool/p");
    auto* pool = section->mutable_content()->mutable_pool();
    pool->set_name("p");
    pool->add_virtual_mtas("v");
    set(pool->mutable_max_smtp_data_volume_rate());
  }
  return snapshot;
}

// A queue with mail without end.
class Lives {
 public:
  explicit Lives(Limit limit) : world_(Snapshot(limit)) {
    world_.resolver.answer.expires = Now() + hours(1000);
    world_.shard().edit = [](queue::v1::Lease& lease) {
      lease.mutable_message()->set_body_size(kBytes);
    };
  }
  void Begin(const v1::VolumeRecords* past, uint64_t epoch = 0) {
    world_.Restart(past, epoch != 0);
    if (epoch != 0) Table(epoch);
    Announce();
  }
  void Table(uint64_t epoch) {
    policy::v1::OwnersTable table;
    table.set_epoch(epoch);
    table.add_workers("w1");
    auto* entry = table.add_vmtas();
    entry->set_vmta("v");
    entry->add_hosts()->set_ip("127.0.0.5");
    world_.worker->SetOwners(config::Owners::Build(table));
  }
  // Messages sent in that time.
  size_t Run(Duration time) {
    const size_t before = sent_.size();
    const MonotonicTime end = Now() + time;
    while (Now() < end) Step();
    return sent_.size() - before;
  }
  v1::VolumeRecords End() {
    bool drained = false;
    world_.worker->Drain([&drained] { drained = true; });
    for (int i = 0; i < 100 && !drained; ++i) Step();
    EXPECT_TRUE(drained);
    return world_.worker->Volumes();
  }
  void ExpectNoWindowOverTheLimit() const {
    size_t first = 0;
    for (size_t i = 0; i < sent_.size(); ++i) {
      while (sent_[i] - sent_[first] >= kPeriod) ++first;
      ASSERT_LE((i - first + 1) * kBytes, kMost) << "from " << first << " to " << i;
    }
  }
  const std::string& blocked() const { return blocked_; }
  v1::GetWorkerStatusResponse Status(const std::string& queues) const {
    return world_.worker->Status(true, queues);
  }

 private:
  MonotonicTime Now() const { return world_.executor.clock().Now(); }
  void Announce() {
    world_.shard().Ready(1, 1000);
    world_.executor.RunPosted();
  }
  void Step() {
    const queue::v1::DispatchRequest said = world_.Take();
    if (said.blocked_size() > 0) blocked_ = said.blocked(said.blocked_size() - 1).limit();
    queue::v1::DispatchResponse durable;
    for (const auto& result : said.results()) {
      durable.add_acknowledged_leases(result.lease_id());
    }
    if (said.results_size() > 0) world_.shard().Say(durable);
    for (const auto& credit : said.credits()) {
      for (uint32_t i = 0; i < credit.groups(); ++i) world_.shard().Lease(++last_lease_, 1);
    }
    bool again = said.failures_size() > 0 || said.returned_leases_size() > 0;
    for (const auto& revoke : said.revokes()) again |= revoke.released();
    if (again) Announce();
    for (size_t i = 0; i < world_.sites.open.size(); ++i) {
      FakeSites::Remote& remote = *world_.sites.open[i];
      if (!std::exchange(remote.greeted, true)) {
        remote.handler->OnReady();
      } else if (!remote.under_way.empty()) {
        sent_.push_back(Now());
        remote.Answer(queue::v1::RECIPIENT_OUTCOME_DELIVERED);
      } else if (remote.quit) {
        remote.Close(true);
      }
    }
    world_.executor.Advance(milliseconds(200));
  }

  World world_;
  std::vector<MonotonicTime> sent_;
  std::string blocked_;
  uint64_t last_lease_ = 100;
};

TEST(WorkerVolumes, GoesOnAfterARestartInGoodOrder) {
  for (const Limit limit :
       {Limit::kQueue, Limit::kQueueAndSource, Limit::kVirtualMta, Limit::kPool}) {
    SCOPED_TRACE(static_cast<int>(limit));
    Lives lives(limit);
    lives.Begin(nullptr);
    EXPECT_EQ(lives.Run(minutes(55)), 0u) << "what was sent before is not known";
    EXPECT_NE(lives.blocked().find("counted as used up"), std::string::npos) << lives.blocked();
    EXPECT_EQ(lives.Status("*.org/v").blocked_size(), 1);
    EXPECT_GT(lives.Status("*.org/v").blocked(0).until_unix_us(), 0);
    EXPECT_EQ(lives.Status("*.com/v").blocked_size(), 0);
    EXPECT_GT(lives.Run(hours(2)), 150u);
    const v1::VolumeRecords past = lives.End();
    lives.Begin(&past);
    EXPECT_GT(lives.Run(minutes(30)), 30u) << "it is known";
    EXPECT_EQ(lives.blocked().find("counted as used up"), std::string::npos) << lives.blocked();
    // Again, at once: a life that sent nothing forgets nothing.
    v1::VolumeRecords again = lives.End();
    lives.Begin(&again);
    again = lives.End();
    lives.Begin(&again);
    EXPECT_GT(lives.Run(minutes(30)), 30u);
    lives.Begin(nullptr);
    EXPECT_EQ(lives.Run(minutes(55)), 0u) << "it was killed";
    lives.Run(hours(1));
    lives.ExpectNoWindowOverTheLimit();
  }
}

// A short life after a kill knows no more than that it knows nothing, and so does the next one.
TEST(WorkerVolumes, WhatWasNotKnownStaysSo) {
  Lives lives(Limit::kQueue);
  lives.Begin(nullptr);
  EXPECT_GT(lives.Run(hours(3)), 150u);
  lives.Begin(nullptr);
  const v1::VolumeRecords past = lives.End();
  lives.Begin(&past);
  EXPECT_EQ(lives.Run(minutes(55)), 0u);
  lives.Run(hours(1));
  lives.ExpectNoWindowOverTheLimit();
}

// By the table of owners nobody else can have sent meanwhile, as long as it is the same one.
TEST(WorkerVolumes, AnotherTableOfOwnersMeansThatItIsNotKnown) {
  for (const Limit limit :
       {Limit::kQueue, Limit::kQueueAndSource, Limit::kVirtualMta, Limit::kPool}) {
    SCOPED_TRACE(static_cast<int>(limit));
    Lives lives(limit);
    lives.Begin(nullptr, 5);
    lives.Run(hours(3));
    v1::VolumeRecords past = lives.End();
    EXPECT_EQ(past.owners_epoch(), 5u);
    lives.Begin(&past, 5);
    EXPECT_GT(lives.Run(minutes(30)), 30u);
    past = lives.End();
    lives.Begin(&past, 7);
    EXPECT_EQ(lives.Run(minutes(55)), 0u);
    lives.Run(hours(1));
    lives.ExpectNoWindowOverTheLimit();
  }
}

TEST(WorkerVolumes, RecordsOfTheFutureAreOfAnotherBoot) {
  Lives lives(Limit::kQueue);
  v1::VolumeRecords past;
  past.set_written_us(int64_t{1} << 60);
  lives.Begin(&past);
  EXPECT_EQ(lives.Run(minutes(55)), 0u);
}

}  // namespace
}  // namespace sluice::delivery
