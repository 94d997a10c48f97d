// Proves that between services only those with a certificate of the right authority are served,
// that new certificates are taken without a restart, that a name is no loopback address, and that
// an actor that stands still does not hold the server's end.
#include "services/base/rpc/rpc_server.h"

#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <future>
#include <mutex>
#include <thread>

#include "services/base/net/event_loop.h"
#include "services/base/testing/temp_folder.h"
#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice {
namespace {

using Load = queue::v1::ShardLoad;
constexpr char kMethod[] = "/t.T/Echo";

// A folder with an authority and a certificate of it, for 127.0.0.1.
class Certificates {
 public:
  // False where the openssl program is missing.
  bool Make() {
    const std::string quiet = " 2>>" + folder_ + "/errors";
    const std::string made = folder_ + "/new";
    std::filesystem::create_directory(made);
    const std::string key = " -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout " + made;
    const bool ok = Run("openssl req -x509 -days 2 -subj /CN=ca" + key + "/ca.key -out " + made +
                        "/ca.pem" + quiet) &&
                    Run("openssl req -subj /CN=sluice -addext subjectAltName=IP:127.0.0.1" + key +
                        "/key.pem -out " + made + "/request.pem" + quiet) &&
                    Run("openssl x509 -req -days 2 -CAcreateserial -copy_extensions copy -in " +
                        made + "/request.pem -CA " + made + "/ca.pem -CAkey " + made +
                        "/ca.key -out " + made + "/cert.pem" + quiet);
    // All at once, as Kubernetes does it.
    std::filesystem::remove_all(folder_ + "/old");
    if (std::filesystem::exists(folder_ + "/now")) {
      std::filesystem::rename(folder_ + "/now", folder_ + "/old");
    }
    std::filesystem::rename(made, folder_ + "/now");
    return ok;
  }
  RpcTls tls() const {
    const std::string now = folder_ + "/now/";
    return {now + "cert.pem", now + "key.pem", now + "ca.pem", 1};
  }

 private:
  static bool Run(const std::string& command) { return std::system(command.c_str()) == 0; }
  const testing::TempFolder temp_{"tls"};
  const std::string folder_ = temp_.path();
};

class RpcServerTest : public ::testing::Test {
 protected:
  RpcServerTest() : thread_([this] { loop_.Run(); }) {}
  ~RpcServerTest() override { StopLoop(); }
  void StopLoop() {
    if (!thread_.joinable()) return;
    loop_.Stop();
    thread_.join();
  }
  std::unique_ptr<RpcServer> Serve(const RpcTls& tls) {
    return Serve(RpcServerOptions{{"127.0.0.1:0"}, tls, false});
  }
  std::unique_ptr<RpcServer> Serve(RpcServerOptions options) {
    auto server = std::make_unique<RpcServer>(std::move(options));
    server->AddUnary<Load, Load>(kMethod, loop_,
                                 [](Load request, Done<Load> done) { done(std::move(request)); });
    const absl::Status started = server->Start();
    EXPECT_TRUE(started.ok()) << started;
    return server;
  }
  static absl::StatusCode Call(const RpcServer& server, const RpcTls& tls,
                               Duration limit = std::chrono::seconds(20)) {
    EventLoop loop;
    std::optional<absl::Status> result;
    CallUnary<Load, Load>(MakeChannel(server.addresses()[0], tls), kMethod, Load(), limit, loop,
                          [&](absl::StatusOr<Load> response) { result = response.status(); });
    while (!result) loop.RunOnce(std::chrono::milliseconds(20));
    return result->code();
  }

  EventLoop loop_;
  std::thread thread_;
};

TEST_F(RpcServerTest, OnlyCertificatesOfTheAuthorityAreServed) {
  Certificates ours;
  Certificates others;
  ASSERT_TRUE(ours.Make());
  ASSERT_TRUE(others.Make());
  const auto server = Serve(ours.tls());
  EXPECT_EQ(Call(*server, ours.tls()), absl::StatusCode::kOk);
  EXPECT_EQ(Call(*server, {}), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Call(*server, others.tls()), absl::StatusCode::kUnavailable);
  // The server's authority, and a certificate that it did not sign.
  RpcTls mixed = others.tls();
  mixed.ca_file = ours.tls().ca_file;
  EXPECT_EQ(Call(*server, mixed), absl::StatusCode::kUnavailable);
}

// Its own stub, as a token is no part of what services say to each other.
absl::Status CallWithToken(const RpcServer& server, const std::string& authorization,
                           const RpcTls& tls) {
  grpc::GenericStub stub(MakeChannel(server.addresses()[0], tls));
  grpc::ClientContext context;
  context.AddMetadata("authorization", authorization);
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  const grpc::Slice empty("");
  const grpc::ByteBuffer request(&empty, 1);
  grpc::ByteBuffer response;
  std::promise<absl::Status> result;
  stub.UnaryCall(&context, kMethod, {}, &request, &response, [&](const grpc::Status& status) {
    result.set_value(
        absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message()));
  });
  return result.get_future().get();
}

TEST_F(RpcServerTest, EachCallIsAskedForWithTokenAndCertificate) {
  Certificates ours;
  ASSERT_TRUE(ours.Make());
  std::mutex mutex;
  std::vector<RpcCall> calls;
  RpcServerOptions options{{"127.0.0.1:0"}, ours.tls(), false};
  options.admit = [&](const RpcCall& call) -> absl::Status {
    const std::lock_guard lock(mutex);
    calls.push_back(call);
    if (call.token == "good") return absl::OkStatus();
    return absl::PermissionDeniedError("who are you");
  };
  const auto mutual = Serve(options);
  EXPECT_TRUE(CallWithToken(*mutual, "Bearer good", ours.tls()).ok());
  const absl::Status refused = CallWithToken(*mutual, "Bearer bad", ours.tls());
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(refused.message(), "who are you");
  EXPECT_EQ(CallWithToken(*mutual, "Basic good", ours.tls()).code(),
            absl::StatusCode::kPermissionDenied);
  for (const RpcCall& call : calls) {
    EXPECT_EQ(call.method, kMethod);
    EXPECT_TRUE(call.certificate);
    EXPECT_EQ(call.peer.rfind("ipv4:127.0.0.1:", 0), 0u) << call.peer;
  }
  // A server that knows who calls by the token alone asks nobody for a certificate.
  calls.clear();
  options.client_certificates = false;
  options.tls.ca_file.clear();
  const auto by_token = Serve(options);
  RpcTls client = ours.tls();
  EXPECT_TRUE(CallWithToken(*by_token, "bearer good", client).ok());
  ASSERT_EQ(calls.size(), 1u);
  EXPECT_FALSE(calls[0].certificate);
  EXPECT_EQ(CallWithToken(*by_token, "Bearer good", {}).code(), absl::StatusCode::kUnavailable)
      << "in the clear";
}

TEST_F(RpcServerTest, FilesThatCannotBeUsedEndTheStart) {
  Certificates ours;
  Certificates others;
  ASSERT_TRUE(ours.Make());
  ASSERT_TRUE(others.Make());
  const auto fails = [](const RpcTls& tls, const std::string& named) {
    const absl::Status status = RpcServer(RpcServerOptions{{"127.0.0.1:0"}, tls, false}).Start();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(named), std::string::npos) << status;
  };
  RpcTls tls = ours.tls();
  tls.key_file = others.tls().key_file;
  fails(tls, tls.key_file);
  tls = ours.tls();
  tls.cert_file += ".absent";
  fails(tls, tls.cert_file);
  tls = ours.tls();
  tls.ca_file = tls.key_file;
  fails(tls, tls.ca_file);
  tls.ca_file.clear();
  fails(tls, "--tls-ca");
}

TEST_F(RpcServerTest, NewCertificatesAreTakenWithoutARestart) {
  Certificates ours;
  ASSERT_TRUE(ours.Make());
  const auto server = Serve(ours.tls());
  ASSERT_EQ(Call(*server, ours.tls()), absl::StatusCode::kOk);
  ASSERT_TRUE(ours.Make());  // also a new authority
  const Clock& clock = loop_.clock();
  const MonotonicTime end = clock.Now() + std::chrono::seconds(30);
  absl::StatusCode code = absl::StatusCode::kUnavailable;
  while (code != absl::StatusCode::kOk && clock.Now() < end) {
    code = Call(*server, ours.tls(), std::chrono::milliseconds(500));
  }
  EXPECT_EQ(code, absl::StatusCode::kOk);
}

TEST_F(RpcServerTest, ANameIsNoLoopbackAddress) {
  for (const char* address : {"127.example.com:0", "127.0.0.1.example.com:0", "[::2]:0",
                              "0.0.0.0:0", "localhost.example.com:0", "128.0.0.1:0"}) {
    RpcServer server(RpcServerOptions{{address}, {}, false});
    EXPECT_EQ(server.Start().code(), absl::StatusCode::kFailedPrecondition) << address;
  }
  for (const char* address : {"127.3.2.1:0", "localhost:0"}) {
    RpcServer server(RpcServerOptions{{address}, {}, false});
    EXPECT_TRUE(server.Start().ok()) << address;
  }
}

TEST_F(RpcServerTest, AnActorThatStandsStillHoldsNoShutdown) {
  EventLoop still;  // never runs
  Done<Load> kept;
  auto server = std::make_unique<RpcServer>(RpcServerOptions{{"127.0.0.1:0"}, {}, false});
  server->AddUnary<Load, Load>(kMethod, still, [](Load, Done<Load> done) { done(Load()); });
  server->AddUnary<Load, Load>("/t.T/Keeps", loop_,
                               [&kept](Load, Done<Load> done) { kept = std::move(done); });
  ASSERT_TRUE(server->Start().ok());
  EventLoop loop;
  int answers = 0;
  const auto channel = MakeChannel(server->addresses()[0], {});
  for (const char* method : {kMethod, "/t.T/Keeps"}) {
    CallUnary<Load, Load>(channel, method, Load(), std::chrono::seconds(20), loop,
                          [&answers](absl::StatusOr<Load> response) {
                            EXPECT_FALSE(response.ok());
                            ++answers;
                          });
  }
  // Both have arrived.
  std::atomic<bool> arrived = false;
  while (!arrived) {
    loop_.Post([&] { arrived = static_cast<bool>(kept); });
    loop.RunOnce(std::chrono::milliseconds(5));
  }
  server->Shutdown(std::chrono::milliseconds(50));
  while (answers < 2) loop.RunOnce(std::chrono::milliseconds(20));
  // Too late, and harmless.
  StopLoop();
  kept(Load());
  for (int i = 0; i < 10; ++i) still.RunOnce(std::chrono::milliseconds(1));
}

}  // namespace
}  // namespace sluice
