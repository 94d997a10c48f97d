// Streams between two actors of one process: frames change hands in batches, one wake-up a batch,
// and bodies are shared.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "services/base/check.h"
#include "services/base/rpc/stream.h"

namespace sluice {
namespace internal {

template <class Header>
size_t FrameBytes(const Frame<Header>& frame) {
  size_t bytes = frame.header.ByteSizeLong();
  for (const Body& body : frame.bodies) bytes += body.size();
  return bytes;
}

// One direction. Thread-safety: all members are guarded by `mutex`.
template <class T>
struct InprocLane {
  std::mutex mutex;
  std::vector<std::pair<Frame<T>, size_t>> frames;
  size_t bytes = 0;
  bool scheduled = false;  // the receiver has been woken
  bool receiving = false;  // the receiver was started
  bool sender_waits = false;
  std::optional<absl::Status> closing;  // after `frames`
};

// Lifetime: each end is destroyed on its own executor. A weak reference is only locked there, so an
// end whose use count is one while it calls out has been dropped by its owner.
template <class Out, class In>
class InprocEnd final : public Stream<Out, In>,
                        public std::enable_shared_from_this<InprocEnd<Out, In>> {
 public:
  using Handler = typename Stream<Out, In>::Handler;
  using Peer = InprocEnd<In, Out>;

  InprocEnd(Executor& executor, bool serving, std::shared_ptr<InprocLane<Out>> out,
            std::shared_ptr<InprocLane<In>> in)
      : executor_(executor), serving_(serving), out_(std::move(out)), in_(std::move(in)) {}

  ~InprocEnd() override {
    if (finished_ || closed_) return;
    EndOutput(absl::CancelledError("the other end dropped the stream"), false);
  }

  void set_peer(std::weak_ptr<Peer> peer, Executor& executor) {
    peer_ = std::move(peer);
    peer_executor_ = &executor;
  }

  void Start(Handler* handler) override {
    SLUICE_CHECK(handler_ == nullptr);
    handler_ = handler;
    std::lock_guard lock(in_->mutex);
    in_->receiving = true;
    if (in_->frames.empty() && !in_->closing) return;
    in_->scheduled = true;
    executor_.Post([weak = this->weak_from_this()] {
      if (auto self = weak.lock()) self->Drain(self);
    });
  }

  bool Send(Frame<Out> frame) override {
    if (finished_ || closed_) return true;
    const size_t size = FrameBytes(frame);
    size_t queued = 0;
    bool wake = false;
    {
      std::lock_guard lock(out_->mutex);
      queued = out_->bytes += size;
      if (queued <= kStreamHardLimitBytes) {
        out_->frames.emplace_back(std::move(frame), size);
        wake = out_->receiving && !std::exchange(out_->scheduled, out_->receiving);
        out_->sender_waits |= queued > kStreamHighWaterBytes;
      }
    }
    if (queued > kStreamHardLimitBytes) {
      Break(absl::ResourceExhaustedError("the stream's queue is full: the peer does not read"));
      return false;
    }
    if (wake) WakePeer();
    return queued <= kStreamHighWaterBytes;
  }

  void Close(absl::Status status) override {
    if (finished_ || closed_) return;
    if (client_done_) FinishAlone(status);
    EndOutput(std::move(status), false);
  }

  void Cancel() override {
    if (!finished_) Break(absl::CancelledError("the stream was cancelled"));
  }

  size_t queued_bytes() const override {
    std::lock_guard lock(out_->mutex);
    return out_->bytes;
  }

  std::string peer() const override { return "inproc"; }

  // What came in since the last wake-up.
  void Drain(const std::shared_ptr<InprocEnd>& self) {
    std::vector<std::pair<Frame<In>, size_t>> frames;
    std::optional<absl::Status> closing;
    {
      std::lock_guard lock(in_->mutex);
      frames.swap(in_->frames);
      closing = in_->closing;
      in_->scheduled = false;
    }
    size_t taken = 0;
    for (auto& [frame, size] : frames) {
      if (finished_) return;
      taken += size;
      handler_->OnFrame(std::move(frame));
      if (self.use_count() == 1) return;
    }
    bool sender_may_go_on = false;
    {
      std::lock_guard lock(in_->mutex);
      in_->bytes -= taken;
      sender_may_go_on = in_->sender_waits && in_->bytes < kStreamLowWaterBytes;
      if (sender_may_go_on) in_->sender_waits = false;
    }
    if (sender_may_go_on) {
      peer_executor_->Post([peer = peer_] {
        if (auto end = peer.lock()) end->OnPeerReady();
      });
    }
    if (!closing || finished_) return;
    if (serving_ && closing->ok() && !closed_) {
      client_done_ = true;
      const bool goes_on = handler_->OnClientDone();
      if (self.use_count() == 1 || finished_) return;
      if (goes_on) {
        bool cancelled = false;
        {
          // Taken: what the client may say from now on is that it cancels.
          std::lock_guard lock(in_->mutex);
          if (in_->closing && in_->closing->ok()) in_->closing.reset();
          cancelled = in_->closing.has_value();
        }
        if (cancelled) Drain(self);
        return;
      }
    }
    peer_executor_->Post([peer = peer_, status = *closing] {
      if (auto end = peer.lock()) end->Finish(status);
    });
    Finish(*closing);
  }

  void Finish(const absl::Status& status) {
    if (std::exchange(finished_, true)) return;
    if (handler_ != nullptr) handler_->OnClosed(status);
  }

  void OnPeerReady() {
    if (!finished_ && !closed_) handler_->OnWritable();
  }

 private:
  void WakePeer() {
    peer_executor_->Post([peer = peer_] {
      if (auto end = peer.lock()) end->Drain(end);
    });
  }

  // Where the client is gone, nobody else ends this end.
  void FinishAlone(const absl::Status& status) {
    peer_executor_->Post(
        [peer = peer_, self = this->weak_from_this(), &executor = executor_, status] {
          if (!peer.expired()) return;
          executor.Post([self, status] {
            if (auto end = self.lock()) end->Finish(status);
          });
        });
  }

  void EndOutput(absl::Status status, bool drop_queued) {
    closed_ = true;
    bool wake = false;
    {
      std::lock_guard lock(out_->mutex);
      if (drop_queued) {
        out_->frames.clear();
        out_->bytes = 0;
      }
      if (!out_->closing || (drop_queued && out_->closing->ok())) {
        out_->closing = std::move(status);
      }
      wake = out_->receiving && !std::exchange(out_->scheduled, out_->receiving);
    }
    if (wake) WakePeer();
  }

  // Ends both directions at once.
  void Break(absl::Status status) {
    EndOutput(status, true);
    {
      std::lock_guard lock(in_->mutex);
      in_->frames.clear();
      in_->bytes = 0;
    }
    executor_.Post([weak = this->weak_from_this(), status] {
      if (auto self = weak.lock()) self->Finish(status);
    });
  }

  Executor& executor_;
  const bool serving_;
  std::shared_ptr<InprocLane<Out>> out_;
  std::shared_ptr<InprocLane<In>> in_;
  std::weak_ptr<Peer> peer_;
  Executor* peer_executor_ = nullptr;
  Handler* handler_ = nullptr;
  bool closed_ = false;       // by us: nothing more is sent
  bool client_done_ = false;  // the client has closed, and the handler will
  bool finished_ = false;     // OnClosed was called
};

}  // namespace internal

// Thread-safety: Open on the executor it is given. Lifetime: the service outlives it and its
// streams' executors outlive the streams.
template <class Request, class Response>
class InprocStreamClient final : public StreamClient<Request, Response> {
 public:
  explicit InprocStreamClient(StreamService<Request, Response>& service) : service_(service) {}

  std::shared_ptr<Stream<Request, Response>> Open(Executor& executor) override {
    auto up = std::make_shared<internal::InprocLane<Request>>();
    auto down = std::make_shared<internal::InprocLane<Response>>();
    auto client =
        std::make_shared<internal::InprocEnd<Request, Response>>(executor, false, up, down);
    auto server = std::make_shared<internal::InprocEnd<Response, Request>>(service_.executor(),
                                                                           true, down, up);
    client->set_peer(server, service_.executor());
    server->set_peer(client, executor);
    service_.executor().Post([&service = service_, server = std::move(server)]() mutable {
      service.OnStream(std::move(server));
    });
    return client;
  }

 private:
  StreamService<Request, Response>& service_;
};

}  // namespace sluice
