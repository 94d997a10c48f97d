#include "services/base/rpc/grpc_stream.h"

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/slice.h>

namespace sluice::internal {
namespace {

// Below this a copy is cheaper than a reference.
constexpr size_t kCopyBytes = 1024;

std::string FieldHead(size_t size) {
  std::string head(1, '\x7a');  // field 15, length-delimited
  while (size >= 0x80) {
    head.push_back(static_cast<char>(size | 0x80));
    size >>= 7;
  }
  head.push_back(static_cast<char>(size));
  return head;
}

class ClientCall final : public RawStream,
                         private grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  ClientCall(Executor& executor, std::shared_ptr<grpc::Channel> channel)
      : RawStream(executor, true), stub_(std::move(channel)) {}

  void Begin(const std::string& method) {
    self_ = std::static_pointer_cast<ClientCall>(shared_from_this());
    stub_.PrepareBidiStreamingCall(&context_, method, {}, this);
    // Operations come from our threads, too: the call may not be done while one may still start.
    AddHold();
    StartRead(&incoming_);
    StartCall();
  }
  std::string peer() const override { return context_.peer(); }

 private:
  void DoRead() override { StartRead(&incoming_); }
  void DoWrite(const grpc::ByteBuffer& message) override { StartWrite(&message); }
  void DoFinish(const absl::Status& status) override {
    if (status.ok()) {
      StartWritesDone();
    } else {
      context_.TryCancel();
    }
  }
  void DoCancel() override { context_.TryCancel(); }
  // The call ends when the reads have: a cancelled one fails the read that is always waiting.
  void ReadsEnded() override { RemoveHold(); }

  void OnReadDone(bool ok) override { ReadDone(ok, std::exchange(incoming_, {})); }
  void OnWriteDone(bool ok) override { WriteDone(ok); }
  void OnDone(const grpc::Status& status) override {
    Ended(FromGrpc(status.error_code(), status.error_message()));
    const auto last = std::move(self_);
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer incoming_;
  std::shared_ptr<ClientCall> self_;
};

}  // namespace

grpc::ByteBuffer EncodeFrame(const std::string& header, const std::vector<Body>& bodies) {
  std::vector<grpc::Slice> slices;
  slices.reserve(1 + bodies.size() * 2);
  slices.emplace_back(header);
  for (const Body& body : bodies) {
    if (body.size() <= kCopyBytes) {
      std::string copy = FieldHead(body.size());
      copy.append(body.view());
      slices.emplace_back(copy);
      continue;
    }
    slices.emplace_back(FieldHead(body.size()));
    auto* held = new Body(body);
    slices.emplace_back(
        const_cast<char*>(body.view().data()), body.size(),
        [](void* held) { delete static_cast<Body*>(held); }, held);
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

std::shared_ptr<RawStream> OpenRawStream(const std::shared_ptr<grpc::Channel>& channel,
                                         const std::string& method, Executor& executor) {
  auto call = std::make_shared<ClientCall>(executor, channel);
  call->Begin(method);
  return call;
}

}  // namespace sluice::internal
