// An ingest in memory for tests of whole SMTP sessions: policy, shards and log are the test's, and
// time stands still.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "services/base/log/log.h"
#include "services/base/testing/manual_executor.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"
#include "services/ingest/testing/smtp_client.h"

namespace sluice::ingest::testing {

class IngestFixture : public ::testing::Test {
 protected:
  void Start(int shards = 1) {
    std::vector<ShardEndpoint> endpoints;
    for (int i = 0; i < shards; ++i) {
      shards_.push_back(std::make_unique<FakeShard>());
      endpoints.push_back(
          {"shard-" + std::to_string(i), &shards_[i]->enqueue(), &shards_[i]->upload()});
    }
    policy_->loopback->set_allow_chunking(true);
    policy_->loopback->set_allow_smtputf8(true);
    if (prepare_) prepare_();
    options_.random = 42;
    options_.log = log_.get();
    options_.memory_percent = &memory_percent_;
    ingest_ = std::make_unique<Ingest>(executor_, options_, endpoints, policy_);
    ingest_->Start();
    executor_.RunPosted();
  }
  // Starts, where nobody has.
  std::unique_ptr<SmtpClient> Connect(const std::string& ip = "127.0.0.1",
                                      const std::string& listener = "127.0.0.1:25") {
    if (ingest_ == nullptr) Start();
    return std::make_unique<SmtpClient>(*ingest_, executor_, ip, listener);
  }
  FakeShard& shard(int i = 0) { return *shards_[i]; }

  sluice::testing::ManualExecutor executor_;
  std::shared_ptr<FakePolicy> policy_ = std::make_shared<FakePolicy>();
  std::atomic<uint32_t> memory_percent_{0};
  IngestOptions options_;
  std::vector<std::unique_ptr<FakeShard>> shards_;
  std::function<void()> prepare_;
  std::vector<std::string> lines_;  // of the log
  std::unique_ptr<Log> log_ = std::make_unique<Log>(
      LogOptions{.service = "t",
                 .sink = [this](std::string_view line) { lines_.emplace_back(line); }},
      executor_.clock());
  std::unique_ptr<Ingest> ingest_;
};

}  // namespace sluice::ingest::testing
