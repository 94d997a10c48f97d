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

// A disk that takes what it is given after a while.
class Disk final : public VolumeLedger {
 public:
  explicit Disk(Executor& executor) : executor_(executor) {}
  void Keep(v1::VolumeRecords records, absl::AnyInvocable<void(Kept)> done) override {
    ++writes;
    executor_.After(milliseconds(5), [this, life = life, records = std::move(records),
                                      done = std::move(done)]() mutable {
      if (life != this->life) return;
      if (answer == Kept::kYes) kept = std::move(records);
      if (answer == Kept::kNothing) kept.Clear();
      done(answer);
    });
  }
  v1::VolumeRecords kept;
  Kept answer = Kept::kYes;
  int writes = 0;
  int life = 0;  // what an earlier one began is lost

 private:
  Executor& executor_;
};

// A queue with mail without end.
class Lives {
 public:
  explicit Lives(Limit limit) : world_(Snapshot(limit)), disk(world_.executor) {
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
  // As after a kill.
  void BeginAfterAKill(uint64_t epoch = 0) {
    ++disk.life;
    world_.ledger = &disk;
    const v1::VolumeRecords kept = disk.kept;
    Begin(kept.running() ? &kept : nullptr, epoch);
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

 public:
  Disk disk;

 private:
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

// The ledger says before what may be sent, so that mail goes on after each kill, and no window is
// ever over its limit.
TEST(WorkerVolumes, GoesOnAfterAKillByTheLedger) {
  for (const Limit limit :
       {Limit::kQueue, Limit::kQueueAndSource, Limit::kVirtualMta, Limit::kPool}) {
    for (const uint64_t epoch : {0, 5}) {
      SCOPED_TRACE(static_cast<int>(limit));
      Lives lives(limit);
      lives.BeginAfterAKill(epoch);
      EXPECT_EQ(lives.Run(minutes(55)), 0u) << "of the first life nothing is known before it";
      size_t sent = lives.Run(hours(2));
      EXPECT_GT(sent, 150u);
      EXPECT_LT(lives.disk.writes, static_cast<int>(sent)) << "a part of the limit at a time";
      for (int kill = 0; kill < 8; ++kill) {
        lives.BeginAfterAKill(epoch);
        sent = lives.Run(minutes(5 * kill + 1));
        EXPECT_EQ(lives.blocked().find("counted as used up"), std::string::npos);
        if (kill > 2) {
          EXPECT_GT(sent, static_cast<size_t>(5 * kill)) << "of 100 an hour";
        }
      }
      // Another table: then another worker may have sent.
      if (epoch != 0) {
        lives.BeginAfterAKill(epoch + 2);
        EXPECT_EQ(lives.Run(minutes(55)), 0u);
        lives.Run(hours(1));
      }
      lives.ExpectNoWindowOverTheLimit();
    }
  }
}

// Killed again and again, before a write is durable or just after it.
TEST(WorkerVolumes, KillsAtAnyMomentPassNoLimit) {
  Lives lives(Limit::kQueue);
  lives.BeginAfterAKill();
  lives.Run(hours(3));
  size_t sent = 0;
  for (int kill = 0; kill < 300; ++kill) {
    lives.BeginAfterAKill();
    sent += lives.Run(seconds(1 + kill * 37 % 90));
  }
  EXPECT_GT(sent, 50u) << "in four hours";
  lives.ExpectNoWindowOverTheLimit();
}

TEST(WorkerVolumes, NothingIsSentThatCannotBeWrittenDown) {
  Lives lives(Limit::kQueue);
  lives.BeginAfterAKill();
  lives.Run(hours(3));
  lives.disk.answer = VolumeLedger::Kept::kBefore;
  lives.Run(minutes(10));
  EXPECT_EQ(lives.Run(minutes(10)), 0u);
  EXPECT_NE(lives.blocked().find("cannot be written down"), std::string::npos) << lives.blocked();
  // Nothing is there that says too little: mail goes on, and waits after a kill.
  lives.disk.answer = VolumeLedger::Kept::kNothing;
  EXPECT_GT(lives.Run(hours(1)), 60u);
  lives.disk.answer = VolumeLedger::Kept::kYes;
  EXPECT_GT(lives.Run(hours(1)), 60u);
  lives.BeginAfterAKill();
  EXPECT_GT(lives.Run(minutes(30)), 20u);
  lives.disk.answer = VolumeLedger::Kept::kNothing;
  lives.Run(hours(1));
  lives.BeginAfterAKill();
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
