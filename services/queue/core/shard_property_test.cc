// Seeded random runs of one shard against a model: clients, workers, operators, time and kills at
// any commit. Nothing that was accepted is lost; only what a worker had in its hands when it or the
// shard died goes out twice; what ends leaves nothing in the store.
#include <cstdlib>
#include <map>
#include <random>
#include <set>

#include "services/queue/testing/shard_fixture.h"

namespace sluice::queue {
namespace {

using testing::ShardFixture;
using testing::TestInjector;
using testing::TestWorker;

class ShardPropertyTest : public ShardFixture {
 protected:
  // The recipients' addresses are unique, so each stands for one delivery.
  struct Recipient {
    bool accepted = false;
    int delivered = 0;  // told to the shard as delivered
    int leases = 0;
    bool ended = false;       // delivered or failed, acknowledged
    bool may_repeat = false;  // a lease of it was lost, or an answer may not have been recorded
  };

  uint32_t Random(uint32_t below) { return static_cast<uint32_t>(random_() % below); }

  void Start(uint64_t seed) {
    random_.seed(seed);
    options_.lost_contact_grace = std::chrono::seconds(20);
    options_.lease = std::chrono::seconds(10);
    options_.lost_leases_held = 1000;  // nobody releases here
  }

  void Inject() {
    std::vector<std::string> rcpts;
    const uint32_t count = Random(4) == 0 ? 1 + Random(70) : 1 + Random(3);
    for (uint32_t i = 0; i < count; ++i) {
      rcpts.push_back("r" + std::to_string(++last_rcpt_) + "@d" + std::to_string(Random(6)) +
                      ".example");
    }
    const std::string job = Random(3) == 0 ? "job" + std::to_string(Random(4)) : "";
    // A null sender: bounces would be mail that the model does not know.
    waiting_[injector().Send(rcpts, "Subject: s\r\n\r\nbody\r\n", job, "", "")] = rcpts;
    for (const std::string& rcpt : rcpts) model_[rcpt];
  }

  void TakeAnswers() {
    if (injector_ == nullptr) return;
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      const auto outcome = injector_->outcome(it->first);
      if (outcome == v1::EnqueueResult::OUTCOME_UNSPECIFIED) {
        ++it;
        continue;
      }
      ASSERT_EQ(outcome, v1::EnqueueResult::OUTCOME_QUEUED);
      for (const std::string& rcpt : it->second) model_[rcpt].accepted = true;
      it = waiting_.erase(it);
    }
  }

  struct WorkerState {
    size_t seen = 0;  // of its leases
    size_t acks = 0;
    size_t lost = 0;
    std::map<uint64_t, v1::Lease> open;
    std::map<uint64_t, std::vector<std::string>> answered;  // lease -> those that ended by it
  };

  void Work(size_t index, bool all) {
    if (index + 1 != workers_.size()) return;  // older incarnations are dead
    TestWorker& worker = *workers_[index];
    WorkerState& state = states_[index];
    for (; state.seen < worker.leases.size(); ++state.seen) {
      const v1::Lease& lease = worker.leases[state.seen].lease;
      state.open[lease.lease_id()] = lease;
      for (const auto& delivery : lease.deliveries()) {
        Recipient& rcpt = model_[delivery.rcpt()];
        ++rcpt.leases;
        ASSERT_FALSE(rcpt.ended && !rcpt.may_repeat) << delivery.rcpt() << " leased after its end";
        ASSERT_TRUE(rcpt.delivered == 0 || rcpt.may_repeat) << delivery.rcpt() << " repeated";
      }
    }
    for (; state.acks < worker.acknowledged.size(); ++state.acks) {
      for (const std::string& rcpt : state.answered[worker.acknowledged[state.acks]]) {
        model_[rcpt].ended = true;
      }
    }
    for (; state.lost < worker.lost.size(); ++state.lost) state.open.erase(worker.lost[state.lost]);
    for (auto it = state.open.begin(); it != state.open.end();) {
      if (!all && Random(3) != 0) {
        ++it;
        continue;
      }
      const v1::Lease& lease = it->second;
      const uint32_t dice = all ? 0 : Random(10);
      std::vector<std::pair<uint32_t, v1::RecipientOutcome>> own;
      v1::RecipientOutcome outcome = v1::RECIPIENT_OUTCOME_DELIVERED;
      if (dice == 8) outcome = v1::RECIPIENT_OUTCOME_TRANSIENT;
      if (dice == 9) outcome = v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED;
      for (int i = 0; i < lease.deliveries_size(); ++i) {
        if (!all && Random(5) == 0) {
          own.emplace_back(i, Random(2) == 0 ? v1::RECIPIENT_OUTCOME_TRANSIENT
                                             : v1::RECIPIENT_OUTCOME_PERMANENT);
        }
      }
      for (int i = 0; i < lease.deliveries_size(); ++i) {
        v1::RecipientOutcome each = outcome;
        for (const auto& [position, other] : own) {
          if (position == static_cast<uint32_t>(i)) each = other;
        }
        const std::string& rcpt = lease.deliveries(i).rcpt();
        if (each == v1::RECIPIENT_OUTCOME_DELIVERED) ++model_[rcpt].delivered;
        if (each == v1::RECIPIENT_OUTCOME_DELIVERED || each == v1::RECIPIENT_OUTCOME_PERMANENT) {
          state.answered[it->first].push_back(rcpt);
        }
      }
      worker.Answer(it->first, outcome, outcome == v1::RECIPIENT_OUTCOME_DELIVERED ? 250 : 450,
                    "reply", own);
      it = state.open.erase(it);
    }
  }

  // What a dead worker had, and answers that may not have been recorded, may come again.
  void Forgive(size_t index) {
    for (const auto& [id, lease] : states_[index].open) {
      for (const auto& delivery : lease.deliveries()) model_[delivery.rcpt()].may_repeat = true;
    }
    for (const auto& [id, rcpts] : states_[index].answered) {
      for (const std::string& rcpt : rcpts) model_[rcpt].may_repeat = !model_[rcpt].ended;
    }
  }

  void KillShard() {
    Run(std::chrono::microseconds(Random(900)));
    TakeAnswers();
    for (size_t i = 0; i < workers_.size(); ++i) Work(i, false);
    Run(std::chrono::microseconds(Random(900)));
    TakeAnswers();
    for (size_t i = 0; i < workers_.size(); ++i) {
      for (; states_[i].acks < workers_[i]->acknowledged.size(); ++states_[i].acks) {
        for (const std::string& rcpt :
             states_[i].answered[workers_[i]->acknowledged[states_[i].acks]]) {
          model_[rcpt].ended = true;
        }
      }
      Forgive(i);
    }
    states_.clear();
    waiting_.clear();  // the outcome is unknown, to their clients too
    Kill();
    Open();
  }

  void NewWorker() {
    for (size_t i = 0; i < workers_.size(); ++i) {
      if (workers_[i] != nullptr) Forgive(i);
    }
    AddWorker("w1", ++incarnation_).auto_credit = 1 + Random(5);
    states_.resize(workers_.size());
  }

  void Operate() {
    const std::string domain = "d" + std::to_string(Random(6)) + ".example";
    switch (Random(sets_modes_ ? 8 : 4)) {
      case 4: {
        v1::SetQueueModeRequest request;
        if (Random(2) == 0) request.set_pattern(Random(2) == 0 ? "*/*" : domain + "/*");
        if (request.pattern().empty() || Random(2) == 0) request.add_names(domain + "/default");
        request.set_backoff(Random(2) == 0);
        if (Random(2) == 0) {
          request.set_until_us(ToUnixMicros(executor_.clock().WallNow()) +
                               int64_t{1'000'000} * Random(2000));
        }
        shard_->SetQueueMode(request, [](auto) {});
        break;
      }
      case 5: {
        v1::SetQueueSourceRequest request;
        request.set_pattern(domain + "/*");
        request.set_ip("192.0.2." + std::to_string(Random(3)));
        request.set_disable(Random(2) == 0);
        if (Random(2) == 0) {
          request.set_until_us(ToUnixMicros(executor_.clock().WallNow()) +
                               int64_t{1'000'000} * Random(2000));
        }
        shard_->SetQueueSource(request, [](auto) {});
        break;
      }
      case 6:
        executor_.StepWallClock(std::chrono::seconds(Random(2) == 0 ? 100 : 1));
        shard_->ConfirmClock({}, [](auto) {});
        break;
      case 7:
        shard_->ListQueues({}, [](auto response) {
          ASSERT_TRUE(response.ok());
          for (const auto& queue : response->queues()) {
            EXPECT_TRUE(queue.recipients() == 0 || queue.oldest_queued_us() != 0)
                << queue.ShortDebugString();
          }
        });
        break;
      case 0: {
        v1::RetryQueuesRequest request;
        request.set_pattern(domain + "/*");
        request.set_recipients(Random(2) == 0);
        shard_->RetryQueues(request, [](auto) {});
        break;
      }
      case 1:
        if (!workers_.empty() && !workers_.back()->ready.empty()) {
          workers_.back()->Fail(workers_.back()->ready.begin()->second.queue_ref(), Random(2) == 0,
                                false);
        }
        break;
      default:
        ListAll();
    }
  }

  // The listing by recipient agrees with the model: what was accepted and has not ended is there.
  void ListAll() {
    Run(std::chrono::milliseconds(20));
    TakeAnswers();
    for (size_t i = 0; i < workers_.size(); ++i) Work(i, false);
    Run(std::chrono::milliseconds(20));
    for (size_t i = 0; i < workers_.size(); ++i) Work(i, false);
    int looked = 0;
    for (const auto& [address, rcpt] : model_) {
      if (!rcpt.accepted || Random(20) != 0 || ++looked > 20) continue;
      v1::ListMessagesRequest request;
      request.mutable_filter()->set_rcpt(address);
      std::optional<int> found;
      shard_->ListMessages(request, [&found](auto response) {
        found = response.ok() ? response->recipients_size() : -1;
      });
      for (int i = 0; i < 500 && !found; ++i) Run(std::chrono::microseconds(1));
      ASSERT_TRUE(found);
      bool answered = rcpt.ended;
      for (const WorkerState& state : states_) {
        for (const auto& [id, rcpts] : state.answered) {
          answered |= std::find(rcpts.begin(), rcpts.end(), address) != rcpts.end();
        }
      }
      if (!answered && !rcpt.may_repeat) {
        ASSERT_EQ(*found, 1) << address;
      }
      ASSERT_LE(*found, 1) << address;
    }
  }

  void RunSeed(uint64_t seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Start(seed);
    sets_modes_ = seed % 2 == 0;
    NewWorker();
    for (int step = 0; step < 150; ++step) {
      switch (Random(12)) {
        case 0:
        case 1:
        case 2:
        case 3:
          Inject();
          break;
        case 4:
        case 5:
        case 6:
          for (size_t i = 0; i < workers_.size(); ++i) Work(i, false);
          break;
        case 7:
          Operate();
          break;
        case 8:
          if (Random(4) == 0) {
            KillShard();
            NewWorker();
          }
          break;
        case 9:
          if (Random(4) == 0) NewWorker();
          break;
        case 10:
          Run(std::chrono::seconds(Random(Random(8) == 0 ? 1200 : 5)));
          break;
        default:
          Run(std::chrono::microseconds(Random(3000)));
      }
      TakeAnswers();
      if (HasFatalFailure()) return;
    }
    // In the end all is delivered, and nothing is left.
    Run(std::chrono::seconds(1));
    TakeAnswers();
    for (int round = 0; round < 400; ++round) {
      for (size_t i = 0; i < workers_.size(); ++i) Work(i, true);
      Run(std::chrono::seconds(1));
      if (round % 20 == 0) Run(std::chrono::minutes(11));
      if (HasFatalFailure()) return;
      if (Status().recipients() == 0 && !Status().counting()) break;
    }
    for (size_t i = 0; i < workers_.size(); ++i) Work(i, true);
    for (const auto& [address, rcpt] : model_) {
      if (!rcpt.accepted) continue;
      ASSERT_TRUE(rcpt.ended || rcpt.may_repeat)
          << address << " was lost; leases " << rcpt.leases << ", delivered " << rcpt.delivered
          << Status().ShortDebugString();
      ASSERT_GT(rcpt.leases, 0) << address;
    }
    ASSERT_EQ(Status().recipients(), 0U);
    ASSERT_EQ(Status().leased_recipients(), 0U);
    for (Family family :
         {Family::kMessages, Family::kBodies, Family::kDeliveries, Family::kIndex}) {
      ASSERT_EQ(store_.rows(family), 0U) << "family " << static_cast<int>(family);
    }
    // Those that are empty are forgotten.
    Run(std::chrono::minutes(62));
    if (!sets_modes_) {  // what an operator said stays
      ASSERT_EQ(Status().queues(), 0U);
      ASSERT_EQ(store_.rows(Family::kQueues), 0U);
    }
    ASSERT_EQ(store_.rows(Family::kLeases), 0U);
  }

  void Reset() {
    Kill();
    store_.~MemoryStore();
    new (&store_) MemoryStore();
    model_.clear();
    waiting_.clear();
    states_.clear();
    incarnation_ = 0;
    Open();
  }

  std::mt19937_64 random_;
  std::map<std::string, Recipient> model_;
  std::map<uint64_t, std::vector<std::string>> waiting_;
  std::vector<WorkerState> states_;
  uint64_t incarnation_ = 0;
  uint64_t last_rcpt_ = 0;
  bool sets_modes_ = false;  // operators do
};

TEST_F(ShardPropertyTest, RandomRunsLoseNothingAndLeaveNothing) {
  // More seeds, or one of them: SLUICE_SEEDS=first:count.
  uint64_t first = 1;
  uint64_t count = 60;
  if (const char* seeds = std::getenv("SLUICE_SEEDS")) {
    char* end = nullptr;
    first = std::strtoull(seeds, &end, 10);
    count = *end == ':' ? std::strtoull(end + 1, nullptr, 10) : 1;
  }
  for (uint64_t seed = first; seed < first + count; ++seed) {
    RunSeed(seed);
    if (HasFatalFailure()) FAIL() << "SLUICE_SEEDS=" << seed << " repeats it";
    Reset();
  }
}

}  // namespace
}  // namespace sluice::queue
