// A shard over memory in virtual time, with an injector and workers that a test drives by hand.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/base/rpc/inproc_stream.h"
#include "services/base/testing/manual_executor.h"
#include "services/queue/core/memory_store.h"
#include "services/queue/core/shard.h"
#include "services/queue/testing/virtual_committer.h"

namespace sluice::queue::testing {

class TestInjector final : public Stream<v1::EnqueueRequest, v1::EnqueueResponse>::Handler {
 public:
  TestInjector(Shard& shard, Executor& executor) : client_(shard.enqueue()) {
    stream_ = client_.Open(executor);
    stream_->Start(this);
  }
  void OnFrame(Frame<v1::EnqueueResponse> frame) override {
    for (auto& result : frame.header.results()) results[result.token()] = result;
    load = frame.header.load();
  }
  void OnClosed(absl::Status status) override { closed = status; }

  // Called for each message before it is sent.
  std::function<void(v1::NewMessage&)> edit;

  // `rcpts` to the virtual MTA "default". Returns the token.
  uint64_t Send(const std::vector<std::string>& rcpts,
                std::string body = "Subject: x\r\n\r\nhi\r\n", const std::string& job = "",
                const std::string& key = "", const std::string& from = "sender@from.example") {
    Frame<v1::EnqueueRequest> frame;
    auto* message = frame.header.add_messages();
    message->set_token(++last_token_);
    std::string id(16, '\0');
    AppendId(id);
    message->mutable_message()->set_id(id);
    message->mutable_message()->set_mail_from(from);
    message->mutable_message()->set_idempotency_key(key);
    for (const std::string& rcpt : rcpts) {
      auto* delivery = message->add_deliveries()->mutable_delivery();
      delivery->set_rcpt(rcpt);
      delivery->set_rcpt_given(rcpt);
      delivery->set_vmta(vmta_);
      delivery->set_job_id(job);
      delivery->set_notify(notify);
    }
    message->set_body_index(0);
    if (edit) edit(*message);
    frame.bodies.emplace_back(std::move(body));
    stream_->Send(std::move(frame));
    return last_token_;
  }
  uint64_t SendVia(const std::string& vmta, const std::string& rcpt) {
    vmta_ = vmta;
    const uint64_t token = Send({rcpt});
    vmta_ = "default";
    return token;
  }
  v1::EnqueueResult::Outcome outcome(uint64_t token) {
    const auto found = results.find(token);
    return found == results.end() ? v1::EnqueueResult::OUTCOME_UNSPECIFIED
                                  : found->second.outcome();
  }

  uint32_t notify = 0;  // of what is sent from now on
  std::map<uint64_t, v1::EnqueueResult> results;
  v1::ShardLoad load;
  std::optional<absl::Status> closed;

 private:
  void AppendId(std::string& id) {
    for (int i = 0; i < 8; ++i)
      id[static_cast<size_t>(i) + 8] = static_cast<char>(last_token_ >> (56 - 8 * i));
  }
  InprocStreamClient<v1::EnqueueRequest, v1::EnqueueResponse> client_;
  std::shared_ptr<Stream<v1::EnqueueRequest, v1::EnqueueResponse>> stream_;
  uint64_t last_token_ = 0;
  std::string vmta_ = "default";
};

class TestWorker final : public Stream<v1::DispatchRequest, v1::DispatchResponse>::Handler {
 public:
  struct Held {
    v1::Lease lease;
    std::string body;
  };
  TestWorker(Shard& shard, Executor& executor, std::string name = "w1", uint64_t incarnation = 1,
             std::vector<uint64_t> held = {}, std::vector<std::string> vmtas = {"default"},
             uint64_t stream = 0)
      : client_(shard.dispatch()) {
    stream_ = client_.Open(executor);
    stream_->Start(this);
    Frame<v1::DispatchRequest> frame;
    auto* hello = frame.header.mutable_hello();
    hello->set_worker(name);
    hello->set_incarnation(incarnation);
    hello->set_stream(stream);
    for (const std::string& vmta : vmtas) hello->add_vmtas(vmta);
    for (uint64_t id : held) hello->add_held_leases()->set_lease_id(id);
    stream_->Send(std::move(frame));
  }
  void OnFrame(Frame<v1::DispatchResponse> frame) override {
    if (frame.header.has_hello()) hello = frame.header.hello();
    for (auto& queue : frame.header.ready()) {
      ready[queue.domain()] = queue;
      ++announcements;
      if (auto_credit > 0) Credit(queue.queue_ref(), auto_credit);
    }
    for (auto& lease : frame.header.leases()) {
      Held held{lease, lease.body_case() == v1::Lease::kBodyIndex
                           ? std::string(frame.bodies.at(lease.body_index()).view())
                           : ""};
      leases.push_back(std::move(held));
    }
    for (auto& change : frame.header.modes()) modes.push_back(change);
    if (frame.header.has_vouch()) vouched.push_back(frame.header.vouch().epoch());
    for (uint64_t id : frame.header.acknowledged_leases()) acknowledged.push_back(id);
    for (uint64_t id : frame.header.lost_leases()) lost.push_back(id);
    for (uint64_t ref : frame.header.gone_queues()) gone.push_back(ref);
  }
  void OnClosed(absl::Status status) override { closed = status; }

  void Credit(uint64_t ref, uint32_t groups) {
    Frame<v1::DispatchRequest> frame;
    auto* credit = frame.header.add_credits();
    credit->set_queue_ref(ref);
    credit->set_groups(groups);
    stream_->Send(std::move(frame));
  }
  void Answer(uint64_t lease, v1::RecipientOutcome outcome, uint32_t code, std::string text,
              std::vector<std::pair<uint32_t, v1::RecipientOutcome>> own = {}) {
    Frame<v1::DispatchRequest> frame;
    auto* result = frame.header.add_results();
    result->set_lease_id(lease);
    result->set_outcome(outcome);
    result->mutable_reply()->set_code(code);
    result->mutable_reply()->set_text(text);
    result->mutable_reply()->set_stage(common::v1::STAGE_FINAL_DOT);
    *result->mutable_attempt() = attempt;
    for (auto& [position, each] : own) {
      auto* recipient = result->add_recipients();
      recipient->set_position(position);
      recipient->set_outcome(each);
      recipient->mutable_reply()->set_code(each == v1::RECIPIENT_OUTCOME_PERMANENT ? 550 : 450);
      recipient->mutable_reply()->set_text("own reply");
      recipient->mutable_reply()->set_stage(common::v1::STAGE_RCPT);
    }
    stream_->Send(std::move(frame));
  }
  // As of a reply of <smtp-pattern>.
  void Penalise(uint64_t ref, int64_t first_us, int64_t most_us) {
    Frame<v1::DispatchRequest> frame;
    auto* failure = frame.header.add_failures();
    failure->set_queue_ref(ref);
    failure->set_penalty_us(first_us);
    failure->set_penalty_most_us(most_us);
    failure->mutable_reply()->set_code(421);
    failure->mutable_reply()->set_text("slow down");
    stream_->Send(std::move(frame));
  }
  void Fail(uint64_t ref, bool dns, bool permanent, int64_t permanent_after_us = 0) {
    Frame<v1::DispatchRequest> frame;
    auto* failure = frame.header.add_failures();
    failure->set_queue_ref(ref);
    failure->set_dns(dns);
    failure->set_permanent(permanent);
    failure->set_permanent_after_us(permanent_after_us);
    failure->mutable_reply()->set_text("no MX answers");
    stream_->Send(std::move(frame));
  }
  void SendMode(const v1::QueueModeChange& change) {
    Frame<v1::DispatchRequest> frame;
    *frame.header.add_modes() = change;
    stream_->Send(std::move(frame));
  }
  void Revoke(uint64_t ref, bool released) {
    Frame<v1::DispatchRequest> frame;
    auto* revoke = frame.header.add_revokes();
    revoke->set_queue_ref(ref);
    revoke->set_released(released);
    stream_->Send(std::move(frame));
  }
  void Return(uint64_t lease) {
    Frame<v1::DispatchRequest> frame;
    frame.header.add_returned_leases(lease);
    stream_->Send(std::move(frame));
  }
  void Say(Frame<v1::DispatchRequest> frame) { stream_->Send(std::move(frame)); }
  void AskVouch(uint64_t epoch) {
    Frame<v1::DispatchRequest> frame;
    frame.header.mutable_vouch()->set_epoch(epoch);
    stream_->Send(std::move(frame));
  }
  void Drop() { stream_.reset(); }

  v1::ShardHello hello;
  std::map<std::string, v1::ReadyQueue> ready;
  std::vector<Held> leases;
  std::vector<v1::QueueModeChange> modes;
  std::vector<uint64_t> acknowledged;
  std::vector<uint64_t> lost;
  std::vector<uint64_t> vouched;  // epochs of tables
  std::vector<uint64_t> gone;
  std::optional<absl::Status> closed;
  int announcements = 0;
  common::v1::Attempt attempt;  // of every answer
  uint32_t auto_credit = 0;

 private:
  InprocStreamClient<v1::DispatchRequest, v1::DispatchResponse> client_;
  std::shared_ptr<Stream<v1::DispatchRequest, v1::DispatchResponse>> stream_;
};

class ShardFixture : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }
  void Open() {
    committer_ = std::make_unique<VirtualCommitter>(executor_, store_);
    shard_ = std::make_unique<Shard>(options_, executor_, store_, *committer_);
    ASSERT_TRUE(shard_->Start().ok());
    Run();
  }
  // As after a kill -9: what was not durable is gone.
  void Kill() {
    injector_.reset();
    workers_.clear();
    committer_.reset();
    shard_.reset();
    store_.CutPower();
  }
  TestInjector& injector() {
    if (injector_ == nullptr) injector_ = std::make_unique<TestInjector>(*shard_, executor_);
    return *injector_;
  }
  TestWorker& AddWorker(std::string name = "w1", uint64_t incarnation = 1,
                        std::vector<uint64_t> held = {},
                        std::vector<std::string> vmtas = {"default"}, uint64_t stream = 0) {
    workers_.push_back(std::make_unique<TestWorker>(*shard_, executor_, std::move(name),
                                                    incarnation, held, vmtas, stream));
    return *workers_.back();
  }
  void Run(Duration time = std::chrono::milliseconds(50)) { executor_.Advance(time); }
  v1::GetShardStatusResponse Status() {
    v1::GetShardStatusResponse status;
    shard_->GetShardStatus({}, [&status](auto response) { status = *response; });
    return status;
  }

  ShardOptions options_;
  sluice::testing::ManualExecutor executor_;
  MemoryStore store_;
  std::unique_ptr<VirtualCommitter> committer_;
  std::unique_ptr<Shard> shard_;
  std::unique_ptr<TestInjector> injector_;
  std::vector<std::unique_ptr<TestWorker>> workers_;
};

}  // namespace sluice::queue::testing
