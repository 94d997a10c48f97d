// sluicectl before a small server of our own, for its tests.
#pragma once

#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "sluice/admin/v1/admin_service.grpc.pb.h"
#include "sluice/ingest/v1/ingest_service.grpc.pb.h"
#include "tools/ctl/app.h"

namespace sluice::ctl::testing {

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

inline constexpr char kId[] = "01HZZZZZZZZZZZZZZZZZZZZZZZ";

class FakeAdmin final : public admin::v1::AdminService::Service {
 public:
  Status GetStatus(ServerContext* context, const admin::v1::GetStatusRequest* request,
                   admin::v1::GetStatusResponse* response) override {
    const auto found = context->client_metadata().find("authorization");
    authorization = found == context->client_metadata().end()
                        ? ""
                        : std::string(found->second.data(), found->second.size());
    if (request->with_connections()) {
      auto* connection = response->add_workers()->add_connections();
      connection->set_queue(request->queue_pattern());
      connection->set_state("sending");
    }
    response->set_version("1.0");
    auto* shard = response->add_shards();
    shard->set_shard("0");
    shard->set_accepting(true);
    shard->set_delivered_total(100u * ++status_calls);
    for (const auto& name : unreachable) response->add_unreachable(name);
    return Status::OK;
  }
  Status ListQueues(ServerContext*, const admin::v1::ListQueuesRequest* request,
                    admin::v1::ListQueuesResponse* response) override {
    queues_request = *request;
    response->add_queues()->set_name("example.com/v1");
    return Status::OK;
  }
  Status GetQueue(ServerContext*, const admin::v1::GetQueueRequest* request,
                  admin::v1::GetQueueResponse*) override {
    if (request->name() == "away/v1") return Status(StatusCode::UNAVAILABLE, "no answer from s1");
    return Status(StatusCode::NOT_FOUND, "no queue of this name has mail\x1b[31m");
  }
  Status ListMessages(ServerContext*, const admin::v1::ListMessagesRequest* request,
                      admin::v1::ListMessagesResponse* response) override {
    list_request = *request;
    const int page = request->request().after().empty() ? 1 : 2;
    for (uint32_t i = 0; i < std::min(request->request().limit(), 1000u); ++i) {
      response->add_recipients()->mutable_delivery()->set_rcpt("p" + std::to_string(page));
    }
    response->set_after("page" + std::to_string(page));
    return Status::OK;
  }
  Status DeleteMessages(ServerContext*, const admin::v1::DeleteMessagesRequest* request,
                        admin::v1::DeleteMessagesResponse* response) override {
    delete_request = *request;
    const uint64_t n = std::min<uint64_t>(to_delete, request->request().limit());
    to_delete -= n;
    response->set_recipients(n);
    return Status::OK;
  }
  Status SetQueueMode(ServerContext*, const admin::v1::SetQueueModeRequest* request,
                      admin::v1::SetQueueModeResponse* response) override {
    mode_requests.push_back(*request);
    if (request->request().pattern() == "none/v1") {
      return Status(StatusCode::NOT_FOUND, "there is no queue none/v1");
    }
    response->set_queues(1);
    response->add_names(request->request().pattern());
    for (const auto& name : unreachable) response->add_unreachable(name);
    return Status::OK;
  }
  Status SetQueueSource(ServerContext*, const admin::v1::SetQueueSourceRequest* request,
                        admin::v1::SetQueueSourceResponse* response) override {
    source_request = *request;
    response->set_queues(2);
    return Status::OK;
  }
  Status ConfirmClock(ServerContext*, const admin::v1::ConfirmClockRequest* request,
                      admin::v1::ConfirmClockResponse* response) override {
    auto* shard = response->add_shards();
    shard->set_shard("shard-0");
    shard->set_was_frozen_us(request->author() == "olive" ? 7 : 0);
    for (const auto& name : unreachable) response->add_unreachable(name);
    return Status::OK;
  }
  Status Pause(ServerContext*, const admin::v1::PauseRequest* request,
               admin::v1::PauseResponse* response) override {
    pause_request = *request;
    response->mutable_entry()->set_id("p1");
    response->mutable_entry()->set_queue_pattern(request->queue_pattern());
    return Status::OK;
  }
  Status Resume(ServerContext*, const admin::v1::ResumeRequest* request,
                admin::v1::ResumeResponse* response) override {
    response->set_resumed(request->id() == "p1" ? 1 : 0);
    return Status::OK;
  }
  Status ListOwners(ServerContext*, const admin::v1::ListOwnersRequest*,
                    admin::v1::ListOwnersResponse* response) override {
    response->add_sources()->set_source_ip("192.0.2.1");
    return Status::OK;
  }
  Status ReloadConfig(ServerContext*, const admin::v1::ReloadConfigRequest*,
                      admin::v1::ReloadConfigResponse*) override {
    return Status(StatusCode::FAILED_PRECONDITION,
                  "main.cfg:7:1: error: no such directive: foo\n  foo \x1b[2J\n  ^\n");
  }
  Status CheckConfig(ServerContext*, const admin::v1::CheckConfigRequest*,
                     admin::v1::CheckConfigResponse* response) override {
    response->add_diagnostics("main.cfg:7: no such directive: foo");
    return Status::OK;
  }
  Status ExplainConfig(ServerContext*, const admin::v1::ExplainConfigRequest* request,
                       admin::v1::ExplainConfigResponse* response) override {
    auto* const subject = response->add_subjects();
    subject->set_subject("queue " + request->domain() + "/" + request->vmta());
    auto* const setting = subject->add_settings();
    setting->set_directive("max-smtp-out");
    setting->set_value("5");
    setting->set_section("<domain a.test>");
    setting->set_where("a.conf:3");
    response->add_notes("1 sections are different in the files by now");
    return Status::OK;
  }

  std::string authorization;  // of the last GetStatus
  uint64_t status_calls = 0;
  uint64_t to_delete = 0;
  std::vector<std::string> unreachable;
  admin::v1::ListQueuesRequest queues_request;
  admin::v1::ListMessagesRequest list_request;
  admin::v1::DeleteMessagesRequest delete_request;
  admin::v1::PauseRequest pause_request;
  std::vector<admin::v1::SetQueueModeRequest> mode_requests;
  admin::v1::SetQueueSourceRequest source_request;
};

// Takes every message, but none for `refused`, and says "later" `busy` times.
class FakeIngest final : public ingest::v1::IngestService::Service {
 public:
  Status Inject(ServerContext*, const ingest::v1::InjectRequest* request,
                ingest::v1::InjectResponse* response) override {
    ingest::v1::InjectStreamResponse answer;
    Take(*request, answer);
    response->set_message_id(answer.message_id());
    return Status(static_cast<StatusCode>(answer.code()), answer.detail());
  }
  Status InjectStream(ServerContext*,
                      grpc::ServerReaderWriter<ingest::v1::InjectStreamResponse,
                                               ingest::v1::InjectStreamRequest>* stream) override {
    ingest::v1::InjectStreamRequest request;
    while (stream->Read(&request)) {
      ingest::v1::InjectStreamResponse answer;
      answer.set_token(request.token());
      Take(request.message(), answer);
      stream->Write(answer);
      if (break_after != 0 && taken.size() == break_after) {
        break_after = 0;
        return Status(StatusCode::UNAVAILABLE, "going down");
      }
    }
    return Status::OK;
  }

  std::vector<ingest::v1::InjectRequest> taken;
  std::set<std::string> keys;
  size_t busy = 0;
  size_t break_after = 0;

 private:
  void Take(const ingest::v1::InjectRequest& request, ingest::v1::InjectStreamResponse& answer) {
    if (busy > 0) {
      --busy;
      answer.set_code(StatusCode::RESOURCE_EXHAUSTED);
      answer.set_detail("busy");
    } else if (request.recipients(0).address() == "refused@x") {
      answer.set_code(StatusCode::INVALID_ARGUMENT);
      answer.set_detail("no such\x1b domain");
    } else {
      answer.set_message_id(kId);
      if (!request.idempotency_key().empty() && !keys.insert(request.idempotency_key()).second) {
        answer.set_duplicate(true);
      } else {
        taken.push_back(request);
      }
    }
  }
};

class AppTest : public ::testing::Test {
 protected:
  AppTest() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&admin_);
    builder.RegisterService(&ingest_);
    server_ = builder.BuildAndStart();
    address_ = "127.0.0.1:" + std::to_string(port);
  }
  ~AppTest() override { server_->Shutdown(); }

  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"--server", address_});
    out_.str("");
    err_.str("");
    Environment env{in_,
                    out_,
                    err_,
                    false,
                    "olive",
                    [] { return int64_t{1'000'000'000'000}; },
                    [this](int64_t us) { slept_us_ += us; }};
    return ctl::Run(arguments, env);
  }

  FakeAdmin admin_;
  FakeIngest ingest_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::istringstream in_;
  std::ostringstream out_, err_;
  int64_t slept_us_ = 0;
};

inline ::testing::AssertionResult Has(const std::ostringstream& text, const std::string& part) {
  if (text.str().find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "\"" << part << "\" is not in:\n" << text.str();
}

}  // namespace sluice::ctl::testing
