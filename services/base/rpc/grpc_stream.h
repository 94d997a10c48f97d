// Streams over gRPC: the wire is that of the .proto files, so any gRPC program can be the other
// end.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <memory>
#include <string>
#include <utility>

#include "services/base/rpc/raw_stream.h"
#include "services/base/rpc/stream.h"

namespace sluice {

namespace internal {

// Appends the bodies as field 15 to the header's bytes, sharing them.
grpc::ByteBuffer EncodeFrame(const std::string& header, const std::vector<Body>& bodies);

template <class Header>
bool DecodeFrame(grpc::ByteBuffer& message, Frame<Header>* frame) {
  grpc::ProtoBufferReader reader(&message);
  if (!frame->header.ParseFromZeroCopyStream(&reader)) return false;
  if constexpr (requires { frame->header.mutable_bodies(); }) {
    frame->bodies.reserve(static_cast<size_t>(frame->header.bodies_size()));
    for (std::string& body : *frame->header.mutable_bodies()) {
      frame->bodies.emplace_back(std::move(body));
    }
    frame->header.clear_bodies();
  }
  return true;
}

// Opens a call; the stream's reactor is gRPC's until the call ends.
std::shared_ptr<RawStream> OpenRawStream(const std::shared_ptr<grpc::Channel>& channel,
                                         const std::string& method, Executor& executor);

template <class Out, class In>
class GrpcStream final : public Stream<Out, In>, private RawStreamHandler {
 public:
  using Handler = typename Stream<Out, In>::Handler;
  explicit GrpcStream(std::shared_ptr<RawStream> raw) : raw_(std::move(raw)) {}
  ~GrpcStream() override { raw_->Detach(); }

  void Start(Handler* handler) override {
    user_ = handler;
    raw_->Start(this);
  }
  bool Send(Frame<Out> frame) override {
    return raw_->Send(EncodeFrame(frame.header.SerializeAsString(), frame.bodies));
  }
  void Close(absl::Status status) override { raw_->Close(std::move(status)); }
  void Cancel() override { raw_->Cancel(); }
  size_t queued_bytes() const override { return raw_->queued_bytes(); }
  std::string peer() const override { return raw_->peer(); }

 private:
  void OnRawMessage(grpc::ByteBuffer message) override {
    Frame<In> frame;
    if (!DecodeFrame(message, &frame)) {
      raw_->Close(absl::InvalidArgumentError("a frame cannot be parsed"));
      return;
    }
    user_->OnFrame(std::move(frame));
  }
  void OnRawWritable() override { user_->OnWritable(); }
  bool OnRawClientDone() override { return user_->OnClientDone(); }
  void OnRawClosed(absl::Status status) override { user_->OnClosed(std::move(status)); }

  std::shared_ptr<RawStream> raw_;
  Handler* user_ = nullptr;
};

}  // namespace internal

// `method`: "/sluice.queue.v1.QueueService/Enqueue".
template <class Request, class Response>
class GrpcStreamClient final : public StreamClient<Request, Response> {
 public:
  GrpcStreamClient(std::shared_ptr<grpc::Channel> channel, std::string method)
      : channel_(std::move(channel)), method_(std::move(method)) {}
  std::shared_ptr<Stream<Request, Response>> Open(Executor& executor) override {
    return std::make_shared<internal::GrpcStream<Request, Response>>(
        internal::OpenRawStream(channel_, method_, executor));
  }

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::string method_;
};

}  // namespace sluice
