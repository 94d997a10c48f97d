// Limits of a queue on connects and bytes, and a second one on recipients: each holds in every
// window, is said by name where it blocks, and survives what a worker forgets.
#include <map>

#include "services/delivery/core/worker_world.h"

namespace sluice::delivery {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using testing::FakeSites;
using testing::World;

constexpr auto kDelivered = queue::v1::RECIPIENT_OUTCOME_DELIVERED;

void SetRate(policy::v1::Rate* rate, uint64_t count, Duration period) {
  rate->set_count(count);
  rate->set_period_us(static_cast<uint64_t>(period.count()));
}

policy::v1::PolicySnapshot Snapshot(const std::function<void(policy::v1::QueueSettings&)>& settings,
                                    int sources = 1) {
  policy::v1::PolicySnapshot snapshot;
  snapshot.set_version(1);
  policy::v1::Section* section = snapshot.add_sections();
  section->set_name("global");
  settings(*section->mutable_content()->mutable_global()->mutable_queue_defaults());
  section = snapshot.add_sections();
  section->set_name("vmta/v");
  auto* vmta = section->mutable_content()->mutable_virtual_mta();
  vmta->set_name("v");
  for (int i = 0; i < sources; ++i) {
    auto* host = vmta->add_source_hosts();
    host->set_ip("127.0.0." + std::to_string(5 + i));
    host->set_host_name("out.example");
  }
  return snapshot;
}

// One moment at which something that counts happened.
struct Counted {
  MonotonicTime when;
  uint64_t amount;
};

void ExpectNoWindowOver(const std::vector<Counted>& all, uint64_t most, Duration period) {
  uint64_t sum = 0;
  size_t first = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    sum += all[i].amount;
    while (all[i].when - all[first].when >= period) sum -= all[first++].amount;
    ASSERT_LE(sum, most) << "from " << first << " to " << i;
  }
}

// A shard with mail without end for one queue, and a remote that takes `think` for each message.
class Stream {
 public:
  explicit Stream(World& world) : world_(world) {
    world.resolver.answer.expires = Now() + hours(1000);
    world.shard().edit = [this](queue::v1::Lease& lease) {
      lease.mutable_message()->set_body_size(size ? size() : 4);
    };
    Announce();
  }

  void Announce() {
    world_.shard().Ready(1, 1000);
    world_.executor.RunPosted();
  }

  void Run(Duration time) {
    const MonotonicTime end = Now() + time;
    while (Now() < end) {
      Read();
      for (size_t i = 0; i < world_.sites.open.size(); ++i) Act(*world_.sites.open[i]);
      world_.executor.Advance(step);
    }
  }

  MonotonicTime Now() const { return world_.executor.clock().Now(); }
  uint64_t sent_bytes() const {
    uint64_t sum = 0;
    for (const Counted& each : volume) sum += each.amount;
    return sum;
  }

  std::function<uint64_t()> size;
  std::function<bool()> refuse_connect;
  Duration think = milliseconds(100);
  Duration step = milliseconds(10);
  std::vector<Counted> volume;  // when the text has left, at the latest
  std::string blocked;
  size_t returned = 0;

 private:
  void Read() {
    const queue::v1::DispatchRequest said = world_.Take();
    if (said.blocked_size() > 0) blocked = said.blocked(said.blocked_size() - 1).limit();
    returned += static_cast<size_t>(said.returned_leases_size());
    for (const auto& credit : said.credits()) {
      for (uint32_t i = 0; i < credit.groups(); ++i) world_.shard().Lease(++last_lease_, 1);
    }
    if (said.failures_size() > 0 || said.returned_leases_size() > 0) Announce();
    for (const auto& revoke : said.revokes()) {
      if (revoke.released()) Announce();
    }
  }

  void Act(FakeSites::Remote& remote) {
    if (!remote.greeted) {
      if (refuse_connect && refuse_connect()) {
        remote.Close(false);
      } else {
        remote.greeted = true;
        remote.handler->OnReady();
      }
    } else if (!remote.under_way.empty()) {
      const uint64_t lease = remote.under_way.front().lease->lease_id();
      if (Now() < began_.try_emplace(lease, Now()).first->second + think) return;
      volume.push_back({Now(), remote.under_way.front().lease->message().body_size()});
      remote.Answer(kDelivered);
    } else if (remote.quit) {
      remote.Close(true);
    }
  }

  World& world_;
  uint64_t last_lease_ = 100;
  std::map<uint64_t, MonotonicTime> began_;  // by lease
};

std::vector<Counted> Connects(const World& world) {
  std::vector<Counted> all;
  for (const MonotonicTime when : world.sites.connects) all.push_back({when, 1});
  return all;
}

// Of the connects and the RCPTs from one source.
std::vector<Counted> RecipientsFrom(const World& world, const std::string& source) {
  std::vector<Counted> all;
  for (const auto& sent : world.sites.sends) {
    if (sent.source_ip == source) {
      all.push_back({sent.when, static_cast<uint64_t>(sent.recipients)});
    }
  }
  return all;
}

void Name(policy::v1::KeyedRates* rates, const std::string& network, uint64_t count,
          Duration period) {
  auto* entry = rates->add_entries();
  entry->set_key(network);
  SetRate(entry->mutable_rate(), count, period);
}

std::vector<Counted> Recipients(const World& world) {
  std::vector<Counted> all;
  for (const auto& sent : world.sites.sends) {
    all.push_back({sent.when, static_cast<uint64_t>(sent.recipients)});
  }
  return all;
}

// rate-burst lets some go at once after a pause, and they count inside the rate.
TEST(WorkerCaps, ABurstGoesAtOnceAndCountsInTheRate) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    SetRate(settings.mutable_max_msg_rate(), 20, seconds(10));
    settings.set_rate_burst(6);
    settings.set_max_smtp_out(10);
  }));
  Stream stream(world);
  stream.think = milliseconds(10);
  stream.Run(seconds(30));
  stream.think = hours(1);
  stream.Run(seconds(30));
  stream.think = milliseconds(10);
  stream.Run(seconds(30));
  std::vector<Counted> all;
  for (const auto& sent : world.sites.sends) all.push_back({sent.when, 1});
  ExpectNoWindowOver(all, 20, seconds(10));
  size_t together = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    size_t n = i;
    while (n < all.size() && all[n].when - all[i].when < milliseconds(200)) ++n;
    together = std::max(together, n - i);
  }
  EXPECT_GE(together, 4U) << "20 in 10 s, one by one, would be 500 ms apart";
}

TEST(WorkerCaps, MaxMsgPerHourHoldsBesidesMaxMsgRate) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    settings.set_max_msg_per_hour(1800);
    SetRate(settings.mutable_max_msg_rate(), 10, seconds(1));
  }));
  Stream stream(world);
  stream.Run(minutes(10));
  ExpectNoWindowOver(Recipients(world), 10, seconds(1));
  ExpectNoWindowOver(Recipients(world), 1800, hours(1));
  EXPECT_GE(world.sites.sends.size(), 280u) << "of 300 in ten minutes";
  EXPECT_LE(world.sites.sends.size(), 301u);
  EXPECT_EQ(stream.blocked, "max-msg-per-hour 1800/3600s");
}

TEST(WorkerCaps, MaxConnectRateCountsConnectsThatFail) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    SetRate(settings.mutable_max_connect_rate(), 6, minutes(1));
    settings.set_max_msg_per_connection(1);
  }));
  Stream stream(world);
  int number = 0;
  stream.refuse_connect = [&number] { return ++number % 3 != 0; };
  stream.Run(minutes(10));
  ExpectNoWindowOver(Connects(world), 6, minutes(1));
  EXPECT_GE(world.sites.connects.size(), 55u) << "of 60";
  EXPECT_EQ(stream.blocked, "max-connect-rate 6/60s");
  EXPECT_GE(world.sites.sends.size(), 15u) << "the second host is reached in spite of the wait";
}

TEST(WorkerCaps, RateBurstCountsInsideMaxConnectRate) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    SetRate(settings.mutable_max_connect_rate(), 10, minutes(1));
    settings.set_rate_burst(4);
    settings.set_max_msg_per_connection(1);
  }));
  Stream stream(world);
  stream.Run(minutes(5));
  ExpectNoWindowOver(Connects(world), 10, minutes(1));
  EXPECT_GE(world.sites.connects.size(), 30u);
}

TEST(WorkerCaps, AWarmConnectionNeedsNoToken) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    SetRate(settings.mutable_max_connect_rate(), 1, hours(1));
  }));
  Stream stream(world);
  stream.step = milliseconds(100);
  stream.Run(minutes(5));
  EXPECT_EQ(world.sites.connects.size(), 0u) << "what was there before the start is not known";
  stream.Run(hours(1));
  EXPECT_EQ(world.sites.connects.size(), 1u);
  EXPECT_GE(world.sites.sends.size(), 1000u);
}

TEST(WorkerCaps, MaxDataVolumeRateHoldsAndIsUsed) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    SetRate(settings.mutable_max_data_volume_rate(), 1'000'000, minutes(1));
  }));
  Stream stream(world);
  uint64_t number = 0;
  stream.size = [&number] { return 1000 + ++number * 7919 % 60'000; };
  stream.think = milliseconds(700);
  stream.Run(minutes(20));
  ExpectNoWindowOver(stream.volume, 1'000'000, minutes(1));
  EXPECT_GE(stream.sent_bytes(), 16'000'000u) << "of 19 million after the first minute";
  EXPECT_EQ(stream.blocked, "max-data-volume-rate 1000000/60s");
}

TEST(WorkerCaps, AMessageThatDoesNotFitIsNotHeldForLong) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    SetRate(settings.mutable_max_data_volume_rate(), 100'000, hours(1));
  }));
  Stream stream(world);
  // A message that was given back comes again.
  stream.size = [&stream] { return stream.volume.size() % 2 == 0 ? 20'000 : 90'000; };
  stream.step = seconds(1);
  stream.Run(hours(8));
  ExpectNoWindowOver(stream.volume, 100'000, hours(1));
  EXPECT_GE(stream.sent_bytes(), 300'000u) << "55,000 an hour fit";
  EXPECT_GT(stream.returned, 0u);
}

TEST(WorkerCaps, AMessageLargerThanTheVolumeGoesAlone) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    SetRate(settings.mutable_max_data_volume_rate(), 1000, minutes(1));
  }));
  Stream stream(world);
  stream.size = [] { return 5000; };
  stream.Run(minutes(21));
  ASSERT_GE(stream.volume.size(), 3u);
  ASSERT_LE(stream.volume.size(), 5u);
  for (size_t i = 1; i < stream.volume.size(); ++i) {
    EXPECT_GE(stream.volume[i].when - stream.volume[i - 1].when, minutes(5) - seconds(1));
  }
}

TEST(WorkerCaps, TextThatWasNotSentGoesBack) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    SetRate(settings.mutable_max_data_volume_rate(), 1000, minutes(10));
    settings.set_max_smtp_out(1);
  }));
  world.executor.Advance(minutes(11));
  world.shard().edit = [](queue::v1::Lease& lease) { lease.mutable_message()->set_body_size(900); };
  auto& remote = world.Connected(5);
  world.shard().Lease(1, 1);
  world.executor.RunPosted();
  ASSERT_EQ(remote.under_way.size(), 1u);
  queue::v1::GroupResult refused;
  refused.set_lease_id(remote.under_way.front().lease->lease_id());
  refused.set_outcome(queue::v1::RECIPIENT_OUTCOME_PERMANENT);
  refused.mutable_reply()->set_stage(common::v1::STAGE_RCPT);
  refused.mutable_reply()->set_code(550);
  remote.under_way.clear();
  remote.handler->OnResult(std::move(refused));
  world.executor.Advance(seconds(1));
  world.shard().Lease(2, 1);
  world.executor.RunPosted();
  EXPECT_EQ(remote.under_way.size(), 1u);
}

TEST(WorkerCaps, AReloadAndAnIdleTimeForgetNothing) {
  auto snapshot = Snapshot([](policy::v1::QueueSettings& settings) {
    SetRate(settings.mutable_max_data_volume_rate(), 1000, minutes(10));
    settings.set_connection_idle_timeout_us(1'000'000);
  });
  World world(snapshot);
  world.executor.Advance(minutes(11));
  Stream stream(world);
  stream.size = [] { return 600; };
  stream.Run(minutes(5));
  EXPECT_EQ(stream.volume.size(), 1u);
  snapshot.set_version(2);
  world.SetPolicy(snapshot);
  stream.Announce();
  stream.Run(minutes(4));
  EXPECT_EQ(stream.volume.size(), 1u);
  stream.Run(minutes(3));
  EXPECT_EQ(stream.volume.size(), 2u);
}

TEST(WorkerCaps, SourceIpMaxSmtpOutIsOfEachSource) {
  World world(Snapshot(
      [](policy::v1::QueueSettings& settings) {
        settings.set_max_smtp_out_per_source_ip(3);
        auto* one = settings.mutable_source_ip_max_smtp_out()->add_entries();
        one->set_key("127.0.0.6/32");
        one->set_count(1);
      },
      2));
  Stream stream(world);
  stream.think = seconds(1000);
  std::map<std::string, size_t> most;
  for (int i = 0; i < 100; ++i) {
    stream.Run(milliseconds(50));
    std::map<std::string, size_t> now;
    for (const auto* remote : world.sites.open) ++now[remote->target.source_ip];
    for (const auto& [ip, count] : now) most[ip] = std::max(most[ip], count);
  }
  EXPECT_EQ(most["127.0.0.5"], 3u);
  EXPECT_EQ(most["127.0.0.6"], 1u);
  EXPECT_TRUE(stream.blocked == "max-smtp-out-per-source-ip 3 (127.0.0.5)" ||
              stream.blocked == "source-ip-max-smtp-out 1 (127.0.0.6)")
      << stream.blocked;
}

TEST(WorkerCaps, SourceIpMaxMsgRateSlowsThatSourceAlone) {
  World world(Snapshot(
      [](policy::v1::QueueSettings& settings) {
        Name(settings.mutable_source_ip_max_msg_rate(), "127.0.0.0/8", 10, seconds(1));
        Name(settings.mutable_source_ip_max_msg_rate(), "127.0.0.6/32", 1, seconds(10));
      },
      2));
  Stream stream(world);
  stream.think = milliseconds(20);
  stream.Run(minutes(2));
  const auto fast = RecipientsFrom(world, "127.0.0.5");
  const auto slow = RecipientsFrom(world, "127.0.0.6");
  ExpectNoWindowOver(fast, 10, seconds(1));
  ExpectNoWindowOver(slow, 1, seconds(10));
  EXPECT_GE(fast.size(), 900u) << "of 1,200";
  EXPECT_GE(slow.size(), 5u) << "of 12";
}

TEST(WorkerCaps, SourceIpMaxConnectRateHolds) {
  World world(Snapshot(
      [](policy::v1::QueueSettings& settings) {
        Name(settings.mutable_source_ip_max_connect_rate(), "127.0.0.5", 6, minutes(1));
        settings.set_max_msg_per_connection(1);
        settings.set_max_smtp_out_per_source_ip(1);
      },
      1));
  Stream stream(world);
  stream.Run(minutes(5));
  ExpectNoWindowOver(Connects(world), 6, minutes(1));
  EXPECT_GE(world.sites.connects.size(), 25u) << "of 30";
  EXPECT_EQ(stream.blocked, "source-ip-max-connect-rate 6/60s (127.0.0.5)");
}

TEST(WorkerCaps, SourceIpMaxDataVolumeRateHolds) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    Name(settings.mutable_source_ip_max_data_volume_rate(), "127.0.0.5/32", 100'000, minutes(1));
  }));
  Stream stream(world);
  uint64_t number = 0;
  stream.size = [&number] { return 1000 + ++number * 7919 % 30'000; };
  stream.Run(minutes(20));
  ExpectNoWindowOver(stream.volume, 100'000, minutes(1));
  EXPECT_GE(stream.sent_bytes(), 1'300'000u) << "of 1.9 million after the first minute";
}

TEST(WorkerCaps, WhatASourceHasSentIsKeptWhileTheQueueIsIdle) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    Name(settings.mutable_source_ip_max_msg_rate(), "127.0.0.5/32", 1, minutes(10));
    settings.set_connection_idle_timeout_us(1'000'000);
  }));
  world.executor.Advance(minutes(11));
  Stream stream(world);
  stream.Run(minutes(9));
  EXPECT_EQ(world.sites.sends.size(), 1u);
  EXPECT_LE(world.sites.connects.size(), 2u) << "no connection is made to wait on it";
  stream.Announce();
  stream.Run(minutes(2));
  EXPECT_EQ(world.sites.sends.size(), 2u);
}

// In clear text after a failed handshake, or behind a lookup of the receiver's TLS policy.
TEST(WorkerCaps, AConnectThatBeginsLaterNeedsATokenOfItsOwn) {
  World world(Snapshot([](policy::v1::QueueSettings& settings) {
    SetRate(settings.mutable_max_connect_rate(), 6, minutes(1));
  }));
  world.executor.Advance(minutes(1));
  world.shard().Ready(1, 1);
  world.executor.RunPosted();
  ASSERT_EQ(world.sites.open.size(), 1u);
  ConnectionHandler& handler = *world.sites.open.front()->handler;
  EXPECT_GE(handler.MayConnect(), seconds(9));
  world.executor.Advance(seconds(11));
  EXPECT_EQ(handler.MayConnect(), Duration(0));
  EXPECT_GE(handler.MayConnect(), seconds(9)) << "it was charged";
}

}  // namespace
}  // namespace sluice::delivery
