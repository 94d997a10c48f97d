#include "services/base/rpc/rpc_server.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_initializer.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr int kMaxMessageBytes = 80 << 20;  // a stream's hard limit, and a frame
constexpr size_t kMaxUnixPath = 107;        // sockaddr_un

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

std::string Text(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (!buffer.Dump(&slices).ok()) return text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return text;
}

grpc::ByteBuffer Buffer(const std::string& text) {
  grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

class ServerCall final : public RawStream, private grpc::ServerGenericBidiReactor {
 public:
  ServerCall(Executor& executor, grpc::GenericCallbackServerContext* context)
      : RawStream(executor, false), context_(context), peer_(context->peer()) {}
  grpc::ServerGenericBidiReactor* Begin() {
    self_ = std::static_pointer_cast<ServerCall>(shared_from_this());
    StartRead(&incoming_);
    return this;
  }
  std::string peer() const override { return peer_; }

 private:
  void DoRead() override { StartRead(&incoming_); }
  void DoWrite(const grpc::ByteBuffer& message) override { StartWrite(&message); }
  void DoFinish(const absl::Status& status) override { Finish(ToGrpc(status)); }
  void DoCancel() override { FinishNow(absl::CancelledError("the server cancelled the stream")); }
  void ReadsEnded() override {
    if (context_->IsCancelled()) return;  // OnCancel says so
    ClientDone();
  }
  void OnCancel() override {
    Ended(absl::CancelledError("the client cancelled the stream, or its connection broke"));
    FinishNow(absl::CancelledError("cancelled"));
  }
  void OnReadDone(bool ok) override { ReadDone(ok, std::exchange(incoming_, {})); }
  void OnWriteDone(bool ok) override { WriteDone(ok); }
  void OnDone() override {
    Ended(absl::CancelledError("the stream is over"));
    const auto last = std::move(self_);
  }

  grpc::GenericCallbackServerContext* const context_;
  const std::string peer_;
  grpc::ByteBuffer incoming_;
  std::shared_ptr<ServerCall> self_;
};

// A unary call, read and answered by hand. It ends with the answer or with the client's going away,
// whichever comes first: an actor that answers late, or never, holds no call and no server.
class UnaryCall final : public grpc::ServerGenericBidiReactor {
 public:
  using Handler = std::function<void(const std::string&, const std::string&,
                                     std::function<void(absl::Status, std::string)>)>;
  UnaryCall(Executor& executor, Handler handler, std::string peer)
      : executor_(executor), handler_(std::move(handler)), peer_(std::move(peer)) {
    StartRead(&request_);
  }
  void OnCancel() override {
    if (!over_->exchange(true)) {
      Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the call was cancelled"));
    }
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      if (over_->exchange(true)) return;
      Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no request came"));
      return;
    }
    // `this` may be gone when these run; what they need of it lives on with them.
    executor_.Post([this, over = over_, handler = handler_, peer = peer_, bytes = Text(request_)] {
      if (*over) return;
      handler(peer, bytes, [this, over](absl::Status status, std::string response) {
        if (over->exchange(true)) return;
        if (!status.ok()) {
          Finish(ToGrpc(status));
          return;
        }
        response_ = Buffer(response);
        StartWriteAndFinish(&response_, {}, grpc::Status::OK);
      });
    });
  }
  void OnDone() override { delete this; }

 private:
  Executor& executor_;
  const Handler handler_;
  const std::string peer_;
  const std::shared_ptr<std::atomic<bool>> over_ = std::make_shared<std::atomic<bool>>(false);
  grpc::ByteBuffer request_;
  grpc::ByteBuffer response_;
};

class RefusedCall final : public grpc::ServerGenericBidiReactor {
 public:
  explicit RefusedCall(const absl::Status& why) { Finish(ToGrpc(why)); }
  void OnDone() override { delete this; }
};

RpcCall CallOf(const grpc::GenericCallbackServerContext& context) {
  constexpr std::string_view kScheme = "bearer ";
  RpcCall call;
  call.method = context.method();
  call.peer = context.peer();
  call.certificate = context.auth_context()->IsPeerAuthenticated();
  const auto found = context.client_metadata().find("authorization");
  if (found == context.client_metadata().end()) return call;
  const std::string_view value(found->second.data(), found->second.size());
  const absl::string_view scheme(value.data(), std::min(value.size(), kScheme.size()));
  if (absl::EqualsIgnoreCase(scheme, absl::string_view(kScheme.data(), kScheme.size()))) {
    call.token = value.substr(kScheme.size());
  }
  return call;
}

// gRPC ends its callback threads with the last channel or server that used them, and joins itself
// where a callback drops that last one, as the end of a call may. A channel to nowhere, which has
// made one call and is never dropped, keeps the threads until the process ends.
void KeepCallbackThreads() {
  struct Call {
    std::shared_ptr<grpc::Channel> channel = grpc::CreateChannel("", nullptr);
    grpc::GenericStub stub{channel};
    grpc::ClientContext context;
    grpc::ByteBuffer request = Buffer("");
    grpc::ByteBuffer response;
  };
  static Call* const kept = [] {
    auto* call = new Call;
    call->stub.UnaryCall(&call->context, "/sluice/Nowhere", {}, &call->request, &call->response,
                         [](const grpc::Status&) {});
    return call;
  }();
  (void)kept;
}

std::shared_ptr<grpc::experimental::CertificateProviderInterface> Certificates(const RpcTls& tls) {
  if (tls.ca_file.empty()) {
    return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
        tls.key_file, tls.cert_file, tls.reload_seconds);
  }
  return std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      tls.key_file, tls.cert_file, tls.ca_file, tls.reload_seconds);
}

// gRPC's own reflection service lists what was registered by generated services, and ours are
// behind one generic service. Their descriptors are in the program; only the names are missing.
class Reflection final : public grpc::reflection::ProtoServerReflectionPlugin {
 public:
  explicit Reflection(std::set<std::string> services) : services_(std::move(services)) {}
  void Finish(grpc::ServerInitializer* server) override {
    auto* list = const_cast<std::vector<std::string>*>(server->GetServiceList());
    list->insert(list->end(), services_.begin(), services_.end());
    ProtoServerReflectionPlugin::Finish(server);
  }

 private:
  const std::set<std::string> services_;
};

class WithReflection final : public grpc::ServerBuilderOption {
 public:
  explicit WithReflection(std::set<std::string> services) : services_(std::move(services)) {}
  void UpdateArguments(grpc::ChannelArguments* /*arguments*/) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    // gRPC's library puts the plain one into every builder.
    std::erase_if(*plugins, [](const auto& plugin) {
      return dynamic_cast<grpc::reflection::ProtoServerReflectionPlugin*>(plugin.get()) != nullptr;
    });
    plugins->push_back(std::make_unique<Reflection>(services_));
  }

 private:
  const std::set<std::string> services_;
};

}  // namespace

class RpcServer::Service final : public grpc::CallbackGenericService {
 public:
  struct StreamEntry {
    Executor* executor;
    OnRawStream on_stream;
  };
  struct UnaryEntry {
    Executor* executor;
    OnRawUnary on_call;
  };

  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* context) override {
    if (admit) {
      if (const absl::Status status = admit(CallOf(*context)); !status.ok()) {
        return new RefusedCall(status);
      }
    }
    if (const auto found = streams.find(context->method()); found != streams.end()) {
      auto call = std::make_shared<ServerCall>(*found->second.executor, context);
      grpc::ServerGenericBidiReactor* reactor = call->Begin();
      found->second.executor->Post(
          [call = std::move(call), &entry = found->second] { entry.on_stream(call); });
      return reactor;
    }
    if (const auto found = unary.find(context->method()); found != unary.end()) {
      return new UnaryCall(*found->second.executor, found->second.on_call, context->peer());
    }
    return new RefusedCall(
        absl::UnimplementedError(absl::StrCat("this process does not serve ", context->method())));
  }

  // "sluice.queue.v1.QueueService" for "/sluice.queue.v1.QueueService/Enqueue".
  std::set<std::string> Names() const {
    std::set<std::string> names;
    auto add = [&names](const std::string& method) {
      names.insert(method.substr(1, method.rfind('/') - 1));
    };
    for (const auto& [method, entry] : streams) add(method);
    for (const auto& [method, entry] : unary) add(method);
    return names;
  }

  std::function<absl::Status(const RpcCall&)> admit;
  std::map<std::string, StreamEntry> streams;
  std::map<std::string, UnaryEntry> unary;
};

RpcServer::RpcServer(RpcServerOptions options)
    : options_(std::move(options)), service_(std::make_unique<Service>()) {
  service_->admit = options_.admit;
}

RpcServer::~RpcServer() { Shutdown(std::chrono::milliseconds(100)); }

void RpcServer::AddRawStream(const std::string& method, Executor& executor, OnRawStream on_stream) {
  service_->streams[method] = {&executor, std::move(on_stream)};
}

void RpcServer::AddRawUnary(const std::string& method, Executor& executor, OnRawUnary on_call) {
  service_->unary[method] = {&executor, std::move(on_call)};
}

absl::Status RpcServer::Start() {
  if (options_.addresses.empty()) return absl::InvalidArgumentError("no address to serve gRPC on");
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (options_.tls.enabled()) {
    if (options_.client_certificates && options_.tls.ca_file.empty()) {
      return absl::InvalidArgumentError("mTLS needs the authority of the callers: --tls-ca");
    }
    if (absl::Status status = CheckTlsFiles(options_.tls); !status.ok()) return status;
    RpcTls files = options_.tls;
    if (!options_.client_certificates) files.ca_file.clear();
    grpc::experimental::TlsServerCredentialsOptions tls(Certificates(files));
    tls.watch_identity_key_cert_pairs();
    if (options_.client_certificates) {
      tls.watch_root_certs();
      tls.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    }
    credentials = grpc::experimental::TlsServerCredentials(tls);
  }
  std::vector<int> ports(options_.addresses.size(), 0);
  for (size_t i = 0; i < options_.addresses.size(); ++i) {
    const std::string& address = options_.addresses[i];
    if (!options_.tls.enabled() && !options_.allow_insecure && !IsOnThisMachine(address)) {
      return absl::FailedPreconditionError(
          absl::StrCat("will not serve gRPC on ", address,
                       " without TLS: give --tls-cert, --tls-key and "
                       "--tls-ca, or --allow-insecure-rpc"));
    }
    if (absl::StartsWith(address, "unix:") && address.size() - 5 > kMaxUnixPath) {
      return absl::InvalidArgumentError(absl::StrCat("cannot serve gRPC on ", address,
                                                     ": a socket's path has at most ", kMaxUnixPath,
                                                     " characters"));
    }
    builder.AddListeningPort(address, credentials, &ports[i]);
  }
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.SetOption(std::make_unique<WithReflection>(service_->Names()));
  builder.RegisterCallbackGenericService(service_.get());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    // They are taken in order; the first one without a port is the one that failed.
    size_t failed = 0;
    while (failed + 1 < ports.size() && ports[failed] > 0) ++failed;
    return absl::AlreadyExistsError(
        absl::StrCat("cannot serve gRPC on ", options_.addresses[failed],
                     ": the address is in use, or is not this machine's"));
  }
  for (size_t i = 0; i < ports.size(); ++i) {
    const std::string& address = options_.addresses[i];
    bound_.push_back(absl::StartsWith(address, "unix:")
                         ? address
                         : absl::StrCat(address.substr(0, address.rfind(':')), ":", ports[i]));
  }
  SetReady(false);
  return absl::OkStatus();
}

void RpcServer::SetReady(bool ready) {
  if (server_ == nullptr) return;
  if (auto* health = server_->GetHealthCheckService()) health->SetServingStatus(ready);
}

void RpcServer::Shutdown(Duration limit) {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() + limit);
  server_->Wait();
  server_.reset();
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const RpcTls& tls) {
  KeepCallbackThreads();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  // gRPC's own backoff grows to minutes: a peer that was killed is back sooner.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (tls.enabled()) {
    grpc::experimental::TlsChannelCredentialsOptions options;
    options.set_certificate_provider(Certificates(tls));
    options.watch_root_certs();
    options.watch_identity_key_cert_pairs();
    credentials = grpc::experimental::TlsCredentials(options);
  }
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

void CallRawUnary(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                  std::string request, Duration deadline, Executor& executor,
                  std::function<void(absl::StatusOr<std::string>)> done) {
  struct Call {
    explicit Call(std::shared_ptr<grpc::Channel> channel) : stub(std::move(channel)) {}
    grpc::GenericStub stub;
    grpc::ClientContext context;
    grpc::ByteBuffer request;
    grpc::ByteBuffer response;
  };
  auto call = std::make_shared<Call>(channel);
  call->request = Buffer(request);
  call->context.set_deadline(std::chrono::system_clock::now() + deadline);
  call->stub.UnaryCall(
      &call->context, method, {}, &call->request, &call->response,
      [call, &executor, done = std::move(done)](const grpc::Status& status) {
        absl::StatusOr<std::string> result =
            status.ok() ? absl::StatusOr<std::string>(Text(call->response))
                        : FromGrpc(status.error_code(), status.error_message());
        executor.Post([done, result = std::move(result)]() mutable { done(std::move(result)); });
      });
}

}  // namespace sluice
