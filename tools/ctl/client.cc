#include "tools/ctl/client.h"

#include <chrono>
#include <fstream>
#include <iterator>
#include <sstream>

#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "services/base/rpc/rpc_tls.h"
#include "tools/ctl/text.h"
#include "tools/ctl/token.h"

namespace sluice::ctl {
namespace {

bool ReadFile(const std::string& path, std::string& content, std::string& error) {
  if (path.empty()) return true;
  std::ifstream file(path, std::ios::binary);
  content.assign(std::istreambuf_iterator<char>(file), {});
  if (file.bad() || content.empty()) {
    error = "cannot read " + PrintableText(path) + ", or it is empty";
    return false;
  }
  return true;
}

}  // namespace

std::unique_ptr<Client> Client::Create(const ClientOptions& options, std::string& error) {
  std::shared_ptr<grpc::ChannelCredentials> credentials;
  if (options.tls_ca.empty()) {
    if (!options.tls_cert.empty() || !options.tls_key.empty()) {
      error = "--tls-cert and --tls-key need --tls-ca";
      return nullptr;
    }
    credentials = grpc::InsecureChannelCredentials();
  } else {
    grpc::SslCredentialsOptions tls;
    if (!ReadFile(options.tls_ca, tls.pem_root_certs, error) ||
        !ReadFile(options.tls_cert, tls.pem_cert_chain, error) ||
        !ReadFile(options.tls_key, tls.pem_private_key, error)) {
      return nullptr;
    }
    credentials = grpc::SslCredentials(tls);
  }
  std::string token;
  if (!options.token_file.empty()) {
    if (!ReadToken(options.token_file, token, error)) return nullptr;
    if (options.tls_ca.empty() && !IsOnThisMachine(options.server)) {
      error = "a token is not sent to " + PrintableText(options.server) +
              " in the clear: give --tls-ca";
      return nullptr;
    }
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // long listings
  auto client = std::unique_ptr<Client>(new Client(options));
  if (!token.empty()) client->authorization_ = "Bearer " + token;
  if (client->options_.ingest.empty()) client->options_.ingest = client->options_.server;
  const auto channel = grpc::CreateCustomChannel(client->options_.server, credentials, arguments);
  client->channel_ = channel;
  client->admin_ = admin::v1::AdminService::NewStub(channel);
  client->shard_ = queue::v1::QueueControlService::NewStub(channel);
  client->ingest_ = ingest::v1::IngestService::NewStub(
      client->options_.ingest == client->options_.server
          ? channel
          : grpc::CreateCustomChannel(client->options_.ingest, credentials, arguments));
  return client;
}

void Client::Prepare(grpc::ClientContext& context) const {
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(options_.timeout_ms));
  if (!authorization_.empty()) context.AddMetadata("authorization", authorization_);
}

// The address may be a shard's, which serves no admin API.
template <class Method, class Request, class Response>
grpc::Status Client::CallOrAskShard(Method method, const Request& request, Response* response) {
  grpc::ClientContext context;
  Prepare(context);
  grpc::Status status = (admin_.get()->*method)(&context, request, response);
  if (status.error_code() != grpc::StatusCode::UNIMPLEMENTED) return status;
  grpc::ClientContext again;
  Prepare(again);
  grpc::Status said = AskShard(*shard_, &again, request, response);
  return said.error_code() == grpc::StatusCode::UNIMPLEMENTED ? status : said;
}

grpc::Status Client::Call(const admin::v1::GetStatusRequest& request,
                          admin::v1::GetStatusResponse* response) {
  return CallOrAskShard(&admin::v1::AdminService::Stub::GetStatus, request, response);
}

grpc::Status Client::Call(const admin::v1::ListQueuesRequest& request,
                          admin::v1::ListQueuesResponse* response) {
  return CallOrAskShard(&admin::v1::AdminService::Stub::ListQueues, request, response);
}

grpc::Status Client::Call(const admin::v1::GetQueueRequest& request,
                          admin::v1::GetQueueResponse* response) {
  return CallOrAskShard(&admin::v1::AdminService::Stub::GetQueue, request, response);
}

grpc::Status Client::Call(const admin::v1::ListMessagesRequest& request,
                          admin::v1::ListMessagesResponse* response) {
  return CallOrAskShard(&admin::v1::AdminService::Stub::ListMessages, request, response);
}

grpc::Status Client::Call(const admin::v1::GetMessageRequest& request,
                          admin::v1::GetMessageResponse* response) {
  return CallOrAskShard(&admin::v1::AdminService::Stub::GetMessage, request, response);
}

grpc::Status Client::Call(const admin::v1::DeleteMessagesRequest& request,
                          admin::v1::DeleteMessagesResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->DeleteMessages(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::RetryQueuesRequest& request,
                          admin::v1::RetryQueuesResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->RetryQueues(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::SetQueueModeRequest& request,
                          admin::v1::SetQueueModeResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->SetQueueMode(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::SetQueueSourceRequest& request,
                          admin::v1::SetQueueSourceResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->SetQueueSource(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::ConfirmClockRequest& request,
                          admin::v1::ConfirmClockResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->ConfirmClock(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::RerouteMessagesRequest& request,
                          admin::v1::RerouteMessagesResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->RerouteMessages(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::ReleaseMessagesRequest& request,
                          admin::v1::ReleaseMessagesResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->ReleaseMessages(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::ListEventsRequest& request,
                          admin::v1::ListEventsResponse* response) {
  return CallOrAskShard(&admin::v1::AdminService::Stub::ListEvents, request, response);
}

grpc::Status Client::Call(const admin::v1::PauseRequest& request,
                          admin::v1::PauseResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->Pause(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::ResumeRequest& request,
                          admin::v1::ResumeResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->Resume(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::ListPausesRequest& request,
                          admin::v1::ListPausesResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->ListPauses(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::ListOwnersRequest& request,
                          admin::v1::ListOwnersResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->ListOwners(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::ReloadConfigRequest& request,
                          admin::v1::ReloadConfigResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->ReloadConfig(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::CheckConfigRequest& request,
                          admin::v1::CheckConfigResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->CheckConfig(&context, request, response);
}

grpc::Status Client::Call(const admin::v1::ExplainConfigRequest& request,
                          admin::v1::ExplainConfigResponse* response) {
  grpc::ClientContext context;
  Prepare(context);
  return admin_->ExplainConfig(&context, request, response);
}

grpc::Status Client::Call(const ingest::v1::InjectRequest& request,
                          ingest::v1::InjectResponse* response) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(options_.timeout_ms));
  return ingest_->Inject(&context, request, response);
}

bool Client::connected() const { return channel_->GetState(false) == GRPC_CHANNEL_READY; }

int ReportFailure(const grpc::Status& status, std::string_view what, std::string_view address,
                  bool answered, Environment& env) {
  const std::string where = PrintableText(address);
  // Of several lines, as what is wrong with a file.
  std::string text;
  std::istringstream lines(status.error_message());
  for (std::string line; std::getline(lines, line);) {
    text += (text.empty() ? "" : "\n") + PrintableText(line);
  }
  if (text.find('\n') != text.npos) text.insert(0, "\n");
  env.err << "sluicectl: " << what << ": ";
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      if (answered) {  // a shard or worker behind it is away
        env.err << text << "\n";
        return kExitPartly;
      }
      env.err << "no connection to " << where << ": " << text
              << "\n  Is the service running there? Another address: --server, or SLUICE_SERVER. "
                 "While the "
                 "policy service is\n  away, a shard's address shows that shard's queues and "
                 "messages.\n";
      return kExitUnreachable;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      env.err << where << " did not answer in time\n  Try again, or give it longer by --timeout.\n";
      return kExitUnreachable;
    case grpc::StatusCode::NOT_FOUND:
      env.err << (text.empty() ? "not found" : text) << "\n";
      return kExitNotFound;
    case grpc::StatusCode::UNIMPLEMENTED:
      env.err << where << " does not offer this: " << text
              << "\n  Is this the address of the admin API (or of ingest, for inject)?\n";
      return kExitRefused;
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED:
      env.err << where << " does not allow it: " << text << "\n";
      return kExitRefused;
    default:
      env.err << (text.empty() ? "refused with code " + std::to_string(status.error_code()) : text)
              << "\n";
      return kExitRefused;
  }
}

}  // namespace sluice::ctl
