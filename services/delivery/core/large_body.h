// Reads a large body from its shard, chunk by chunk, on a stream of its own.
#pragma once

#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "services/base/executor.h"
#include "services/base/rpc/stream.h"
#include "services/delivery/core/connection.h"

namespace sluice::delivery {

// Thread-safety: the executor. Lifetime: executor and client outlive it; destroying it drops the
// questions under way.
class FetchedBody final
    : public ChunkSource,
      private Stream<queue::v1::FetchBodyRequest, queue::v1::FetchBodyResponse>::Handler {
 public:
  using Client = StreamClient<queue::v1::FetchBodyRequest, queue::v1::FetchBodyResponse>;
  FetchedBody(Executor& executor, Client& client, uint64_t body_id)
      : executor_(executor), client_(client), body_id_(body_id) {}

  void Fetch(uint32_t chunk, absl::AnyInvocable<void(absl::StatusOr<Body>)> done) override {
    if (stream_ == nullptr) {
      stream_ = client_.Open(executor_);
      stream_->Start(this);
    }
    waiting_[chunk] = std::move(done);
    Frame<queue::v1::FetchBodyRequest> frame;
    frame.header.set_large_body_id(body_id_);
    frame.header.set_first_chunk(chunk);
    frame.header.set_count(1);
    stream_->Send(std::move(frame));
  }

 private:
  void OnFrame(Frame<queue::v1::FetchBodyResponse> frame) override {
    const auto found = waiting_.find(frame.header.chunk());
    if (found == waiting_.end()) return;
    auto done = std::move(found->second);
    waiting_.erase(found);
    if (frame.header.missing() || frame.bodies.empty()) {
      done(absl::NotFoundError(frame.header.detail()));
    } else {
      done(std::move(frame.bodies[0]));
    }
  }
  void OnClosed(absl::Status) override {
    stream_.reset();
    auto waiting = std::exchange(waiting_, {});
    for (auto& [chunk, done] : waiting) {
      done(absl::UnavailableError("the shard closed the stream of the body"));
    }
  }

  Executor& executor_;
  Client& client_;
  const uint64_t body_id_;
  std::shared_ptr<Stream<queue::v1::FetchBodyRequest, queue::v1::FetchBodyResponse>> stream_;
  absl::flat_hash_map<uint32_t, absl::AnyInvocable<void(absl::StatusOr<Body>)>> waiting_;
};

}  // namespace sluice::delivery
