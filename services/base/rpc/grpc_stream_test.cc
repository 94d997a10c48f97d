#include "services/base/rpc/grpc_stream.h"

#include "services/base/rpc/rpc_server.h"
#include "services/base/rpc/stream_contract.h"
#include "sluice/queue/v1/queue_service.grpc.pb.h"

namespace sluice {
namespace {

constexpr char kMethod[] = "/sluice.queue.v1.QueueService/Enqueue";

struct GrpcHarness {
  explicit GrpcHarness(StreamService<ContractRequest, ContractResponse>& service)
      : server(RpcServerOptions{{"127.0.0.1:0"}, {}, false}) {
    server.AddStream(kMethod, service);
    const absl::Status started = server.Start();
    EXPECT_TRUE(started.ok()) << started;
    stream_client = std::make_unique<GrpcStreamClient<ContractRequest, ContractResponse>>(
        MakeChannel(server.addresses()[0], {}), kMethod);
  }
  StreamClient<ContractRequest, ContractResponse>& client() { return *stream_client; }
  RpcServer server;
  std::unique_ptr<GrpcStreamClient<ContractRequest, ContractResponse>> stream_client;
};
INSTANTIATE_TYPED_TEST_SUITE_P(Grpc, StreamContract, GrpcHarness);

class RunningLoop {
 public:
  RunningLoop() : thread_([this] { loop.Run(); }) {}
  ~RunningLoop() { Stop(); }
  void Stop() {
    if (!thread_.joinable()) return;
    loop.Stop();
    thread_.join();
  }
  EventLoop loop;

 private:
  std::thread thread_;
};

TEST(Grpc, AStockStubCanTalkToAStreamService) {
  RunningLoop running;
  ContractService service(running.loop);
  {
    GrpcHarness harness(service);
    auto stub = queue::v1::QueueService::NewStub(MakeChannel(harness.server.addresses()[0], {}));
    grpc::ClientContext context;
    auto stream = stub->Enqueue(&context);
    ContractRequest request;
    request.add_messages()->set_token(7);
    request.mutable_messages(0)->set_body_index(0);
    request.add_bodies(std::string(100'000, 'z'));
    ASSERT_TRUE(stream->Write(request));
    ContractResponse response;
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.results(0).token(), 7U);
    EXPECT_EQ(response.results(0).detail(), "100000z");
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
  }
  running.Stop();
  service.DropAll();
}

TEST(Grpc, UnaryCallsRunOnTheirExecutorAndFailWithTheirStatus) {
  RunningLoop running;
  RpcServer server(RpcServerOptions{{"127.0.0.1:0"}, {}, false});
  server.AddUnary<queue::v1::ShardLoad, queue::v1::ShardLoad>(
      "/t.T/Echo", running.loop,
      [&running](queue::v1::ShardLoad request, Done<queue::v1::ShardLoad> done) {
        EXPECT_TRUE(running.loop.InLoopThread());
        if (request.accepting()) {
          done(std::move(request));
        } else {
          done(absl::NotFoundError("no such thing"));
        }
      });
  ASSERT_TRUE(server.Start().ok());
  const auto channel = MakeChannel(server.addresses()[0], {});
  EventLoop loop;
  int answers = 0;
  auto call = [&](const std::string& method, bool accepting, absl::StatusCode expected) {
    queue::v1::ShardLoad request;
    request.set_accepting(accepting);
    CallUnary<queue::v1::ShardLoad, queue::v1::ShardLoad>(
        channel, method, request, std::chrono::seconds(10), loop,
        [&answers, expected](absl::StatusOr<queue::v1::ShardLoad> response) {
          EXPECT_EQ(response.status().code(), expected) << response.status();
          ++answers;
        });
  };
  call("/t.T/Echo", true, absl::StatusCode::kOk);
  call("/t.T/Echo", false, absl::StatusCode::kNotFound);
  call("/t.T/Nothing", true, absl::StatusCode::kUnimplemented);
  for (int i = 0; i < 500 && answers < 3; ++i) loop.RunOnce(std::chrono::milliseconds(20));
  EXPECT_EQ(answers, 3);
}

TEST(Grpc, WhatIsNotLoopbackNeedsTlsAndATakenPortIsNamed) {
  RpcServer open(RpcServerOptions{{"0.0.0.0:0"}, {}, false});
  EXPECT_EQ(open.Start().code(), absl::StatusCode::kFailedPrecondition);
  RpcServer first(RpcServerOptions{{"127.0.0.1:0"}, {}, false});
  ASSERT_TRUE(first.Start().ok());
  RpcServer second(RpcServerOptions{{first.addresses()[0]}, {}, false});
  const absl::Status status = second.Start();
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.ToString().find(first.addresses()[0]), std::string::npos);
}

}  // namespace
}  // namespace sluice
