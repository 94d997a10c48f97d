#include "tools/ctl/client.h"

#include <chrono>
#include <fstream>
#include <iterator>

#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

struct Deadline {
  explicit Deadline(const ClientOptions& options) {
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::milliseconds(options.timeout_ms));
  }
  grpc::ClientContext context;
};

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
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // long listings
  auto client = std::unique_ptr<Client>(new Client(options));
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

// The address may be a shard's, which serves no admin API.
template <class Method, class Request, class Response>
grpc::Status Client::CallOrAskShard(Method method, const Request& request, Response* response) {
  Deadline context(options_);
  grpc::Status status = (admin_.get()->*method)(&context.context, request, response);
  if (status.error_code() != grpc::StatusCode::UNIMPLEMENTED) return status;
  Deadline again(options_);
  grpc::Status said = AskShard(*shard_, &again.context, request, response);
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
  Deadline context(options_);
  return admin_->DeleteMessages(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::RetryQueuesRequest& request,
                          admin::v1::RetryQueuesResponse* response) {
  Deadline context(options_);
  return admin_->RetryQueues(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::SetQueueModeRequest& request,
                          admin::v1::SetQueueModeResponse* response) {
  Deadline context(options_);
  return admin_->SetQueueMode(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::SetQueueSourceRequest& request,
                          admin::v1::SetQueueSourceResponse* response) {
  Deadline context(options_);
  return admin_->SetQueueSource(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::ConfirmClockRequest& request,
                          admin::v1::ConfirmClockResponse* response) {
  Deadline context(options_);
  return admin_->ConfirmClock(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::RerouteMessagesRequest& request,
                          admin::v1::RerouteMessagesResponse* response) {
  Deadline context(options_);
  return admin_->RerouteMessages(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::ReleaseMessagesRequest& request,
                          admin::v1::ReleaseMessagesResponse* response) {
  Deadline context(options_);
  return admin_->ReleaseMessages(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::ListEventsRequest& request,
                          admin::v1::ListEventsResponse* response) {
  return CallOrAskShard(&admin::v1::AdminService::Stub::ListEvents, request, response);
}

grpc::Status Client::Call(const admin::v1::PauseRequest& request,
                          admin::v1::PauseResponse* response) {
  Deadline context(options_);
  return admin_->Pause(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::ResumeRequest& request,
                          admin::v1::ResumeResponse* response) {
  Deadline context(options_);
  return admin_->Resume(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::ListPausesRequest& request,
                          admin::v1::ListPausesResponse* response) {
  Deadline context(options_);
  return admin_->ListPauses(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::ListOwnersRequest& request,
                          admin::v1::ListOwnersResponse* response) {
  Deadline context(options_);
  return admin_->ListOwners(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::ReloadConfigRequest& request,
                          admin::v1::ReloadConfigResponse* response) {
  Deadline context(options_);
  return admin_->ReloadConfig(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::CheckConfigRequest& request,
                          admin::v1::CheckConfigResponse* response) {
  Deadline context(options_);
  return admin_->CheckConfig(&context.context, request, response);
}

grpc::Status Client::Call(const admin::v1::ExplainConfigRequest& request,
                          admin::v1::ExplainConfigResponse* response) {
  Deadline context(options_);
  return admin_->ExplainConfig(&context.context, request, response);
}

grpc::Status Client::Call(const ingest::v1::InjectRequest& request,
                          ingest::v1::InjectResponse* response) {
  Deadline context(options_);
  return ingest_->Inject(&context.context, request, response);
}

bool Client::connected() const { return channel_->GetState(false) == GRPC_CHANNEL_READY; }

int ReportFailure(const grpc::Status& status, std::string_view what, std::string_view address,
                  bool answered, Environment& env) {
  const std::string where = PrintableText(address);
  const std::string text = PrintableText(status.error_message());
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
