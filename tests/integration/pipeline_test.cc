// Mail through real parts in one process: SMTP in, RocksDB, DNS, SMTP out to the sink.
#include <gtest/gtest.h>

#include <thread>

#include "services/base/rpc/inproc_stream.h"
#include "services/base/testing/temp_folder.h"
#include "services/node/delivery_part.h"
#include "services/node/ingest_part.h"
#include "services/node/queue_part.h"
#include "tests/bench/loadgen/smtp_load.h"
#include "tools/sink/sink.h"

namespace sluice {
namespace {

class PipelineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    sink::SinkOptions sink;
    sink.listen = {*Endpoint::Parse("127.0.0.1:0")};
    sink.dns = *Endpoint::Parse("127.0.0.1:0");
    auto opened = sink::Sink::Open(loop_, sink_state_, sink);
    ASSERT_TRUE(opened.ok()) << opened.status();
    sink_ = *std::move(opened);

    options_.data_dir = folder_;
    options_.instance = "test";
    options_.smtp_listen = {"127.0.0.1:0"};
    options_.resolvers = {sink_->dns_address()->ToString()};
    options_.ballast_bytes = 0;
    options_.ingest_threads = 1;

    policy::v1::PolicySnapshot snapshot;
    snapshot.set_version(1);
    auto* domain = snapshot.add_sections()->mutable_content()->mutable_domain();
    domain->set_pattern("*");
    domain->mutable_settings()->set_allow_private_destinations(true);
    domain->mutable_settings()->set_default_smtp_port(sink_->smtp_addresses()[0].port);
    domain->mutable_settings()->mutable_retry_after()->add_us(200'000);
    domain->mutable_settings()->set_retry_recipients_after_us(100'000);
    auto* vmta = snapshot.add_sections()->mutable_content()->mutable_virtual_mta();
    vmta->set_name("default");
    auto* source = vmta->add_source_hosts();
    source->set_ip("127.0.0.7");
    source->set_host_name("seven.example");
    policy_ = *config::PolicyView::Build(snapshot);
    StartServices();
  }

  void StartServices() {
    queue_ = std::make_unique<node::QueuePart>(options_);
    const absl::Status status =
        queue_->Start(folder_ + "/spool", [](const absl::Status& s) { FAIL() << s; });
    ASSERT_TRUE(status.ok()) << status;
    queue_->SetPolicy(policy_);
    auto& shard = queue_->shard();
    enqueue_ = std::make_unique<decltype(enqueue_)::element_type>(shard.enqueue());
    upload_ = std::make_unique<decltype(upload_)::element_type>(shard.upload());
    dispatch_ = std::make_unique<decltype(dispatch_)::element_type>(shard.dispatch());
    fetch_ = std::make_unique<decltype(fetch_)::element_type>(shard.fetch_body());
    ingest_ = std::make_unique<node::IngestPart>(
        options_,
        std::vector<ingest::ShardEndpoint>{{options_.shard, enqueue_.get(), upload_.get()}});
    ASSERT_TRUE(ingest_->Start(policy_).ok());
    // Until its streams to the shard are up it answers 451.
    ASSERT_TRUE(Until([this] { return ingest_->ready(); }));
    delivery_ = std::make_unique<node::DeliveryPart>(
        options_,
        std::vector<delivery::ShardAddress>{{options_.shard, dispatch_.get(), fetch_.get()}});
    ASSERT_TRUE(delivery_->Start(policy_).ok());
    // Before its shard has said that it takes messages, a client is told to come again.
    ASSERT_TRUE(Until([this] { return ingest_->ready(); }));
  }
  void StopServices() {
    if (ingest_ != nullptr) ingest_->Stop();
    if (delivery_ != nullptr) delivery_->Stop();
    if (queue_ != nullptr) queue_->Stop();
    ingest_.reset();
    delivery_.reset();
    queue_.reset();
  }
  void TearDown() override {
    StopServices();
    sink_.reset();
  }
  template <class Condition>
  bool Until(Condition condition, Duration limit = std::chrono::seconds(60)) {
    const MonotonicTime end = loop_.clock().Now() + limit;
    while (!condition() && loop_.clock().Now() < end) loop_.RunOnce(std::chrono::milliseconds(10));
    return condition();
  }
  bench::LoadResult Load(const bench::LoadOptions& load, uint32_t sessions = 20) {
    bench::SmtpLoadOptions smtp;
    smtp.targets = {*Endpoint::Parse(ingest_->addresses()[0])};
    smtp.sessions = sessions;
    smtp.pipelining = true;
    bool finished = false;
    bench::SmtpLoad generator(loop_, load, smtp, [&finished] { finished = true; });
    generator.Start();
    EXPECT_TRUE(Until([&finished] { return finished; }, std::chrono::minutes(3)));
    return generator.result();
  }
  queue::v1::GetShardStatusResponse Status() {
    return queue_->thread().Call([this] {
      queue::v1::GetShardStatusResponse status;
      queue_->shard().GetShardStatus({}, [&status](auto response) { status = *response; });
      return status;
    });
  }

  const testing::TempFolder temp_{"pipeline"};
  const std::string folder_ = temp_.path();
  EventLoop loop_;
  sink::SinkState sink_state_{Clock::Real(), 1};
  std::unique_ptr<sink::Sink> sink_;
  node::Options options_;
  std::shared_ptr<const config::PolicyView> policy_;
  std::unique_ptr<node::QueuePart> queue_;
  std::unique_ptr<InprocStreamClient<queue::v1::EnqueueRequest, queue::v1::EnqueueResponse>>
      enqueue_;
  std::unique_ptr<InprocStreamClient<queue::v1::UploadRequest, queue::v1::UploadResponse>> upload_;
  std::unique_ptr<InprocStreamClient<queue::v1::DispatchRequest, queue::v1::DispatchResponse>>
      dispatch_;
  std::unique_ptr<InprocStreamClient<queue::v1::FetchBodyRequest, queue::v1::FetchBodyResponse>>
      fetch_;
  std::unique_ptr<node::IngestPart> ingest_;
  std::unique_ptr<node::DeliveryPart> delivery_;
};

TEST_F(PipelineTest, EveryAcceptedMessageArrivesAndNothingIsLeft) {
  bench::LoadOptions load;
  load.messages = 5000;
  load.domains = 20;
  load.size_bytes = 10'240;
  const auto result = Load(load);
  EXPECT_EQ(result.accepted, 5000U);
  ASSERT_TRUE(Until([this] { return sink_state_.counters().recipients >= 5000; }))
      << sink_->CountersJson() << Status().ShortDebugString();
  EXPECT_EQ(sink_state_.counters().recipients, 5000U);
  EXPECT_TRUE(Until([this] { return Status().delivered_total() == 5000; }));
  EXPECT_TRUE(Until([this] { return Status().recipients() == 0; }));
}

TEST_F(PipelineTest, TheRemoteSeesTheSourceOfTheVirtualMtaAndItsName) {
  bench::LoadOptions load;
  load.messages = 10;
  EXPECT_EQ(Load(load).accepted, 10U);
  ASSERT_TRUE(Until([this] { return sink_state_.counters().recipients >= 10; }));
  const std::string counters = sink_->CountersJson();
  EXPECT_NE(counters.find("127.0.0.7"), std::string::npos) << counters;
  EXPECT_NE(counters.find("seven.example"), std::string::npos) << counters;
}

TEST_F(PipelineTest, WhatIsDeferredComesAgainAndWhatIsRefusedBounces) {
  ASSERT_TRUE(sink_state_.rules().AddAll("d1.test defer=0.5\nd2.test reject=1\n").ok());
  bench::LoadOptions load;
  load.messages = 200;
  load.domains = 2;
  EXPECT_EQ(Load(load).accepted, 200U);
  EXPECT_TRUE(Until([this] { return Status().recipients() == 0; })) << Status().ShortDebugString();
  EXPECT_GT(Status().transient_total(), 0U);
  EXPECT_GT(Status().failed_total(), 0U);
  // Each message came through, or its bounce did.
  EXPECT_EQ(sink_state_.counters().recipients, 200U);
}

TEST_F(PipelineTest, LargeMessagesGoInChunksAndComeWhole) {
  bench::LoadOptions load;
  load.messages = 6;
  load.size_bytes = 3 * 1024 * 1024;
  EXPECT_EQ(Load(load, 3).accepted, 6U);
  ASSERT_TRUE(Until([this] { return sink_state_.counters().recipients >= 6; }))
      << Status().ShortDebugString();
  EXPECT_GE(sink_state_.counters().bytes, 6U * 3 * 1024 * 1024);
  EXPECT_TRUE(Until([this] { return Status().recipients() == 0; }));
}

TEST_F(PipelineTest, ARestartWithMailInTheSpoolLosesNothing) {
  ASSERT_TRUE(sink_state_.rules().Add("test defer=1").ok());
  bench::LoadOptions load;
  load.messages = 300;
  EXPECT_EQ(Load(load).accepted, 300U);
  StopServices();
  ASSERT_TRUE(sink_state_.rules().Add("test defer=0").ok());
  StartServices();
  EXPECT_TRUE(Until([this] { return sink_state_.counters().recipients >= 300; }))
      << Status().ShortDebugString();
  EXPECT_TRUE(Until([this] { return Status().recipients() == 0 && !Status().counting(); }));
}

}  // namespace
}  // namespace sluice
