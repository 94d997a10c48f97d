// A shard that takes everything at once and keeps nothing, for benchmarks.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "services/base/executor.h"
#include "services/ingest/core/shard_client.h"

namespace sluice::ingest::testing {

// Answers each frame in the next task.
class InstantShard final : public EnqueueClient {
 public:
  class EnqueueStream final : public EnqueueClient::ClientStream {
   public:
    explicit EnqueueStream(Executor& executor) : executor_(executor) {}
    void Start(Handler* handler) override { handler_ = handler; }
    bool Send(Frame<queue::v1::EnqueueRequest> frame) override {
      Frame<queue::v1::EnqueueResponse> response;
      response.header.mutable_load()->set_accepting(true);
      for (const auto& message : frame.header.messages()) {
        auto* const result = response.header.add_results();
        result->set_token(message.token());
        result->set_outcome(queue::v1::EnqueueResult::OUTCOME_QUEUED);
        result->set_message_id(message.message().id());
      }
      executor_.Post([this, response = std::move(response)]() mutable {
        handler_->OnFrame(std::move(response));
      });
      return true;
    }
    void Close(absl::Status) override {}
    void Cancel() override {}
    size_t queued_bytes() const override { return 0; }
    std::string peer() const override { return "instant"; }

   private:
    Executor& executor_;
    Handler* handler_ = nullptr;
  };
  std::shared_ptr<ClientStream> Open(Executor& executor) override {
    return std::make_shared<EnqueueStream>(executor);
  }
};

}  // namespace sluice::ingest::testing
