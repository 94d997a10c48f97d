// Proves that the gRPC transport keeps the contract of streams, and that the server says what is
// wrong with its addresses.
#include "services/base/rpc/grpc_stream.h"

#include "services/base/rpc/rpc_server.h"
#include "services/base/rpc/stream_contract.h"
#include "services/base/testing/temp_folder.h"
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

// One call of raw bytes; a stream that answers its first message with one is called the same way.
std::string Ask(const std::string& address, const std::string& method, std::string request) {
  EventLoop loop;
  absl::StatusOr<std::string> answer = absl::UnknownError("no answer came");
  bool done = false;
  CallRawUnary(MakeChannel(address, {}), method, std::move(request), std::chrono::seconds(10), loop,
               [&](absl::StatusOr<std::string> result) {
                 answer = std::move(result);
                 done = true;
               });
  for (int i = 0; i < 1000 && !done; ++i) loop.RunOnce(std::chrono::milliseconds(20));
  return answer.ok() ? *answer : answer.status().ToString();
}

TEST(Grpc, ReflectionNamesTheServicesAndKnowsTheirProtos) {
  RunningLoop running;
  ContractService service(running.loop);
  GrpcHarness harness(service);
  const std::string& address = harness.server.addresses()[0];
  constexpr char kInfo[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  // ServerReflectionRequest.list_services = 7, file_containing_symbol = 4.
  EXPECT_NE(Ask(address, kInfo, "\x3a\x01*").find("sluice.queue.v1.QueueService"),
            std::string::npos);
  const std::string symbol = "sluice.queue.v1.QueueService.Enqueue";
  const std::string file =
      Ask(address, kInfo, "\x22" + std::string(1, static_cast<char>(symbol.size())) + symbol);
  EXPECT_NE(file.find("queue_service.proto"), std::string::npos);
  EXPECT_NE(file.find("EnqueueRequest"), std::string::npos);
}

TEST(Grpc, HealthFollowsReadiness) {
  RpcServer server(RpcServerOptions{{"127.0.0.1:0"}, {}, false});
  ASSERT_TRUE(server.Start().ok());
  const std::string& address = server.addresses()[0];
  // HealthCheckResponse.status = 1: NOT_SERVING is 2, SERVING 1.
  EXPECT_EQ(Ask(address, "/grpc.health.v1.Health/Check", ""), "\x08\x02");
  server.SetReady(true);
  EXPECT_EQ(Ask(address, "/grpc.health.v1.Health/Check", ""), "\x08\x01");
  server.SetReady(false);
  EXPECT_EQ(Ask(address, "/grpc.health.v1.Health/Check", ""), "\x08\x02");
}

TEST(Grpc, AServiceThatReadsOnAfterItsCallIsGoneIsToldSo) {
  EventLoop server_loop;  // stands still at first
  ContractService service(server_loop);
  EventLoop loop;
  struct Closed final : Stream<ContractRequest, ContractResponse>::Handler {
    void OnFrame(Frame<ContractResponse>) override {}
    void OnClosed(absl::Status) override {}
  } closed;
  {
    GrpcHarness harness(service);
    auto stream = harness.client().Open(loop);
    stream->Start(&closed);
    // So much that the server's end stops reading until its service has taken some.
    for (int i = 0; i < 3; ++i) {
      Frame<ContractRequest> frame;
      auto* message = frame.header.add_messages();
      message->set_body_index(0);
      frame.bodies.emplace_back(std::string(kStreamHighWaterBytes / 2, 'x'));
      stream->Send(std::move(frame));
    }
    for (int i = 0; i < 1000 && stream->queued_bytes() > 0; ++i) {
      loop.RunOnce(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(stream->queued_bytes(), 0U);
    harness.server.Shutdown(std::chrono::milliseconds(0));
    for (int i = 0; i < 1000 && service.closed().empty(); ++i) {
      server_loop.RunOnce(std::chrono::milliseconds(5));
    }
  }
  ASSERT_EQ(service.closed().size(), 1U);
  EXPECT_EQ(service.closed()[0].code(), absl::StatusCode::kCancelled);
  service.DropAll();
}

// A short path: gTest's folder can be longer than a socket's name may be.
class SocketFolder {
 public:
  std::string address() const { return "unix:" + folder_.File("rpc.sock"); }

 private:
  const testing::TempFolder folder_{"rpc", "/tmp"};
};

TEST(Grpc, OfSeveralAddressesTheTakenOneIsNamed) {
  RpcServer first(RpcServerOptions{{"127.0.0.1:0"}, {}, false});
  ASSERT_TRUE(first.Start().ok());
  const SocketFolder folder;
  RpcServer second(RpcServerOptions{{folder.address(), first.addresses()[0]}, {}, false});
  const std::string status = second.Start().ToString();
  EXPECT_NE(status.find(first.addresses()[0]), std::string::npos) << status;
  EXPECT_EQ(status.find(folder.address()), std::string::npos) << status;
}

TEST(Grpc, AUnixSocketServes) {
  const SocketFolder folder;
  RpcServer server(RpcServerOptions{{folder.address()}, {}, false});
  const absl::Status started = server.Start();
  ASSERT_TRUE(started.ok()) << started;
  server.SetReady(true);
  EXPECT_EQ(Ask(server.addresses()[0], "/grpc.health.v1.Health/Check", ""), "\x08\x01");
}

TEST(Grpc, ASocketPathThatIsTooLongIsRefusedAsSuch) {
  RpcServer server(RpcServerOptions{{"unix:/tmp/" + std::string(110, 'x')}, {}, false});
  EXPECT_EQ(server.Start().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
