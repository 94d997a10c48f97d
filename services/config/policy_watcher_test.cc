// Proves that a service has the newest snapshot, or its last one, and never a damaged one.
#include "services/config/policy_watcher.h"

#include <sys/stat.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "services/base/rpc/inproc_stream.h"
#include "services/base/testing/manual_executor.h"
#include "services/base/testing/temp_folder.h"
#include "services/config/durable_file.h"
#include "services/config/snapshot_delta.h"
#include "services/config/snapshot_hash.h"

namespace sluice::config {
namespace {

using policy::v1::WatchPolicyRequest;
using policy::v1::WatchPolicyResponse;
using std::chrono::milliseconds;
using std::chrono::seconds;

// A policy service that says what the test wants.
class FakePolicy final : public StreamService<WatchPolicyRequest, WatchPolicyResponse>,
                         public Stream<WatchPolicyResponse, WatchPolicyRequest>::Handler {
 public:
  explicit FakePolicy(Executor& executor) : executor_(executor) {}
  Executor& executor() override { return executor_; }
  void OnStream(std::shared_ptr<ServerStream> stream) override {
    ++opened;
    if (down) return stream->Close(absl::UnavailableError("down"));
    this->stream = std::move(stream);
    this->stream->Start(this);
  }
  void OnFrame(Frame<WatchPolicyRequest> frame) override { got.push_back(frame.header); }
  void OnClosed(absl::Status) override { stream.reset(); }
  void Say(const policy::v1::SnapshotDelta& delta, size_t chunk_bytes = 1 << 20) {
    const auto chunks = SplitDelta(delta, chunk_bytes);
    for (size_t i = 0; i < chunks.size(); ++i) {
      Frame<WatchPolicyResponse> frame;
      *frame.header.mutable_delta() = chunks[i];
      frame.header.set_last_chunk(i + 1 == chunks.size());
      stream->Send(std::move(frame));
    }
  }

  bool down = false;
  int opened = 0;
  std::vector<WatchPolicyRequest> got;
  std::shared_ptr<ServerStream> stream;

 private:
  Executor& executor_;
};

policy::v1::PolicySnapshot Snapshot(uint64_t version, const std::string& cidr = "10.0.0.0/8") {
  policy::v1::PolicySnapshot snapshot;
  snapshot.set_version(version);
  policy::v1::SectionContent content;
  content.mutable_client()->set_cidr(cidr);
  content.mutable_client()->mutable_settings()->set_max_smtp_in(static_cast<uint32_t>(version));
  *snapshot.add_sections() = MakeSection("client/x", std::move(content));
  return snapshot;
}

class PolicyWatcherTest : public ::testing::Test {
 protected:
  std::unique_ptr<PolicyWatcher> Make(
      absl::AnyInvocable<void(std::shared_ptr<const Owners>)> on_owners = nullptr) {
    PolicyWatcherOptions options;
    options.hello.set_service("queue");
    options.hello.set_instance("shard-0");
    options.snapshot_file = file_;
    auto watcher = std::make_unique<PolicyWatcher>(
        executor_, client_, options, [this](auto view) { views_.push_back(std::move(view)); });
    if (on_owners != nullptr) watcher->set_on_owners(std::move(on_owners));
    watcher->Start();
    executor_.RunPosted();
    return watcher;
  }
  void Say(const policy::v1::SnapshotDelta& delta, size_t chunk_bytes = 1 << 20) {
    policy_.Say(delta, chunk_bytes);
    executor_.RunPosted();
  }

  void SayOwners(uint64_t epoch) {
    Frame<WatchPolicyResponse> frame;
    frame.header.mutable_owners()->set_epoch(epoch);
    policy_.stream->Send(std::move(frame));
    executor_.RunPosted();
  }
  // Of the table of owners in the file; 0: there is no file.
  uint64_t EpochOnDisk() const {
    policy::v1::PolicySnapshot snapshot;
    const auto bytes = ReadWholeFile(file_);
    return bytes.ok() && snapshot.ParseFromString(*bytes) ? snapshot.owners().epoch() : 0;
  }

  testing::ManualExecutor executor_;
  FakePolicy policy_{executor_};
  InprocStreamClient<WatchPolicyRequest, WatchPolicyResponse> client_{policy_};
  const sluice::testing::TempFolder temp_{"watcher"};
  const std::string file_ = temp_.File("snapshot");
  std::vector<std::shared_ptr<const PolicyView>> views_;
};

TEST_F(PolicyWatcherTest, SaysHelloTakesDeltasAndAcknowledges) {
  auto watcher = Make();
  ASSERT_EQ(policy_.got.size(), 1u);
  EXPECT_EQ(policy_.got[0].hello().instance(), "shard-0");
  EXPECT_EQ(policy_.got[0].hello().have_version(), 0u);
  Say(MakeDelta({}, Snapshot(3)));
  ASSERT_EQ(views_.size(), 1u);
  EXPECT_EQ(views_[0]->ForClient("10.1.1.1")->max_smtp_in(), 3u);
  Say(MakeDelta(Snapshot(3), Snapshot(4)), 1);
  ASSERT_EQ(views_.size(), 2u);
  EXPECT_EQ(views_[1]->version(), 4u);
  ASSERT_EQ(policy_.got.size(), 3u);
  EXPECT_EQ(policy_.got[2].ack().version(), 4u);
  EXPECT_EQ(policy_.got[2].ack().error(), "");
}

// Whoever keeps to a table tells others so: after a power cut it must not know an older one.
TEST_F(PolicyWatcherTest, ATableOfOwnersIsOnTheDiskBeforeItIsUsed) {
  std::vector<std::pair<uint64_t, uint64_t>> used;  // epoch, that on the disk
  auto watcher = Make([&](std::shared_ptr<const Owners> owners) {
    used.emplace_back(owners->epoch(), EpochOnDisk());
  });
  Say(MakeDelta({}, Snapshot(3)));
  SayOwners(5);
  SayOwners(4);  // an older one is not taken
  SayOwners(6);
  EXPECT_EQ(used, (std::vector<std::pair<uint64_t, uint64_t>>{{5, 5}, {6, 6}}));
  // The disk is full: rather no file than an old one.
  ASSERT_EQ(mkdir((file_ + ".tmp").c_str(), 0700), 0);
  SayOwners(7);
  ASSERT_EQ(used.size(), 3u);
  EXPECT_EQ(used[2], std::pair(uint64_t{7}, uint64_t{0}));
  // Nor can the old one be removed: the table before stays in force.
  ASSERT_EQ(mkdir(file_.c_str(), 0700), 0);
  SayOwners(8);
  EXPECT_EQ(used.size(), 3u);
  EXPECT_NE(watcher->last_error(), "");
  rmdir(file_.c_str());
  rmdir((file_ + ".tmp").c_str());
  SayOwners(9);
  EXPECT_EQ(used.back(), std::pair(uint64_t{9}, uint64_t{9}));
}

TEST_F(PolicyWatcherTest, StartsFromTheFileAndSaysWhatItHas) {
  {
    auto watcher = Make();
    Say(MakeDelta({}, Snapshot(3)));
  }
  executor_.RunPosted();
  policy_.down = true;
  policy_.got.clear();
  auto watcher = Make();
  ASSERT_EQ(views_.size(), 2u);
  EXPECT_EQ(views_[1]->version(), 3u);
  EXPECT_FALSE(watcher->connected());
  policy_.down = false;
  executor_.Advance(seconds(1));
  ASSERT_EQ(policy_.got.size(), 1u);
  EXPECT_EQ(policy_.got[0].hello().have_version(), 3u);
  EXPECT_EQ(policy_.got[0].hello().have_sections_hash(), SectionsHash(Snapshot(3)));
  // Nothing new: an acknowledgement, and no second view.
  Say(MakeDelta(Snapshot(3), Snapshot(3)));
  EXPECT_EQ(views_.size(), 2u);
  EXPECT_EQ(policy_.got.back().ack().version(), 3u);
  EXPECT_TRUE(watcher->connected());
}

TEST_F(PolicyWatcherTest, ADamagedFileIsAsIfAbsent) {
  auto snapshot = Snapshot(3);
  snapshot.mutable_sections(0)->set_hash(1);
  ASSERT_TRUE(ReplaceFile(file_, snapshot.SerializeAsString(), false).ok());
  auto watcher = Make();
  EXPECT_TRUE(views_.empty());
  EXPECT_NE(watcher->last_error(), "");
  EXPECT_EQ(policy_.got[0].hello().have_version(), 0u);
}

TEST_F(PolicyWatcherTest, ReconnectsMoreAndMoreSlowly) {
  policy_.down = true;
  auto watcher = Make();
  EXPECT_EQ(policy_.opened, 1);
  executor_.Advance(milliseconds(110));
  EXPECT_EQ(policy_.opened, 2);
  executor_.Advance(milliseconds(210));
  EXPECT_EQ(policy_.opened, 3);
  executor_.Advance(seconds(60));
  EXPECT_LT(policy_.opened, 21);
  EXPECT_GT(policy_.opened, 14);
}

TEST_F(PolicyWatcherTest, WhatCannotBeUsedIsRefusedAndTheOldOneStays) {
  auto watcher = Make();
  Say(MakeDelta({}, Snapshot(1)));
  Say(MakeDelta(Snapshot(1), Snapshot(2, "nonsense")));
  EXPECT_EQ(views_.size(), 1u);
  EXPECT_EQ(watcher->version(), 1u);
  EXPECT_NE(policy_.got.back().ack().error(), "");
  // From a version that the watcher does not have: it connects anew and asks for everything.
  Say(MakeDelta(Snapshot(2, "nonsense"), Snapshot(3)));
  EXPECT_EQ(views_.size(), 1u);
  executor_.Advance(seconds(1));
  EXPECT_EQ(policy_.got.back().hello().have_version(), 0u);
  Say(MakeDelta({}, Snapshot(3)));
  ASSERT_EQ(views_.size(), 2u);
  EXPECT_EQ(watcher->version(), 3u);
  EXPECT_EQ(watcher->last_error(), "");
}

TEST_F(PolicyWatcherTest, AReportIsSentAgainAfterEachConnect) {
  auto watcher = Make();
  policy::v1::ServiceReport report;
  report.add_owned_source_ips("127.0.0.2");
  watcher->SetReport(report);
  executor_.RunPosted();
  EXPECT_EQ(policy_.got.back().report().owned_source_ips(0), "127.0.0.2");
  policy_.stream->Close(absl::UnavailableError("restart"));
  policy_.got.clear();
  executor_.Advance(seconds(1));
  ASSERT_EQ(policy_.got.size(), 2u);
  EXPECT_TRUE(policy_.got[1].has_report());
}

}  // namespace
}  // namespace sluice::config
