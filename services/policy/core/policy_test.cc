// Proves that services get the snapshot that the files say, and that a bad file or damaged state
// changes nothing.
#include "services/policy/core/policy.h"

#include <fstream>
#include <optional>

#include "gtest/gtest.h"
#include "services/base/rpc/inproc_stream.h"
#include "services/base/testing/manual_executor.h"
#include "services/base/testing/temp_folder.h"
#include "services/config/files.h"
#include "services/config/policy_watcher.h"

namespace sluice::policy {
namespace {

using std::chrono::seconds;

using WatchService = StreamService<v1::WatchPolicyRequest, v1::WatchPolicyResponse>;

// Sees what the policy service sends.
class CountingService final : public WatchService {
 public:
  CountingService(WatchService& service, size_t* bytes) : service_(service), bytes_(bytes) {}
  Executor& executor() override { return service_.executor(); }
  void OnStream(std::shared_ptr<ServerStream> stream) override {
    service_.OnStream(std::make_shared<Counting>(std::move(stream), bytes_));
  }

 private:
  class Counting final : public ServerStream {
   public:
    Counting(std::shared_ptr<ServerStream> stream, size_t* bytes)
        : stream_(std::move(stream)), bytes_(bytes) {}
    void Start(Handler* handler) override { stream_->Start(handler); }
    bool Send(Frame<v1::WatchPolicyResponse> frame) override {
      *bytes_ += frame.header.ByteSizeLong();
      return stream_->Send(std::move(frame));
    }
    void Close(absl::Status status) override { stream_->Close(std::move(status)); }
    void Cancel() override { stream_->Cancel(); }
    size_t queued_bytes() const override { return stream_->queued_bytes(); }
    std::string peer() const override { return stream_->peer(); }

   private:
    const std::shared_ptr<ServerStream> stream_;
    size_t* const bytes_;
  };

  WatchService& service_;
  size_t* const bytes_;
};

class PolicyTest : public ::testing::Test {
 protected:
  PolicyTest() { Write("host-name one.test\n<domain a.test>\nmax-smtp-out 1\n</domain>\n"); }
  ~PolicyTest() override {
    // Each end of a stream goes before its peer's tasks do.
    watcher_.reset();
    executor_.RunPosted();
    policy_.reset();
    executor_.RunPosted();
  }
  void Write(const std::string& text) { std::ofstream(folder_ + "/a.conf") << text; }
  LoadResult Start() {
    policy_.emplace(executor_, PolicyOptions{folder_, {folder_ + "/a.conf"}}, files_);
    LoadResult result = policy_->Load();
    executor_.RunPosted();
    return result;
  }
  // `started_with`: what the service says that it started with.
  void Watch(const std::string& instance = "q0", const std::string& service = "queue",
             const v1::GlobalSettings* started_with = nullptr) {
    counting_.emplace(policy_->watch(), &sent_bytes_);
    client_.emplace(*counting_);
    config::PolicyWatcherOptions options;
    options.hello.set_service(service);
    options.hello.set_instance(instance);
    if (started_with != nullptr) *options.hello.mutable_started_with() = *started_with;
    options.snapshot_file = folder_ + "/watcher";
    watcher_.emplace(executor_, *client_, options,
                     [this](auto view) { views_.push_back(std::move(view)); });
    watcher_->Start();
    executor_.RunPosted();
  }
  static v1::ControlEntry Pause(const std::string& pattern, int64_t until_us = 0) {
    v1::ControlEntry entry;
    entry.set_kind(v1::ControlEntry::KIND_PAUSE);
    entry.set_queue_pattern(pattern);
    entry.set_until_us(until_us);
    return entry;
  }

  testing::ManualExecutor executor_;
  config::DiskFiles files_;
  const sluice::testing::TempFolder temp_{"policy"};
  const std::string folder_ = temp_.path();
  std::optional<Policy> policy_;
  size_t sent_bytes_ = 0;
  std::optional<CountingService> counting_;
  std::optional<InprocStreamClient<v1::WatchPolicyRequest, v1::WatchPolicyResponse>> client_;
  std::optional<config::PolicyWatcher> watcher_;
  std::vector<std::shared_ptr<const config::PolicyView>> views_;
};

// Drawn once: the same for every service, through reloads, pauses and restarts, and another where
// another cluster begins.
TEST_F(PolicyTest, TheAuthSecretIsForGood) {
  ASSERT_TRUE(Start().ok);
  Watch("mx-1", "ingest");
  ASSERT_FALSE(views_.empty());
  const std::string secret = views_.back()->auth_secret();
  EXPECT_EQ(secret.size(), 32u);
  ASSERT_TRUE(policy_->AddControl(Pause("*/*")).ok());
  Write("host-name two.test\n");
  EXPECT_TRUE(policy_->Reload().changed);
  EXPECT_FALSE(policy_->Reload().changed);
  EXPECT_EQ(policy_->RemoveControls([](const auto&) { return true; }).value(), 1u);
  executor_.RunPosted();
  EXPECT_EQ(views_.back()->global().host_name(), "two.test");
  EXPECT_EQ(views_.back()->auth_secret(), secret);
  watcher_.reset();
  policy_.reset();
  executor_.RunPosted();
  ASSERT_TRUE(Start().ok);
  Watch("mx-2", "ingest");
  EXPECT_EQ(views_.back()->auth_secret(), secret);
  const sluice::testing::TempFolder another{"policy2"};
  Policy other(executor_, PolicyOptions{another.path(), {folder_ + "/a.conf"}}, files_);
  ASSERT_TRUE(other.Load().ok);
  const auto view = config::PolicyView::Build(other.snapshot());
  ASSERT_TRUE(view.ok());
  EXPECT_EQ((*view)->auth_secret().size(), 32u);
  EXPECT_NE((*view)->auth_secret(), secret);
  executor_.RunPosted();
}

// Listeners are opened once: who reloads is told that a new one is not there yet, again and again,
// and no more when the files say again what is open.
TEST_F(PolicyTest, AReloadSaysWhatTakesARestart) {
  const std::string files = "host-name one.test\nsmtp-listener 192.0.2.1:25\n";
  Write(files);
  ASSERT_TRUE(Start().ok);
  v1::GlobalSettings started_with;
  started_with.mutable_smtp_listeners()->add_values("192.0.2.1:25");
  Watch("mx-1", "ingest", &started_with);
  Write("host-name two.test\nsmtp-listener 192.0.2.1:25\n");
  EXPECT_TRUE(policy_->Reload().diagnostics.empty());
  Write("host-name two.test\nsmtp-listener 192.0.2.1:26\nname-server 192.0.2.53\n");
  for (const bool changed : {true, false}) {
    const LoadResult result = policy_->Reload();
    EXPECT_TRUE(result.ok);
    EXPECT_EQ(result.changed, changed);
    ASSERT_EQ(result.diagnostics.size(), 1u) << "name servers are another service's";
    EXPECT_EQ(result.diagnostics[0].message,
              "smtp-listener is not what holds: that takes a restart of ingest mx-1");
    executor_.RunPosted();
  }
  Write(files);
  EXPECT_TRUE(policy_->Reload().diagnostics.empty());
  // After a restart it is what the files said.
  Write("host-name two.test\nsmtp-listener 192.0.2.1:26\n");
  ASSERT_TRUE(policy_->Reload().ok);
  watcher_.reset();
  executor_.RunPosted();
  EXPECT_TRUE(policy_->Reload().diagnostics.empty()) << "what is gone holds on to nothing";
  started_with.mutable_smtp_listeners()->set_values(0, "192.0.2.1:26");
  Watch("mx-1", "ingest", &started_with);
  EXPECT_TRUE(policy_->Reload().diagnostics.empty());
}

TEST_F(PolicyTest, AServiceGetsTheSnapshotAndItsChanges) {
  ASSERT_TRUE(Start().ok);
  Watch();
  ASSERT_EQ(views_.size(), 1u);
  EXPECT_EQ(views_[0]->global().host_name(), "one.test");
  Write("host-name two.test\n<domain a.test>\nmax-smtp-out 1\n</domain>\n");
  const LoadResult result = policy_->Reload();
  EXPECT_TRUE(result.ok && result.changed);
  // The virtual MTA "default" has no address, so the host name is nowhere but in "global".
  EXPECT_EQ(result.sections_changed, 1u);
  executor_.RunPosted();
  ASSERT_EQ(views_.size(), 2u);
  EXPECT_EQ(views_[1]->global().host_name(), "two.test");
  EXPECT_EQ(views_[1]->ForQueue("a.test", "default", "")->max_smtp_out(), 1u);
  const auto states = policy_->watchers().states();
  ASSERT_EQ(states.size(), 1u);
  EXPECT_EQ(states[0].instance, "q0");
  EXPECT_EQ(states[0].acked_version, 2u);
  EXPECT_TRUE(states[0].connected);
}

TEST_F(PolicyTest, ABadFileChangesNothing) {
  ASSERT_TRUE(Start().ok);
  Watch();
  Write("host-name two.test\nno-such-directive yes\n");
  const LoadResult result = policy_->Reload();
  EXPECT_FALSE(result.ok);
  EXPECT_NE(config::Render(result.diagnostics).find("a.conf:2:1: error: "), std::string::npos);
  executor_.RunPosted();
  EXPECT_EQ(policy_->version(), 1u);
  EXPECT_EQ(views_.size(), 1u);
}

TEST_F(PolicyTest, WhatRestrictsIsGoneWithoutOnlyWhereTheOperatorSaysSo) {
  Write("adaptive-max-smtp-out yes\n<virtual-mta v>\n</virtual-mta>\n");
  EXPECT_FALSE(Start().ok);
  PolicyOptions options{folder_, {folder_ + "/a.conf"}};
  options.accept_unsupported = {"adaptive-max-smtp-out"};
  policy_.emplace(executor_, options, files_);
  EXPECT_TRUE(policy_->Load().ok);
  executor_.RunPosted();
  // A thorough look says that there is no source address.
  const size_t warnings = policy_->Check({}).diagnostics.size();
  EXPECT_EQ(policy_->Check({}, true).diagnostics.size(), warnings + 1);
}

TEST_F(PolicyTest, ABadFileAtStartIsNotServed) {
  Write("no-such-directive yes\n");
  EXPECT_FALSE(Start().ok);
  EXPECT_EQ(policy_->version(), 0u);
}

TEST_F(PolicyTest, UnchangedFilesKeepTheVersionAlsoAfterARestart) {
  ASSERT_TRUE(Start().ok);
  EXPECT_FALSE(policy_->Reload().changed);
  EXPECT_EQ(policy_->version(), 1u);
  policy_.reset();
  const LoadResult again = Start();
  EXPECT_TRUE(again.ok);
  EXPECT_FALSE(again.changed);
  EXPECT_EQ(policy_->version(), 1u);
}

TEST_F(PolicyTest, PausesReachServicesAndOutliveTheProcess) {
  ASSERT_TRUE(Start().ok);
  Watch();
  const auto entry = policy_->AddControl(Pause("a.test/*"));
  ASSERT_TRUE(entry.ok());
  executor_.RunPosted();
  ASSERT_EQ(views_.size(), 2u);
  EXPECT_NE(views_[1]->FindPause("a.test/default", ""), nullptr);
  // The same again replaces; a reload keeps it.
  EXPECT_EQ(policy_->AddControl(Pause("a.test/*"))->id(), entry->id());
  EXPECT_EQ(policy_->controls().size(), 1u);
  Write("host-name three.test\n");
  EXPECT_TRUE(policy_->Reload().ok);
  watcher_.reset();
  policy_.reset();
  executor_.RunPosted();
  ASSERT_TRUE(Start().ok);
  ASSERT_EQ(policy_->controls().size(), 1u);
  Watch();
  EXPECT_NE(views_.back()->FindPause("a.test/default", ""), nullptr);
  EXPECT_EQ(*policy_->RemoveControls([](const auto&) { return true; }), 1u);
  executor_.RunPosted();
  EXPECT_EQ(views_.back()->FindPause("a.test/default", ""), nullptr);
}

TEST_F(PolicyTest, PausesEndAtTheirTime) {
  ASSERT_TRUE(Start().ok);
  Watch();
  const int64_t now = ToUnixMicros(executor_.clock().WallNow());
  EXPECT_FALSE(policy_->AddControl(Pause("a/*", now - 1)).ok());
  EXPECT_FALSE(policy_->AddControl(Pause("a/*", INT64_MAX)).ok());
  EXPECT_FALSE(policy_->AddControl(Pause("")).ok());
  ASSERT_TRUE(policy_->AddControl(Pause("a/*", now + 90'000'000)).ok());
  ASSERT_TRUE(policy_->AddControl(Pause("b/*", now + 500'000'000)).ok());
  executor_.Advance(seconds(85));
  EXPECT_EQ(policy_->controls().size(), 2u);
  executor_.Advance(seconds(10));
  EXPECT_EQ(policy_->controls().size(), 1u);
  EXPECT_EQ(views_.back()->FindPause("a/x", ""), nullptr);
  executor_.Advance(seconds(500));
  EXPECT_TRUE(policy_->controls().empty());
}

TEST_F(PolicyTest, ADamagedStateIsNamedNotForgotten) {
  ASSERT_TRUE(Start().ok);
  policy_.reset();
  std::ofstream(folder_ + "/policy-snapshot.pb", std::ios::app) << "garbage";
  const LoadResult result = Start();
  EXPECT_FALSE(result.ok);
  EXPECT_NE(config::Render(result.diagnostics).find("damaged"), std::string::npos);
}

TEST_F(PolicyTest, LostDataDoesNotMakeVersionsGoBack) {
  ASSERT_TRUE(Start().ok);
  Watch();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(policy_->AddControl(Pause("a" + std::to_string(i))).ok());
  }
  executor_.RunPosted();
  EXPECT_EQ(watcher_->version(), 6u);
  watcher_.reset();
  policy_.reset();
  executor_.RunPosted();
  ASSERT_EQ(unlink((folder_ + "/policy-snapshot.pb").c_str()), 0);
  ASSERT_TRUE(Start().ok);
  EXPECT_EQ(policy_->version(), 1u);
  Watch();
  EXPECT_EQ(policy_->version(), 7u);
  EXPECT_EQ(watcher_->version(), 7u);
  EXPECT_EQ(views_.back()->FindPause("a1", ""), nullptr);
}

TEST_F(PolicyTest, WhoWaitsForAcknowledgementsIsCalledOnceAllHaveOrTimeIsUp) {
  ASSERT_TRUE(Start().ok);
  Watch();
  int called = 0;
  policy_->watchers().WhenAcknowledged(1, seconds(5), [&] { ++called; });
  EXPECT_EQ(called, 1);
  ASSERT_TRUE(policy_->AddControl(Pause("a")).ok());
  policy_->watchers().WhenAcknowledged(2, seconds(5), [&] { ++called; });
  EXPECT_EQ(called, 1);
  executor_.RunPosted();
  EXPECT_EQ(called, 2);
  policy_->watchers().WhenAcknowledged(99, seconds(5), [&] { ++called; });
  executor_.Advance(seconds(6));
  EXPECT_EQ(called, 3);
  watcher_.reset();
  executor_.RunPosted();
  EXPECT_FALSE(policy_->watchers().states()[0].connected);
}

// With 50,000 <domain> sections, one that changes, one that comes and one that goes send a service
// less than 10 KiB.
TEST_F(PolicyTest, AFewDomainsOfManySendLittle) {
  const auto text = [](int first, int last, int connections_of_the_last) {
    std::string lines;
    for (int i = first; i <= last; ++i) {
      const int connections = i == last ? connections_of_the_last : i % 50 + 1;
      lines += "<domain d" + std::to_string(i) + ".example.test>\n  max-smtp-out " +
               std::to_string(connections) + "\n  retry-after 10m,30m,1h\n</domain>\n";
    }
    return lines;
  };
  Write(text(1, 50'000, 7));
  ASSERT_TRUE(Start().ok);
  Watch();
  EXPECT_GT(sent_bytes_, 1'000'000u);
  sent_bytes_ = 0;
  Write(text(1, 50'000, 8));
  EXPECT_EQ(policy_->Reload().sections_changed, 1u);
  executor_.RunPosted();
  EXPECT_EQ(views_.back()->ForQueue("d50000.example.test", "default", "")->max_smtp_out(), 8u);
  EXPECT_GT(sent_bytes_, 0u);
  EXPECT_LT(sent_bytes_, 10'240u);
  sent_bytes_ = 0;
  Write(text(2, 50'001, 9));
  // The first goes, the last comes, and the one that was last is as the others now.
  EXPECT_EQ(policy_->Reload().sections_changed, 3u);
  executor_.RunPosted();
  EXPECT_EQ(views_.back()->ForQueue("d50001.example.test", "default", "")->max_smtp_out(), 9u);
  EXPECT_EQ(views_.back()->ForQueue("d1.example.test", "default", "")->max_smtp_out(), 20u);
  EXPECT_LT(sent_bytes_, 10'240u);
}

}  // namespace
}  // namespace sluice::policy
