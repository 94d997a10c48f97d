// The gRPC side of sluicectl: one channel to the admin API, one to ingest, a deadline on every
// call.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "grpcpp/client_context.h"
#include "grpcpp/support/status.h"
#include "sluice/admin/v1/admin_service.grpc.pb.h"
#include "sluice/ingest/v1/ingest_service.grpc.pb.h"
#include "tools/ctl/environment.h"
#include "tools/ctl/one_shard.h"

namespace sluice::ctl {

struct ClientOptions {
  std::string server = "127.0.0.1:7100";  // admin API
  std::string ingest;                     // empty: `server`
  int64_t timeout_ms = 10'000;            // a unary call
  // PEM files. Without a CA the connection is plaintext, which servers accept on loopback only.
  std::string tls_ca, tls_cert, tls_key;
  std::string token_file;  // whose token goes to `server`, and to nobody else
};

// Thread-safety: calls may come from any thread.
// Failure: Create says which TLS file cannot be used; connecting happens at the first call.
class Client {
 public:
  static std::unique_ptr<Client> Create(const ClientOptions& options, std::string& error);

  // One overload an RPC.
  grpc::Status Call(const admin::v1::GetStatusRequest&, admin::v1::GetStatusResponse*);
  grpc::Status Call(const admin::v1::ListQueuesRequest&, admin::v1::ListQueuesResponse*);
  grpc::Status Call(const admin::v1::GetQueueRequest&, admin::v1::GetQueueResponse*);
  grpc::Status Call(const admin::v1::ListMessagesRequest&, admin::v1::ListMessagesResponse*);
  grpc::Status Call(const admin::v1::GetMessageRequest&, admin::v1::GetMessageResponse*);
  grpc::Status Call(const admin::v1::DeleteMessagesRequest&, admin::v1::DeleteMessagesResponse*);
  grpc::Status Call(const admin::v1::RetryQueuesRequest&, admin::v1::RetryQueuesResponse*);
  grpc::Status Call(const admin::v1::SetQueueModeRequest&, admin::v1::SetQueueModeResponse*);
  grpc::Status Call(const admin::v1::SetQueueSourceRequest&, admin::v1::SetQueueSourceResponse*);
  grpc::Status Call(const admin::v1::ConfirmClockRequest&, admin::v1::ConfirmClockResponse*);
  grpc::Status Call(const admin::v1::RerouteMessagesRequest&, admin::v1::RerouteMessagesResponse*);
  grpc::Status Call(const admin::v1::ReleaseMessagesRequest&, admin::v1::ReleaseMessagesResponse*);
  grpc::Status Call(const admin::v1::ListEventsRequest&, admin::v1::ListEventsResponse*);
  grpc::Status Call(const admin::v1::PauseRequest&, admin::v1::PauseResponse*);
  grpc::Status Call(const admin::v1::ResumeRequest&, admin::v1::ResumeResponse*);
  grpc::Status Call(const admin::v1::ListPausesRequest&, admin::v1::ListPausesResponse*);
  grpc::Status Call(const admin::v1::ListOwnersRequest&, admin::v1::ListOwnersResponse*);
  grpc::Status Call(const admin::v1::ReloadConfigRequest&, admin::v1::ReloadConfigResponse*);
  grpc::Status Call(const admin::v1::CheckConfigRequest&, admin::v1::CheckConfigResponse*);
  grpc::Status Call(const admin::v1::ExplainConfigRequest&, admin::v1::ExplainConfigResponse*);
  grpc::Status Call(const ingest::v1::InjectRequest&, ingest::v1::InjectResponse*);

  // Streams have no deadline of their own: the caller watches the answers.
  ingest::v1::IngestService::Stub& ingest() { return *ingest_; }
  const ClientOptions& options() const { return options_; }
  // To the admin API, at this moment.
  bool connected() const;

 private:
  template <class Method, class Request, class Response>
  grpc::Status CallOrAskShard(Method method, const Request& request, Response* response);
  explicit Client(ClientOptions options) : options_(std::move(options)) {}
  // Of a call to `server`: its deadline and the token.
  void Prepare(grpc::ClientContext& context) const;

  ClientOptions options_;
  std::string authorization_;  // of calls to `server`; may be empty
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<admin::v1::AdminService::Stub> admin_;
  std::unique_ptr<ShardStub> shard_;
  std::unique_ptr<ingest::v1::IngestService::Stub> ingest_;
};

// Says on `env.err` what failed, where, and what to do about it; returns the exit code. `answered`:
// the server itself said so, and not the lack of a connection to it.
int ReportFailure(const grpc::Status& status, std::string_view what, std::string_view address,
                  bool answered, Environment& env);

}  // namespace sluice::ctl
