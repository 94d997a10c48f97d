// A shard for tests of ingest: takes messages and uploads, and answers as the test wants.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "services/base/body.h"
#include "services/base/executor.h"
#include "services/base/rpc/stream.h"
#include "services/ingest/core/shard_client.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::ingest::testing {

// Thread-safety: none; everything on the executor that the client opened its streams with.
// Lifetime: outlives the streams.
class FakeShard {
 public:
  struct Taken {
    queue::v1::NewMessage message;
    std::string body;
  };

  EnqueueClient& enqueue() { return enqueue_client_; }
  UploadClient& upload() { return upload_client_; }

  // Settings.
  bool reachable = true;      // false: streams end at once
  bool says_load = true;      // answers the empty request
  bool accepting = true;      // in its load
  uint32_t queued_bytes = 0;  // in its load
  bool answers = true;        // false: Answer is called by hand
  bool acknowledges_chunks = true;
  bool refuses_uploads = false;
  queue::v1::EnqueueResult::Outcome outcome = queue::v1::EnqueueResult::OUTCOME_QUEUED;
  std::string duplicate_of;  // message id for OUTCOME_DUPLICATE

  // What happened.
  std::vector<Taken> taken;
  int frames = 0;  // that had messages
  int streams_opened = 0;
  int aborts = 0;
  size_t chunks_waiting = 0;

  // Answers all that were taken and not answered.
  void AnswerAll() {
    if (!enqueue_stream_) return;
    Frame<queue::v1::EnqueueResponse> frame;
    FillLoad(frame.header);
    for (auto& [token, id] : std::exchange(unanswered_, {})) {
      queue::v1::EnqueueResult* const result = frame.header.add_results();
      result->set_token(token);
      result->set_outcome(outcome);
      result->set_message_id(outcome == queue::v1::EnqueueResult::OUTCOME_DUPLICATE ? duplicate_of
                                                                                    : id);
    }
    enqueue_stream_->Deliver(std::move(frame));
  }
  void SendLoad() {
    if (!enqueue_stream_) return;
    Frame<queue::v1::EnqueueResponse> frame;
    FillLoad(frame.header);
    enqueue_stream_->Deliver(std::move(frame));
  }
  void AcknowledgeChunks() {
    chunks_waiting = 0;
    if (!upload_stream_) return;
    for (auto& [id, upload] : uploads_) Progress(id);
  }
  // Breaks the connection.
  void Disconnect() {
    if (auto stream = std::exchange(enqueue_stream_, nullptr)) {
      stream->End(absl::UnavailableError("connection reset"));
    }
    if (auto stream = std::exchange(upload_stream_, nullptr)) {
      stream->End(absl::UnavailableError("connection reset"));
    }
    unanswered_.clear();
  }
  bool connected() const { return enqueue_stream_ != nullptr; }

 private:
  template <class Out, class In>
  class FakeStream final : public Stream<Out, In> {
   public:
    using Handler = typename Stream<Out, In>::Handler;
    FakeStream(Executor& executor, absl::AnyInvocable<void(Frame<Out>)> on_frame)
        : executor_(executor), on_frame_(std::move(on_frame)) {}
    ~FakeStream() override { *alive_ = false; }
    void Start(Handler* handler) override { handler_ = handler; }
    bool Send(Frame<Out> frame) override {
      if (ended_) return true;
      executor_.Post([this, alive = alive_, frame = std::move(frame)]() mutable {
        if (*alive && !ended_) on_frame_(std::move(frame));
      });
      return true;
    }
    void Close(absl::Status status) override { End(status); }
    void Cancel() override { *alive_ = false; }
    size_t queued_bytes() const override { return 0; }
    std::string peer() const override { return "fake"; }

    void Deliver(Frame<In> frame) {
      executor_.Post([this, alive = alive_, frame = std::move(frame)]() mutable {
        if (*alive && !ended_) handler_->OnFrame(std::move(frame));
      });
    }
    void End(absl::Status status) {
      executor_.Post([this, alive = alive_, status] {
        if (!*alive || ended_) return;
        ended_ = true;
        handler_->OnClosed(status);
      });
    }

   private:
    Executor& executor_;
    absl::AnyInvocable<void(Frame<Out>)> on_frame_;
    Handler* handler_ = nullptr;
    bool ended_ = false;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  };
  using FakeEnqueue = FakeStream<queue::v1::EnqueueRequest, queue::v1::EnqueueResponse>;
  using FakeUpload = FakeStream<queue::v1::UploadRequest, queue::v1::UploadResponse>;

  struct EnqueueClientImpl final : EnqueueClient {
    explicit EnqueueClientImpl(FakeShard* shard) : shard(shard) {}
    std::shared_ptr<ClientStream> Open(Executor& executor) override {
      auto stream = std::make_shared<FakeEnqueue>(
          executor, [shard = shard](Frame<queue::v1::EnqueueRequest> frame) {
            shard->OnEnqueue(std::move(frame));
          });
      ++shard->streams_opened;
      if (shard->reachable) {
        shard->enqueue_stream_ = stream;
      } else {
        stream->End(absl::UnavailableError("connection refused"));
      }
      return stream;
    }
    FakeShard* shard;
  };
  struct UploadClientImpl final : UploadClient {
    explicit UploadClientImpl(FakeShard* shard) : shard(shard) {}
    std::shared_ptr<ClientStream> Open(Executor& executor) override {
      auto stream = std::make_shared<FakeUpload>(
          executor, [shard = shard](Frame<queue::v1::UploadRequest> frame) {
            shard->OnUpload(std::move(frame));
          });
      if (shard->reachable) {
        shard->upload_stream_ = stream;
      } else {
        stream->End(absl::UnavailableError("connection refused"));
      }
      return stream;
    }
    FakeShard* shard;
  };
  struct Upload {
    std::string text;
    uint32_t chunks = 0;
  };

  void FillLoad(queue::v1::EnqueueResponse& response) {
    response.mutable_load()->set_accepting(accepting);
    response.mutable_load()->set_queued_batches_bytes(queued_bytes);
  }
  void OnEnqueue(Frame<queue::v1::EnqueueRequest> frame) {
    if (frame.header.messages_size() == 0) {
      if (says_load && enqueue_stream_) SendLoad();
      return;
    }
    ++frames;
    for (queue::v1::NewMessage& message : *frame.header.mutable_messages()) {
      unanswered_.emplace_back(message.token(), message.message().id());
      std::string body = message.body_case() == queue::v1::NewMessage::kUploadId
                             ? uploads_.at(message.upload_id()).text
                             : std::string(frame.bodies.at(message.body_index()).view());
      taken.push_back({std::move(message), std::move(body)});
    }
    if (answers) AnswerAll();
  }
  void OnUpload(Frame<queue::v1::UploadRequest> frame) {
    if (!upload_stream_) return;  // was under way when the connection broke
    Frame<queue::v1::UploadResponse> reply;
    if (frame.header.has_open()) {
      reply.header.mutable_opened()->set_token(frame.header.open().token());
      if (!refuses_uploads) {
        uploads_[++last_upload_];
        reply.header.mutable_opened()->set_upload_id(last_upload_);
      }
      upload_stream_->Deliver(std::move(reply));
    } else if (frame.header.has_chunk()) {
      Upload& upload = uploads_[frame.header.chunk().upload_id()];
      upload.text += frame.bodies.at(0).view();
      ++upload.chunks;
      ++chunks_waiting;
      if (acknowledges_chunks) {
        chunks_waiting = 0;
        Progress(frame.header.chunk().upload_id());
      }
    } else {
      ++aborts;
      uploads_.erase(frame.header.abort().upload_id());
    }
  }
  void Progress(uint64_t id) {
    Frame<queue::v1::UploadResponse> reply;
    reply.header.mutable_progress()->set_upload_id(id);
    reply.header.mutable_progress()->set_chunks(uploads_.at(id).chunks);
    upload_stream_->Deliver(std::move(reply));
  }

  EnqueueClientImpl enqueue_client_{this};
  UploadClientImpl upload_client_{this};
  std::shared_ptr<FakeEnqueue> enqueue_stream_;
  std::shared_ptr<FakeUpload> upload_stream_;
  std::vector<std::pair<uint64_t, std::string>> unanswered_;
  std::map<uint64_t, Upload> uploads_;
  uint64_t last_upload_ = 0;
};

}  // namespace sluice::ingest::testing
