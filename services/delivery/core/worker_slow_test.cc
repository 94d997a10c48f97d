// A worker on a machine that is slow, and stands still now and then: each look at the clock shows a
// later time, and time passes between the decision to send and the sending. Every limit holds on
// the wire, and is used: none may depend on how much is done within a microsecond.
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::World;

constexpr Duration kLook = std::chrono::microseconds(300);
constexpr uint64_t kMost = 10;  // messages each period
constexpr Duration kPeriod = seconds(2);
constexpr uint64_t kBytes = 1000;  // of each message

struct Settings {
  policy::v1::QueueSettings* queue;
  policy::v1::SourceSettings* source;
  policy::v1::VirtualMtaSection* vmta;
  policy::v1::PoolSection* pool;
};

struct Limit {
  const char* name;
  std::function<void(const Settings&)> set;
  bool connects = false;  // else messages
};

void PrintTo(const Limit& limit, std::ostream* out) { *out << limit.name; }

void Set(policy::v1::Rate* rate, uint64_t count = kMost) {
  rate->set_count(count);
  rate->set_period_us(static_cast<uint64_t>(kPeriod.count()));
}

void SetFor(policy::v1::KeyedRates* rates, uint64_t count = kMost) {
  auto* entry = rates->add_entries();
  entry->set_key("127.0.0.0/8");
  Set(entry->mutable_rate(), count);
}

std::vector<Limit> Limits() {
  return {
      {"max_msg_rate", [](const Settings& to) { Set(to.queue->mutable_max_msg_rate()); }},
      {"max_data_volume_rate",
       [](const Settings& to) { Set(to.queue->mutable_max_data_volume_rate(), kMost * kBytes); }},
      {"max_connect_rate",
       [](const Settings& to) {
         Set(to.queue->mutable_max_connect_rate());
         to.queue->set_max_msg_per_connection(1);
       },
       true},
      {"source_ip_max_msg_rate",
       [](const Settings& to) { SetFor(to.queue->mutable_source_ip_max_msg_rate()); }},
      {"source_ip_max_data_volume_rate",
       [](const Settings& to) {
         SetFor(to.queue->mutable_source_ip_max_data_volume_rate(), kMost * kBytes);
       }},
      {"source_ip_max_connect_rate",
       [](const Settings& to) {
         SetFor(to.queue->mutable_source_ip_max_connect_rate());
         to.queue->set_max_msg_per_connection(1);
       },
       true},
      {"source_max_msg_rate", [](const Settings& to) { Set(to.source->mutable_max_msg_rate()); }},
      {"vmta_max_smtp_msg_rate",
       [](const Settings& to) { Set(to.vmta->mutable_max_smtp_msg_rate()); }},
      {"vmta_max_smtp_data_volume_rate",
       [](const Settings& to) {
         Set(to.vmta->mutable_max_smtp_data_volume_rate(), kMost * kBytes);
       }},
      {"pool_max_smtp_msg_rate",
       [](const Settings& to) { Set(to.pool->mutable_max_smtp_msg_rate()); }},
      {"pool_max_smtp_data_volume_rate",
       [](const Settings& to) {
         Set(to.pool->mutable_max_smtp_data_volume_rate(), kMost * kBytes);
       }},
      {"domain_throttle",
       [](const Settings& to) { Set(to.queue->mutable_domain_throttle()->mutable_rate()); }},
  };
}

policy::v1::PolicySnapshot Snapshot(const Limit& limit) {
  policy::v1::PolicySnapshot snapshot;
  snapshot.set_version(1);
  // Added before any of them is pointed to.
  for (const char* name : {"global", "source/127.0.0.5", "vmta/v", "pool/p"}) {
    snapshot.add_sections()->set_name(name);
  }
  const auto content = [&](int i) { return snapshot.mutable_sections(i)->mutable_content(); };
  auto* source = content(1)->mutable_source();
  source->set_ip("127.0.0.5");
  auto* vmta = content(2)->mutable_virtual_mta();
  vmta->set_name("v");
  auto* host = vmta->add_source_hosts();
  host->set_ip("127.0.0.5");
  host->set_host_name("out.example");
  auto* pool = content(3)->mutable_pool();
  pool->set_name("p");
  pool->add_virtual_mtas("v");
  limit.set({content(0)->mutable_global()->mutable_queue_defaults(), source->mutable_settings(),
             vmta, pool});
  return snapshot;
}

class WorkerSlow : public ::testing::TestWithParam<Limit> {};

TEST_P(WorkerSlow, HoldsTheLimitAndUsesIt) {
  World world(Snapshot(GetParam()));
  std::mt19937_64 random(1);
  const auto now = [&] { return world.executor.clock().Now(); };
  world.executor.SlowDown(kLook);
  // One in eight stands still for up to a period.
  world.sites.before_sending = [&] {
    if (random() % 8 != 0) return;
    world.executor.StandStill(Duration(static_cast<int64_t>(random() % 2'000'000)));
  };
  world.shard().edit = [](queue::v1::Lease& lease) {
    lease.mutable_message()->set_body_size(kBytes);
  };
  world.shard().Ready(1, 1000);
  uint64_t lease = 100;
  const MonotonicTime end = now() + seconds(200);
  while (now() < end) {
    const queue::v1::DispatchRequest said = world.Take();
    for (const auto& credit : said.credits()) {
      for (uint32_t i = 0; i < credit.groups(); ++i) world.shard().Lease(++lease, 1);
    }
    bool again = said.returned_leases_size() > 0;
    for (const auto& revoke : said.revokes()) again |= revoke.released();
    if (again) world.shard().Ready(1, 1000);
    world.GreetAll();
    for (size_t i = 0; i < world.sites.open.size(); ++i) {
      auto& remote = *world.sites.open[i];
      while (!remote.under_way.empty()) remote.Answer(queue::v1::RECIPIENT_OUTCOME_DELIVERED);
      if (remote.quit) remote.Close(true);
    }
    world.executor.Advance(milliseconds(10));
  }
  std::vector<MonotonicTime> moments = world.sites.connects;
  if (!GetParam().connects) {
    moments.clear();
    for (const auto& sent : world.sites.sends) moments.push_back(sent.when);
  }
  for (size_t i = 0; i + kMost < moments.size(); ++i) {
    ASSERT_GE(moments[i + kMost] - moments[i], kPeriod) << "from " << i;
  }
  // Of 1,000, had it never stood still.
  EXPECT_GE(moments.size(), 300u);
}

INSTANTIATE_TEST_SUITE_P(Limits, WorkerSlow, ::testing::ValuesIn(Limits()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace sluice::delivery
