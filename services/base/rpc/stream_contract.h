// What every transport of streams must do (stream.h), run over each. The server sits on a thread of
// its own; the test's thread drives the client's loop.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "services/base/net/event_loop.h"
#include "services/base/rpc/stream.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice {

using ContractRequest = queue::v1::EnqueueRequest;
using ContractResponse = queue::v1::EnqueueResponse;

// Answers each message with its token and the size of its body. A frame without messages is an
// order: bodies[0] names it.
class ContractService final : public StreamService<ContractRequest, ContractResponse> {
 public:
  explicit ContractService(Executor& executor) : executor_(executor) {}
  Executor& executor() override { return executor_; }
  void OnStream(std::shared_ptr<ServerStream> stream) override {
    auto session = std::make_unique<Session>();
    session->stream = std::move(stream);
    session->service = this;
    session->stream->Start(session.get());
    sessions_.push_back(std::move(session));
  }
  // On the executor.
  void DropAll() { sessions_.clear(); }
  std::vector<absl::Status>& closed() { return closed_; }

 private:
  struct Session final : ServerStream::Handler {
    void OnFrame(Frame<ContractRequest> frame) override {
      if (frame.header.messages().empty()) {
        const std::string order(frame.bodies.at(0).view());
        if (order == "close") stream->Close(absl::OkStatus());
        if (order == "fail") stream->Close(absl::PermissionDeniedError("not for you"));
        if (order == "cancel") stream->Cancel();
        if (order == "drop") stream.reset();
        if (order == "hold") hold = true;
        return;
      }
      Frame<ContractResponse> answer;
      for (const auto& message : frame.header.messages()) {
        auto* result = answer.header.add_results();
        result->set_token(message.token());
        const auto body = frame.bodies.at(message.body_index()).view();
        result->set_detail(std::to_string(body.size()) +
                           (body.empty() ? "" : std::string(1, body.back())));
      }
      if (hold) {
        held.push_back(std::move(answer));
      } else {
        stream->Send(std::move(answer));
      }
    }
    // What is held goes out one by one, long after the client has closed.
    bool OnClientDone() override {
      if (!hold) return false;
      Release();
      return true;
    }
    void Release() {
      service->executor_.After(std::chrono::milliseconds(1), [this, alive = alive] {
        if (!*alive) return;
        if (held.empty()) {
          stream->Close(absl::AlreadyExistsError("all was answered"));
          return;
        }
        stream->Send(std::move(held.front()));
        held.erase(held.begin());
        Release();
      });
    }
    ~Session() override { *alive = false; }
    void OnClosed(absl::Status status) override { service->closed_.push_back(std::move(status)); }
    std::shared_ptr<ServerStream> stream;
    ContractService* service = nullptr;
    bool hold = false;
    std::vector<Frame<ContractResponse>> held;
    std::shared_ptr<bool> alive = std::make_shared<bool>(true);
  };

  Executor& executor_;
  std::vector<std::unique_ptr<Session>> sessions_;
  std::vector<absl::Status> closed_;
};

// Harness: constructed from the service; StreamClient<...>& client().
template <class Harness>
class StreamContract : public testing::Test {
 protected:
  struct Recorder final : Stream<ContractRequest, ContractResponse>::Handler {
    void OnFrame(Frame<ContractResponse> frame) override {
      EXPECT_FALSE(inside_call);
      EXPECT_FALSE(closed);
      for (auto& result : frame.header.results()) {
        tokens.push_back(result.token());
        details.push_back(result.detail());
      }
    }
    void OnWritable() override { ++writable; }
    void OnClosed(absl::Status status) override {
      EXPECT_FALSE(inside_call);
      EXPECT_FALSE(closed) << "OnClosed twice";
      closed = std::move(status);
    }
    bool inside_call = false;
    int writable = 0;
    std::vector<uint64_t> tokens;
    std::vector<std::string> details;
    std::optional<absl::Status> closed;
  };

  void SetUp() override {
    thread_ = std::thread([this] { server_loop_.Run(); });
    harness_.emplace(service_);
    stream_ = harness_->client().Open(loop_);
    stream_->Start(&recorder_);
  }
  void TearDown() override {
    stream_.reset();
    harness_.reset();
    server_loop_.Post([this] { service_.DropAll(); });
    server_loop_.Stop();
    thread_.join();
  }
  template <class Condition>
  bool Until(Condition condition) {
    const MonotonicTime end = loop_.clock().Now() + std::chrono::seconds(20);
    while (!condition() && loop_.clock().Now() < end) loop_.RunOnce(std::chrono::milliseconds(20));
    return condition();
  }
  // One stream has ended at the server, in this way.
  bool ServerClosedWith(absl::StatusCode code) {
    auto seen = std::make_shared<std::atomic<int>>(-1);
    return Until([this, seen, code] {
      server_loop_.Post([this, seen] {
        if (!service_.closed().empty()) *seen = static_cast<int>(service_.closed()[0].code());
      });
      return *seen == static_cast<int>(code);
    });
  }
  bool Send(uint64_t token, std::string body) {
    Frame<ContractRequest> frame;
    auto* message = frame.header.add_messages();
    message->set_token(token);
    message->set_body_index(0);
    frame.bodies.emplace_back(std::move(body));
    recorder_.inside_call = true;
    const bool more = stream_->Send(std::move(frame));
    recorder_.inside_call = false;
    return more;
  }
  void Order(std::string what) {
    Frame<ContractRequest> frame;
    frame.bodies.emplace_back(std::move(what));
    stream_->Send(std::move(frame));
  }

  EventLoop server_loop_;
  EventLoop loop_;
  ContractService service_{server_loop_};
  std::thread thread_;
  std::optional<Harness> harness_;
  Recorder recorder_;
  std::shared_ptr<Stream<ContractRequest, ContractResponse>> stream_;
};
TYPED_TEST_SUITE_P(StreamContract);

TYPED_TEST_P(StreamContract, FramesArriveInOrderWithTheirBodies) {
  for (uint64_t token = 1; token <= 1000; ++token) {
    EXPECT_TRUE(this->Send(token, std::string(token % 7, 'b')));
  }
  ASSERT_TRUE(this->Until([this] { return this->recorder_.tokens.size() == 1000; }));
  for (uint64_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(this->recorder_.tokens[i], i + 1);
    const uint64_t size = (i + 1) % 7;
    ASSERT_EQ(this->recorder_.details[i], std::to_string(size) + (size == 0 ? "" : "b"));
  }
}

TYPED_TEST_P(StreamContract, AboveTheHighWaterTheSenderIsToldAndLaterCalledBack) {
  EXPECT_TRUE(this->Send(1, std::string(kStreamLowWaterBytes, 'x')));
  EXPECT_FALSE(this->Send(2, std::string(kStreamHighWaterBytes + 1, 'y')));
  ASSERT_TRUE(this->Until(
      [this] { return this->recorder_.writable == 1 && this->recorder_.tokens.size() == 2; }));
  EXPECT_EQ(this->recorder_.details.back(), "4194305y");
  EXPECT_LT(this->stream_->queued_bytes(), kStreamLowWaterBytes);
}

TYPED_TEST_P(StreamContract, PastTheHardLimitTheStreamBreaks) {
  EXPECT_FALSE(this->Send(1, std::string(kStreamHardLimitBytes + 1, 'x')));
  ASSERT_TRUE(this->Until([this] { return this->recorder_.closed.has_value(); }));
  EXPECT_EQ(this->recorder_.closed->code(), absl::StatusCode::kResourceExhausted);
}

TYPED_TEST_P(StreamContract, CloseComesAfterWhatWasSent) {
  this->Send(1, "a");
  this->Send(2, "b");
  this->stream_->Close(absl::OkStatus());
  EXPECT_FALSE(this->recorder_.closed);
  ASSERT_TRUE(this->Until([this] { return this->recorder_.closed.has_value(); }));
  EXPECT_TRUE(this->recorder_.closed->ok()) << *this->recorder_.closed;
  EXPECT_TRUE(this->Send(3, "dropped"));
}

TYPED_TEST_P(StreamContract, AClientThatHasClosedStillGetsItsAnswersAndTheServersStatus) {
  this->Order("hold");
  for (uint64_t token = 1; token <= 20; ++token) this->Send(token, "a");
  this->stream_->Close(absl::OkStatus());
  ASSERT_TRUE(this->Until([this] { return this->recorder_.closed.has_value(); }));
  EXPECT_EQ(this->recorder_.closed->code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(this->recorder_.closed->message(), "all was answered");
  EXPECT_EQ(this->recorder_.tokens.size(), 20U);
  ASSERT_TRUE(this->ServerClosedWith(absl::StatusCode::kAlreadyExists));
}

TYPED_TEST_P(StreamContract, AClientThatHasClosedMayCancel) {
  this->Order("hold");
  for (uint64_t token = 1; token <= 2000; ++token) this->Send(token, "a");
  this->stream_->Close(absl::OkStatus());
  ASSERT_TRUE(this->Until([this] { return !this->recorder_.tokens.empty(); }));
  this->stream_->Cancel();
  ASSERT_TRUE(this->Until([this] { return this->recorder_.closed.has_value(); }));
  EXPECT_EQ(this->recorder_.closed->code(), absl::StatusCode::kCancelled);
  ASSERT_TRUE(this->ServerClosedWith(absl::StatusCode::kCancelled));
}

TYPED_TEST_P(StreamContract, AServerThatGoesOnForAClientThatHasLeftComesToItsEnd) {
  this->Order("hold");
  for (uint64_t token = 1; token <= 20; ++token) this->Send(token, "a");
  this->stream_->Close(absl::OkStatus());
  this->stream_.reset();
  ASSERT_TRUE(this->ServerClosedWith(absl::StatusCode::kAlreadyExists));
  EXPECT_FALSE(this->recorder_.closed);
}

TYPED_TEST_P(StreamContract, TheServersStatusReachesTheClient) {
  this->Send(1, "a");
  this->Order("fail");
  ASSERT_TRUE(this->Until([this] { return this->recorder_.closed.has_value(); }));
  EXPECT_EQ(this->recorder_.closed->code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(this->recorder_.closed->message(), "not for you");
  EXPECT_EQ(this->recorder_.tokens.size(), 1U);
}

TYPED_TEST_P(StreamContract, TheServersGoodCloseIsOk) {
  this->Order("close");
  ASSERT_TRUE(this->Until([this] { return this->recorder_.closed.has_value(); }));
  EXPECT_TRUE(this->recorder_.closed->ok()) << *this->recorder_.closed;
}

TYPED_TEST_P(StreamContract, CancelEndsBoth) {
  this->Send(1, "a");
  ASSERT_TRUE(this->Until([this] { return this->recorder_.tokens.size() == 1; }));
  this->stream_->Cancel();
  ASSERT_TRUE(this->Until([this] { return this->recorder_.closed.has_value(); }));
  EXPECT_EQ(this->recorder_.closed->code(), absl::StatusCode::kCancelled);
}

TYPED_TEST_P(StreamContract, TheServersCancelReachesTheClient) {
  this->Order("cancel");
  ASSERT_TRUE(this->Until([this] { return this->recorder_.closed.has_value(); }));
  EXPECT_EQ(this->recorder_.closed->code(), absl::StatusCode::kCancelled);
}

TYPED_TEST_P(StreamContract, AStreamThatTheServerDropsEndsWithCancelled) {
  this->Order("drop");
  ASSERT_TRUE(this->Until([this] { return this->recorder_.closed.has_value(); }));
  EXPECT_EQ(this->recorder_.closed->code(), absl::StatusCode::kCancelled);
}

TYPED_TEST_P(StreamContract, AStreamThatTheClientDropsEndsWithCancelledAndCallsNobody) {
  this->Send(1, "a");
  ASSERT_TRUE(this->Until([this] { return this->recorder_.tokens.size() == 1; }));
  this->stream_.reset();
  auto seen = std::make_shared<std::atomic<int>>(0);
  ASSERT_TRUE(this->Until([this, seen] {
    this->server_loop_.Post(
        [this, seen] { *seen = static_cast<int>(this->service_.closed().size()); });
    return *seen == 1;
  }));
  EXPECT_FALSE(this->recorder_.closed);
}

REGISTER_TYPED_TEST_SUITE_P(StreamContract, FramesArriveInOrderWithTheirBodies,
                            AboveTheHighWaterTheSenderIsToldAndLaterCalledBack,
                            PastTheHardLimitTheStreamBreaks, CloseComesAfterWhatWasSent,
                            AClientThatHasClosedStillGetsItsAnswersAndTheServersStatus,
                            AClientThatHasClosedMayCancel,
                            AServerThatGoesOnForAClientThatHasLeftComesToItsEnd,
                            TheServersStatusReachesTheClient, TheServersGoodCloseIsOk,
                            CancelEndsBoth, TheServersCancelReachesTheClient,
                            AStreamThatTheServerDropsEndsWithCancelled,
                            AStreamThatTheClientDropsEndsWithCancelledAndCallsNobody);

}  // namespace sluice
