// Every message is injected once, and every kind of answer has its count; a broken stream is an
// error.
#include "tests/bench/loadgen/grpc_load.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <mutex>
#include <set>

#include "proto/sluice/ingest/v1/ingest_service.grpc.pb.h"

namespace sluice::bench {
namespace {

// Accepts, refuses or breaks off by the number of the message.
class FakeIngest final : public ingest::v1::IngestService::Service {
 public:
  grpc::Status InjectStream(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<ingest::v1::InjectStreamResponse, ingest::v1::InjectStreamRequest>*
          stream) override {
    ingest::v1::InjectStreamRequest request;
    while (stream->Read(&request)) {
      {
        std::lock_guard lock(mutex);
        tokens.insert(request.token());
        EXPECT_EQ(request.message().content().size(), 3000u);
        EXPECT_EQ(request.message().recipients_size(), 2);
      }
      if (request.token() == break_at) {
        return grpc::Status(grpc::StatusCode::INTERNAL, "broken on purpose");
      }
      ingest::v1::InjectStreamResponse response;
      response.set_token(request.token());
      if (request.token() % 10 == 3) response.set_code(grpc::RESOURCE_EXHAUSTED);
      if (request.token() % 10 == 4) response.set_code(grpc::INVALID_ARGUMENT);
      stream->Write(response);
    }
    return grpc::Status::OK;
  }

  std::mutex mutex;
  std::multiset<uint64_t> tokens;
  uint64_t break_at = UINT64_MAX;
};

struct Harness {
  Harness() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    options.target = "127.0.0.1:" + std::to_string(port);
    load.messages = 1000;
    load.size_bytes = 3000;
    load.recipients = 2;
  }
  ~Harness() { server->Shutdown(); }

  FakeIngest service;
  std::unique_ptr<grpc::Server> server;
  LoadOptions load;
  GrpcLoadOptions options;
};

TEST(GrpcLoad, EveryMessageOnceAndEveryAnswerCounted) {
  Harness h;
  auto result = RunGrpcLoad(h.load, h.options);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->accepted, 800u);
  EXPECT_EQ(result->deferred, 100u);
  EXPECT_EQ(result->rejected, 100u);
  EXPECT_EQ(result->latency.count(), 800u);
  EXPECT_EQ(h.service.tokens.size(), 1000u);
  EXPECT_EQ(std::set<uint64_t>(h.service.tokens.begin(), h.service.tokens.end()).size(), 1000u);
}

TEST(GrpcLoad, ABrokenStreamIsAnError) {
  Harness h;
  h.options.streams = 1;
  h.service.break_at = 500;
  auto result = RunGrpcLoad(h.load, h.options);
  ASSERT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(result.status().message()).find("broken on purpose"), std::string::npos);
}

}  // namespace
}  // namespace sluice::bench
