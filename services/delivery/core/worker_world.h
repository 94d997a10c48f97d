// A worker between fakes, for its tests.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "services/config/policy_view.h"
#include "services/delivery/core/worker_fakes.h"

namespace sluice::delivery::testing {

// Virtual MTAs of these names, without sources; `adjust` makes of each what it is.
inline policy::v1::PolicySnapshot VirtualMtas(
    std::initializer_list<const char*> names,
    const std::function<void(policy::v1::VirtualMtaSection&)>& adjust) {
  policy::v1::PolicySnapshot snapshot;
  snapshot.set_version(1);
  for (const char* name : names) {
    policy::v1::Section* section = snapshot.add_sections();
    section->set_name(std::string("vmta/") + name);
    auto* vmta = section->mutable_content()->mutable_virtual_mta();
    vmta->set_name(name);
    adjust(*vmta);
  }
  return snapshot;
}

// A worker for the virtual MTA "v" and two hosts, mx1 before mx2.
struct World {
  // `adjust` changes v's section; `source`, the settings of its source IP.
  explicit World(
      const std::function<void(policy::v1::VirtualMtaSection&)>& adjust = [](auto&) {},
      const std::function<void(policy::v1::SourceSettings&)>& source = nullptr,
      size_t shard_count = 1) {
    policy::v1::PolicySnapshot snapshot;
    snapshot.set_version(1);
    policy::v1::Section* vmta = snapshot.add_sections();
    vmta->set_name("vmta/v");
    auto* section = vmta->mutable_content()->mutable_virtual_mta();
    section->set_name("v");
    auto* host = section->add_source_hosts();
    host->set_ip("127.0.0.5");
    host->set_host_name("out5.example");
    adjust(*section);
    if (source != nullptr) {
      policy::v1::Section* settings = snapshot.add_sections();
      settings->set_name("source/127.0.0.5");
      auto* content = settings->mutable_content()->mutable_source();
      content->set_ip("127.0.0.5");
      source(*content->mutable_settings());
    }
    Begin(snapshot, shard_count, false);
  }
  FakeShard& shard() { return *shards[0]; }
  queue::v1::DispatchRequest Take() {
    executor.RunPosted();
    return shard().Take();
  }
  // As above, with a whole snapshot: for what needs several virtual MTAs, pools or domains.
  explicit World(const policy::v1::PolicySnapshot& snapshot, bool only_listed = false,
                 size_t shard_count = 1) {
    Begin(snapshot, shard_count, only_listed);
  }
  void SetPolicy(const policy::v1::PolicySnapshot& snapshot) {
    auto view = config::PolicyView::Build(snapshot);
    ASSERT_TRUE(view.ok()) << view.status().ToString();
    worker->SetPolicy(*view);
  }
  // Greets every connection that has not been, once.
  void GreetAll() {
    for (size_t i = 0; i < sites.open.size(); ++i) {
      if (std::exchange(sites.open[i]->greeted, true)) continue;
      sites.open[i]->handler->OnReady();
    }
    executor.RunPosted();
  }
  // Announces mail and has the first connection ready.
  FakeSites::Remote& Connected(uint32_t due = 1) {
    shard().Ready(1, due);
    executor.RunPosted();
    EXPECT_FALSE(sites.open.empty());
    FakeSites::Remote& remote = *sites.open.front();
    remote.greeted = true;
    remote.handler->OnReady();
    executor.RunPosted();
    return remote;
  }

  VolumeLedger* ledger = nullptr;  // from the next life on
  void Begin(const policy::v1::PolicySnapshot& snapshot, size_t shard_count, bool only_listed) {
    resolver.answer.outcome = MxOutcome::kFound;
    resolver.answer.hosts = {{"mx1", 10, {"192.0.2.1"}}, {"mx2", 20, {"192.0.2.2"}}};
    resolver.answer.from_dns = false;
    resolver.answer.site = "mx1,mx2";
    resolver.answer.expires = executor.clock().Now() + std::chrono::hours(1);
    auto view = config::PolicyView::Build(snapshot);
    EXPECT_TRUE(view.ok()) << view.status().ToString();

    options.name = "w1";
    options.incarnation = 7;
    options.only_listed = only_listed;
    options.addresses = {"127.0.0.5"};
    for (size_t i = 0; i < shard_count; ++i) shards.push_back(std::make_unique<FakeShard>());
    first_policy = *view;
    Restart(nullptr, false);
  }
  // Another life of the worker, with the first policy. `past`: what it left, or nullptr.
  void Restart(const v1::VolumeRecords* past, bool follows_owners) {
    std::vector<ShardAddress> addresses;
    for (size_t i = 0; i < shards.size(); ++i) {
      addresses.push_back({"s" + std::to_string(i), shards[i].get(), nullptr});
    }
    options.follows_owners = follows_owners;
    options.log = &log;
    worker.reset();
    worker = std::make_unique<Worker>(options, executor, resolver, sites, std::move(addresses));
    if (past != nullptr) worker->TakeOverVolumes(*past);
    worker->set_volume_ledger(ledger);
    worker->SetPolicy(first_policy);
    worker->Start();
    executor.RunPosted();
    for (const auto& each : shards) each->Hello(60);
  }

  LogOptions Keep() {
    LogOptions options;
    options.sink = [this](std::string_view line) { logged.append(line).append("\n"); };
    return options;
  }

  sluice::testing::ManualExecutor executor;
  std::string logged;
  Log log{Keep(), executor.clock()};
  FakeSites sites{executor};
  FakeResolver resolver;
  std::vector<std::unique_ptr<FakeShard>> shards;
  WorkerOptions options;
  std::shared_ptr<const config::PolicyView> first_policy;
  std::unique_ptr<Worker> worker;
};

inline uint32_t Groups(const queue::v1::DispatchRequest& request) {
  uint32_t sum = 0;
  for (const auto& credit : request.credits()) sum += credit.groups();
  return sum;
}

}  // namespace sluice::delivery::testing
