// A gRPC server of streams and unary calls that are given to actors on their executors, with
// health, reflection and the rules of who may connect.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/server.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/base/rpc/grpc_stream.h"
#include "services/base/rpc/rpc_tls.h"
#include "services/base/rpc/unary.h"

namespace sluice {

// One call, before it is served.
struct RpcCall {
  std::string method;        // "/sluice.admin.v1.AdminService/Pause"
  std::string peer;          // as gRPC says it: see peer.h
  std::string token;         // of `authorization: Bearer TOKEN`; empty: none
  bool certificate = false;  // the caller showed one of the authority
};

struct RpcServerOptions {
  std::vector<std::string> addresses;  // "127.0.0.1:0", "[::1]:7100", "unix:/run/sluice.sock"
  RpcTls tls;
  // Other addresses than loopback without TLS.
  bool allow_insecure = false;
  // With TLS only those are served who show a certificate of the authority. false: anybody, without
  // the need of an authority; `admit` then says who may do what.
  bool client_certificates = true;
  // Whether a call is served: OK, or what the caller is told. None: all are. Called from any
  // thread, several at a time; must not block.
  std::function<absl::Status(const RpcCall&)> admit;
};

// Thread-safety: Add* before Start, everything else from any thread. Lifetime: services and
// executors outlive it.
class RpcServer {
 public:
  explicit RpcServer(RpcServerOptions options);
  ~RpcServer();

  template <class Req, class Resp>
  void AddStream(const std::string& method, StreamService<Req, Resp>& service) {
    AddRawStream(method, service.executor(), [&service](std::shared_ptr<RawStream> raw) {
      service.OnStream(std::make_shared<internal::GrpcStream<Resp, Req>>(std::move(raw)));
    });
  }
  // `handler` runs on `executor`, and calls its Done on any thread.
  template <class Req, class Resp>
  void AddUnary(const std::string& method, Executor& executor,
                std::function<void(Req, Done<Resp>)> handler) {
    AddUnaryWithPeer<Req, Resp>(method, executor,
                                [handler](const std::string&, Req request, Done<Resp> done) {
                                  handler(std::move(request), std::move(done));
                                });
  }
  // `handler` hears who calls, as gRPC says it: "ipv4:127.0.0.1:4711" (see peer.h).
  template <class Req, class Resp>
  void AddUnaryWithPeer(const std::string& method, Executor& executor,
                        std::function<void(const std::string& peer, Req, Done<Resp>)> handler) {
    AddRawUnary(method, executor,
                [handler](const std::string& peer, const std::string& bytes, RawDone done) {
                  Req request;
                  if (!request.ParseFromString(bytes)) {
                    done(absl::InvalidArgumentError("the request cannot be parsed"), "");
                    return;
                  }
                  handler(peer, std::move(request),
                          [done = std::move(done)](absl::StatusOr<Resp> response) {
                            if (response.ok()) {
                              done(absl::OkStatus(), response->SerializeAsString());
                            } else {
                              done(response.status(), "");
                            }
                          });
                });
  }

  // FAILED_PRECONDITION, INVALID_ARGUMENT or ALREADY_EXISTS, with the address and what to do.
  absl::Status Start();
  // With the ports that were really taken.
  const std::vector<std::string>& addresses() const { return bound_; }
  // grpc.health.v1; true after Start only when told so.
  void SetReady(bool ready);
  // Ends: calls under way get `limit` to finish, then they are cancelled, whatever their actors do.
  void Shutdown(Duration limit);

 private:
  using RawDone = std::function<void(absl::Status, std::string)>;
  using OnRawStream = std::function<void(std::shared_ptr<RawStream>)>;
  using OnRawUnary =
      std::function<void(const std::string& peer, const std::string& request, RawDone)>;
  class Service;

  void AddRawStream(const std::string& method, Executor& executor, OnRawStream on_stream);
  void AddRawUnary(const std::string& method, Executor& executor, OnRawUnary on_call);

  const RpcServerOptions options_;
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::string> bound_;
};

// A channel to one service, which reconnects by itself within a second.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const RpcTls& tls);

// One unary call. `done` runs on `executor`, once, at the latest after `deadline`.
void CallRawUnary(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                  std::string request, Duration deadline, Executor& executor,
                  std::function<void(absl::StatusOr<std::string>)> done);

template <class Req, class Resp>
void CallUnary(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
               const Req& request, Duration deadline, Executor& executor, Done<Resp> done) {
  auto shared = std::make_shared<Done<Resp>>(std::move(done));
  CallRawUnary(channel, method, request.SerializeAsString(), deadline, executor,
               [shared](absl::StatusOr<std::string> bytes) {
                 Resp response;
                 if (!bytes.ok()) {
                   (*shared)(bytes.status());
                 } else if (!response.ParseFromString(*bytes)) {
                   (*shared)(absl::InternalError("the response cannot be parsed"));
                 } else {
                   (*shared)(std::move(response));
                 }
               });
}

}  // namespace sluice
