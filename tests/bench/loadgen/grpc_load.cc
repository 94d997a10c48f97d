#include "tests/bench/loadgen/grpc_load.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "proto/sluice/ingest/v1/ingest_service.grpc.pb.h"

namespace sluice::bench {
namespace {

using ingest::v1::IngestService;
using ingest::v1::InjectStreamRequest;
using ingest::v1::InjectStreamResponse;

// One stream: Write on one thread, Read on another.
class InjectionStream {
 public:
  InjectionStream(const LoadOptions& load, const GrpcLoadOptions& options,
                  std::shared_ptr<grpc::Channel> channel, uint32_t index,
                  std::atomic<uint64_t>& next, MonotonicTime start)
      : load_(load),
        options_(options),
        stub_(IngestService::NewStub(channel)),
        stream_(stub_->InjectStream(&context_)),
        maker_(load),
        domains_(WithSeed(load, index)),
        next_(next),
        pace_(load.rate, start) {}

  void Run() {
    std::thread reader([this] { ReadAnswers(); });
    WriteMessages();
    stream_->WritesDone();
    reader.join();
    status_ = stream_->Finish();
  }

  const grpc::Status& status() const { return status_; }
  const LoadResult& result() const { return result_; }
  size_t unanswered() const { return sent_at_.size(); }

 private:
  static LoadOptions WithSeed(LoadOptions load, uint32_t index) {
    load.seed += index;
    return load;
  }

  void WriteMessages() {
    const Clock& clock = Clock::Real();
    while (true) {
      uint64_t number = next_.fetch_add(1);
      if (number >= load_.messages) return;
      if (load_.rate > 0) {
        std::this_thread::sleep_for(std::max(
            Duration(0), std::chrono::duration_cast<Duration>(pace_.Due(number) - clock.Now())));
      }
      InjectStreamRequest request;
      request.set_token(number);
      auto* message = request.mutable_message();
      message->set_mail_from(load_.from);
      const std::string& domain = domains_.Next();
      for (uint32_t i = 0; i < load_.recipients; ++i) {
        message->add_recipients()->set_address(maker_.Recipient(number, i, domain));
      }
      std::string header = maker_.Header(number, clock.WallNow());
      std::string_view body = maker_.body().view();
      auto* content = message->mutable_content();
      content->reserve(header.size() + body.size());
      content->append(header).append(body);
      {
        std::unique_lock lock(mutex_);
        room_.wait(lock, [this] { return broken_ || sent_at_.size() < options_.outstanding; });
        if (broken_) return;
        sent_at_.emplace(number, clock.Now());
      }
      if (!stream_->Write(request)) return;
    }
  }

  void ReadAnswers() {
    InjectStreamResponse response;
    while (stream_->Read(&response)) {
      std::lock_guard lock(mutex_);
      auto it = sent_at_.find(response.token());
      if (it == sent_at_.end()) continue;
      switch (response.code()) {
        case grpc::OK:
          ++result_.accepted;
          result_.latency.Record((Clock::Real().Now() - it->second).count());
          break;
        case grpc::UNAVAILABLE:
        case grpc::RESOURCE_EXHAUSTED:
          ++result_.deferred;
          break;
        default:
          ++result_.rejected;
      }
      sent_at_.erase(it);
      room_.notify_one();
    }
    std::lock_guard lock(mutex_);
    broken_ = true;
    room_.notify_one();
  }

  const LoadOptions& load_;
  const GrpcLoadOptions& options_;
  std::unique_ptr<IngestService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<InjectStreamRequest, InjectStreamResponse>> stream_;
  MessageMaker maker_;
  DomainPicker domains_;
  std::atomic<uint64_t>& next_;
  Pace pace_;

  std::mutex mutex_;
  std::condition_variable room_;
  bool broken_ = false;                                  // guarded by mutex_
  std::unordered_map<uint64_t, MonotonicTime> sent_at_;  // guarded by mutex_
  LoadResult result_;                                    // guarded by mutex_ while running
  grpc::Status status_;
};

}  // namespace

absl::StatusOr<LoadResult> RunGrpcLoad(const LoadOptions& load, const GrpcLoadOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  std::atomic<uint64_t> next{0};
  MonotonicTime start = Clock::Real().Now();
  std::vector<std::unique_ptr<InjectionStream>> streams;
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < options.streams; ++i) {
    // A connection each, so that they do not wait for each other's flow control.
    auto channel =
        grpc::CreateCustomChannel(options.target, grpc::InsecureChannelCredentials(), arguments);
    streams.push_back(
        std::make_unique<InjectionStream>(load, options, std::move(channel), i, next, start));
  }
  for (auto& stream : streams) threads.emplace_back([&stream] { stream->Run(); });
  for (std::thread& thread : threads) thread.join();

  LoadResult result;
  std::optional<grpc::Status> failure;
  for (auto& stream : streams) {
    const LoadResult& part = stream->result();
    result.accepted += part.accepted;
    result.deferred += part.deferred;
    result.rejected += part.rejected;
    result.lost += stream->unanswered();
    result.latency.Merge(part.latency);
    ++result.connections;
    if (!stream->status().ok()) failure = stream->status();
  }
  result.elapsed = Clock::Real().Now() - start;
  if (result.finished() < load.messages && failure) {
    return absl::UnavailableError(options.target + ": " + failure->error_message());
  }
  return result;
}

}  // namespace sluice::bench
