#include "tests/bench/spool/spool.h"

#include <cstring>
#include <deque>
#include <future>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/body.h"
#include "services/base/clock.h"
#include "services/base/rpc/inproc_stream.h"
#include "services/node/queue_part.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::bench {
namespace {

using queue::v1::DispatchRequest;
using queue::v1::DispatchResponse;
using queue::v1::EnqueueRequest;
using queue::v1::EnqueueResponse;

constexpr uint64_t kBatch = 50;
constexpr uint64_t kUnanswered = 5'000;

std::string QueueDomain(const FillOptions& options, uint64_t n) {
  return absl::StrCat("d", n % options.queues + 1, ".", options.domain);
}

// Lives on the shard's loop.
class Injector final : public Stream<EnqueueRequest, EnqueueResponse>::Handler {
 public:
  Injector(const FillOptions& options, std::promise<absl::Status>& done)
      : options_(options), done_(done) {
    std::string text = "From: <load@bench.test>\r\nTo: <r@bench.test>\r\nSubject: spool\r\n\r\n";
    while (text.size() + 78 < options.size_bytes) text.append(std::string(76, 'x') + "\r\n");
    body_ = Body(std::move(text));
  }

  void Start(std::shared_ptr<Stream<EnqueueRequest, EnqueueResponse>> stream) {
    stream_ = std::move(stream);
    stream_->Start(this);
    Send();
  }
  void OnFrame(Frame<EnqueueResponse> frame) override {
    for (const auto& result : frame.header.results()) {
      if (result.outcome() != queue::v1::EnqueueResult::OUTCOME_QUEUED) ++refused_;
      ++answered_;
    }
    if (answered_ < options_.messages) return Send();
    if (!ended_) {
      ended_ = true;
      done_.set_value(
          refused_ == 0 ? absl::OkStatus()
                        : absl::UnavailableError(absl::StrCat(refused_, " messages were refused")));
    }
  }
  void OnClosed(absl::Status status) override {
    if (!std::exchange(ended_, true)) done_.set_value(std::move(status));
  }

 private:
  void Send() {
    while (sent_ < options_.messages && sent_ - answered_ + kBatch <= kUnanswered) {
      Frame<EnqueueRequest> frame;
      for (uint64_t i = 0; i < kBatch && sent_ < options_.messages; ++i, ++sent_) {
        queue::v1::NewMessage* message = frame.header.add_messages();
        message->set_token(sent_ + 1);
        message->set_body_index(0);
        common::v1::Message& envelope = *message->mutable_message();
        std::string id(16, '\0');
        std::memcpy(id.data(), &sent_, sizeof(sent_));
        envelope.set_id(std::move(id));
        envelope.set_mail_from("load@bench.test");
        envelope.set_client_ip("127.0.0.1");
        envelope.set_client_name("spool.bench.test");
        envelope.set_body_size(body_.size());
        envelope.set_time_queued_us(ToUnixMicros(Clock::Real().WallNow()));
        common::v1::Delivery& delivery = *message->add_deliveries()->mutable_delivery();
        delivery.set_rcpt(absl::StrCat("r", sent_, "@", QueueDomain(options_, sent_)));
        delivery.set_rcpt_given(delivery.rcpt());
        delivery.set_vmta(options_.vmta);
      }
      frame.bodies.push_back(body_);
      stream_->Send(std::move(frame));
    }
  }

  const FillOptions& options_;
  std::promise<absl::Status>& done_;
  Body body_;
  std::shared_ptr<Stream<EnqueueRequest, EnqueueResponse>> stream_;
  uint64_t sent_ = 0;
  uint64_t answered_ = 0;
  uint64_t refused_ = 0;
  bool ended_ = false;
};

// Lives on the shard's loop.
class Consumer final : public Stream<DispatchRequest, DispatchResponse>::Handler {
 public:
  Consumer(const FillOptions& options, uint64_t window, uint32_t credits,
           std::promise<HeadResult>& done)
      : messages_(options.messages), window_(window), credits_(credits), done_(done) {}

  void Start(const FillOptions& options,
             std::shared_ptr<Stream<DispatchRequest, DispatchResponse>> stream) {
    stream_ = std::move(stream);
    stream_->Start(this);
    Frame<DispatchRequest> hello;
    hello.header.mutable_hello()->set_worker("spool");
    hello.header.mutable_hello()->set_incarnation(1);
    hello.header.mutable_hello()->add_vmtas(options.vmta);
    stream_->Send(std::move(hello));
  }
  void OnFrame(Frame<DispatchResponse> frame) override {
    const MonotonicTime now = Clock::Real().Now();
    Frame<DispatchRequest> out;
    for (const auto& ready : frame.header.ready()) {
      if (std::exchange(begun_, true)) continue;
      for (uint32_t i = 0; i < credits_; ++i) asked_.push_back(now);
      Credit(out, ready.queue_ref(), credits_);
    }
    for (const auto& lease : frame.header.leases()) {
      Record(now);
      queue::v1::GroupResult* result = out.header.add_results();
      result->set_lease_id(lease.lease_id());
      result->set_outcome(queue::v1::RECIPIENT_OUTCOME_DELIVERED);
      result->mutable_reply()->set_code(250);
      result->mutable_reply()->set_stage(common::v1::STAGE_FINAL_DOT);
      asked_.push_back(now);
      Credit(out, lease.queue_ref(), 1);
    }
    if (out.header.ByteSizeLong() > 0) stream_->Send(std::move(out));
    if (result_.delivered >= messages_ && !std::exchange(ended_, true)) {
      done_.set_value(std::move(result_));
    }
  }
  void OnClosed(absl::Status) override {
    if (!std::exchange(ended_, true)) done_.set_value(std::move(result_));
  }

 private:
  static void Credit(Frame<DispatchRequest>& out, uint64_t ref, uint32_t groups) {
    queue::v1::Credit* credit = out.header.add_credits();
    credit->set_queue_ref(ref);
    credit->set_groups(groups);
  }
  void Record(MonotonicTime now) {
    ++result_.delivered;
    if (asked_.empty()) return;
    const int64_t us = std::chrono::duration_cast<Duration>(now - asked_.front()).count();
    asked_.pop_front();
    if (result_.delivered <= window_) result_.first.Record(us);
    if (result_.delivered > messages_ - window_) result_.last.Record(us);
  }

  const uint64_t messages_;
  const uint64_t window_;
  const uint32_t credits_;
  std::promise<HeadResult>& done_;
  std::shared_ptr<Stream<DispatchRequest, DispatchResponse>> stream_;
  std::deque<MonotonicTime> asked_;
  HeadResult result_;
  bool begun_ = false;
  bool ended_ = false;
};

node::Options QueueOptions(const FillOptions& options) {
  node::Options node;
  node.role = node::Role::kQueue;
  node.data_dir = options.data_dir;
  node.ballast_bytes = 0;
  return node;
}

}  // namespace

absl::StatusOr<FillResult> Fill(const FillOptions& options) {
  const node::Options node = QueueOptions(options);
  node::QueuePart part(node);
  std::promise<absl::Status> done;
  auto ended = done.get_future();
  const MonotonicTime begin = Clock::Real().Now();
  if (absl::Status started = part.Start(node.data_dir + "/spool", [](const absl::Status&) {});
      !started.ok())
    return started;
  InprocStreamClient<EnqueueRequest, EnqueueResponse> client(part.shard().enqueue());
  Injector injector(options, done);
  part.thread().Call([&] { injector.Start(client.Open(part.loop())); });
  if (absl::Status status = ended.get(); !status.ok()) return status;
  part.Drain();
  const Duration took = std::chrono::duration_cast<Duration>(Clock::Real().Now() - begin);
  part.Stop();
  return FillResult{options.messages, static_cast<double>(took.count()) * 1e-6};
}

absl::StatusOr<HeadResult> ConsumeHead(const FillOptions& options, uint64_t window,
                                       uint32_t credits) {
  const node::Options node = QueueOptions(options);
  node::QueuePart part(node);
  std::promise<HeadResult> done;
  auto ended = done.get_future();
  if (absl::Status started = part.Start(node.data_dir + "/spool", [](const absl::Status&) {});
      !started.ok())
    return started;
  InprocStreamClient<DispatchRequest, DispatchResponse> client(part.shard().dispatch());
  Consumer consumer(options, window, credits, done);
  part.thread().Call([&] { consumer.Start(options, client.Open(part.loop())); });
  HeadResult result = ended.get();
  part.Drain();
  part.Stop();
  return result;
}

}  // namespace sluice::bench
