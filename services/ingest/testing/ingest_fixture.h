// An ingest in memory for tests of whole SMTP sessions: policy, shards and log are the test's, time
// stands still, and clients say what they are told.
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
#include "services/ingest/core/smtp_connection.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"

namespace sluice::ingest::testing {

// A client that never waits for its turn. Thread-safety: none.
class SmtpClient final : public SmtpConnection::Driver {
 public:
  SmtpClient(Ingest& ingest, sluice::testing::ManualExecutor& executor, std::string ip,
             std::string listener)
      : executor_(executor),
        connection_(ingest, {std::move(ip), "127.0.0.1", std::move(listener)}, *this) {
    connection_.Start();
    Drain();
  }
  // What comes back; stops where the session stops reading.
  std::string Say(std::string_view text) {
    heard_.clear();
    while (!text.empty() && session().wants_read()) {
      const std::string_view piece = text.substr(0, 60'000);
      session().OnBytes(executor_.clock().Now(), piece);
      text.remove_prefix(piece.size());
      Drain();
      executor_.RunPosted();
    }
    left_over_ = text.size();
    Drain();
    return heard_;
  }
  std::string Hear() { return HearAfter(Duration::zero()); }
  std::string HearAfter(Duration time) {
    heard_.clear();
    executor_.RunPosted();
    if (time > Duration::zero()) executor_.Advance(time);
    Drain();
    return heard_;
  }
  // Since the last call: with the greeting, where there was none.
  const std::string& heard() const { return heard_; }
  void OnWake() override { Drain(); }
  mail::SaslChannelBindings ChannelBindings() override { return bindings; }
  // Takes what the session has said by itself.
  void Drain() {
    const std::string_view output = session().output();
    heard_ += output;
    session().Sent(executor_.clock().Now(), output.size());
  }
  SmtpConnection& connection() { return connection_; }
  mail::SmtpServerSession& session() { return connection_.session(); }
  size_t left_over() const { return left_over_; }

  mail::SaslChannelBindings bindings;

 private:
  sluice::testing::ManualExecutor& executor_;
  std::string heard_;
  size_t left_over_ = 0;
  SmtpConnection connection_;
};

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
