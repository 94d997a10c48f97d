// Proves what the command line does with a server: what it asks, what it prints, its exit codes,
// and that what cannot be done is said with the place and a remedy. The server is a small one of
// our own.
#include "tools/ctl/app.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>

#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "sluice/admin/v1/admin_service.grpc.pb.h"
#include "sluice/ingest/v1/ingest_service.grpc.pb.h"
#include "sluice/queue/v1/queue_control.grpc.pb.h"

namespace sluice::ctl {
namespace {

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;

constexpr char kId[] = "01HZZZZZZZZZZZZZZZZZZZZZZZ";

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

class AppTest : public testing::Test {
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

testing::AssertionResult Has(const std::ostringstream& text, const std::string& part) {
  if (text.str().find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "\"" << part << "\" is not in:\n" << text.str();
}

TEST_F(AppTest, ATokenIsMadeAndSentToTheAdminApi) {
  const std::string file = testing::TempDir() + "/anna.token";
  std::filesystem::remove(file);
  EXPECT_EQ(Run({"token", "anna", "--role", "operator", "--to", file}), kExitOk) << err_.str();
  std::string token;
  std::getline(std::ifstream(file), token);
  EXPECT_EQ(token.size(), 47u);
  EXPECT_EQ(out_.str().rfind("anna operator sha256:", 0), 0u) << out_.str();
  EXPECT_EQ(out_.str().find(token), std::string::npos) << "the line has the hash alone";
  EXPECT_EQ(std::filesystem::status(file).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  // Never over another one.
  EXPECT_EQ(Run({"token", "otto", "--to", file}), kExitUsage);
  EXPECT_TRUE(Has(err_, file));
  EXPECT_EQ(Run({"token", "no/name", "--to", file + "2"}), kExitUsage);

  EXPECT_EQ(Run({"status", "--token-file", file}), kExitOk) << err_.str();
  EXPECT_EQ(admin_.authorization, "Bearer " + token);
  EXPECT_EQ(Run({"status"}), kExitOk);
  EXPECT_EQ(admin_.authorization, "");
  // Anybody on the way could read it.
  const std::string here = std::exchange(address_, "127.example.com:7100");
  EXPECT_EQ(Run({"status", "--token-file", file}), kExitUsage);
  address_ = here;
  EXPECT_TRUE(Has(err_, "--tls-ca"));
  std::ofstream(file) << "not a token\n";
  EXPECT_EQ(Run({"status", "--token-file", file}), kExitUsage);
  EXPECT_TRUE(Has(err_, "holds no token"));
  EXPECT_FALSE(Has(err_, "not a token"));
  EXPECT_EQ(Run({"status", "--token-file", file + ".absent"}), kExitUsage);
}

TEST_F(AppTest, VersionIsTold) {
  EXPECT_EQ(Run({"--version"}), kExitOk);
  EXPECT_TRUE(Has(out_, "\nspool format "));
}

TEST_F(AppTest, HelpAndWrongArguments) {
  EXPECT_EQ(Run({"--help"}), kExitOk);
  EXPECT_TRUE(Has(out_, "Exit codes:"));
  EXPECT_EQ(Run({"inject", "--help"}), kExitOk);
  EXPECT_TRUE(Has(out_, "--idempotency-key"));
  EXPECT_EQ(Run({}), kExitUsage);
  EXPECT_EQ(Run({"frobnicate\x1b[2J"}), kExitUsage);
  EXPECT_EQ(err_.str().find('\x1b'), std::string::npos) << err_.str();
  EXPECT_EQ(Run({"status", "-o", "yaml"}), kExitUsage);
  EXPECT_EQ(Run({"top", "--once", "--interval", "soon"}), kExitUsage);
  EXPECT_TRUE(Has(err_, "--interval soon"));
  EXPECT_EQ(Run({"status", "--tls-ca", "/nonexistent.pem"}), kExitUsage);
  EXPECT_TRUE(Has(err_, "/nonexistent.pem"));
}

// While the policy service is away: the same commands, at a shard's address.
TEST_F(AppTest, AShardAnswersForItself) {
  struct FakeShard final : queue::v1::QueueControlService::Service {
    Status GetShardStatus(ServerContext*, const queue::v1::GetShardStatusRequest*,
                          queue::v1::GetShardStatusResponse* response) override {
      response->set_shard("s7");
      return Status::OK;
    }
    Status ListQueues(ServerContext*, const queue::v1::ListQueuesRequest* request,
                      queue::v1::ListQueuesResponse* response) override {
      response->add_queues()->set_name("x/v");
      response->set_more(request->limit() == 1);
      return Status::OK;
    }
    Status GetQueue(ServerContext*, const queue::v1::GetQueueRequest* request,
                    queue::v1::GetQueueResponse* response) override {
      if (request->name() != "x/v") return Status(StatusCode::NOT_FOUND, "no such queue");
      response->mutable_queue()->set_reason("the policy service is away");
      return Status::OK;
    }
    Status ListMessages(ServerContext*, const queue::v1::ListMessagesRequest*,
                        queue::v1::ListMessagesResponse* response) override {
      response->add_recipients()->mutable_delivery()->set_rcpt("u@x");
      return Status::OK;
    }
    Status ReadEvents(ServerContext*, const queue::v1::ReadEventsRequest* request,
                      queue::v1::ReadEventsResponse* response) override {
      if (request->message_id().size() == 16) response->add_events()->set_queue("x/v");
      return Status::OK;
    }
  } shard;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&shard);
  const auto server = builder.BuildAndStart();
  address_ = "127.0.0.1:" + std::to_string(port);
  EXPECT_EQ(Run({"status"}), kExitOk);
  EXPECT_TRUE(Has(out_, "s7"));
  EXPECT_EQ(Run({"queues", "list", "--limit", "1"}), kExitOk);
  EXPECT_TRUE(Has(out_, "x/v"));
  EXPECT_TRUE(Has(out_, "there are more"));
  EXPECT_EQ(Run({"queues", "show", "x/v"}), kExitOk);
  EXPECT_TRUE(Has(out_, "the policy service is away"));
  EXPECT_EQ(Run({"queues", "show", "y/v"}), kExitNotFound);
  EXPECT_EQ(Run({"messages", "list"}), kExitOk);
  EXPECT_TRUE(Has(out_, "u@x"));
  EXPECT_EQ(Run({"events", "--message", kId}), kExitOk);
  EXPECT_TRUE(Has(out_, "x/v"));
  EXPECT_EQ(Run({"pauses"}), kExitRefused);
  EXPECT_TRUE(Has(err_, "does not offer this"));
  server->Shutdown();
}

TEST_F(AppTest, OwnersAsTableAndAsJson) {
  EXPECT_EQ(Run({"owners"}), kExitOk);
  EXPECT_TRUE(Has(out_, "192.0.2.1"));
  EXPECT_EQ(Run({"owners", "-o", "json"}), kExitOk);
  EXPECT_TRUE(Has(out_, "\"source_ip\": \"192.0.2.1\""));
}

TEST_F(AppTest, NoServerIsSaidWithPlaceAndRemedy) {
  server_->Shutdown();
  EXPECT_EQ(Run({"status"}), kExitUnreachable);
  EXPECT_TRUE(Has(err_, address_));
  EXPECT_TRUE(Has(err_, "SLUICE_SERVER"));
  EXPECT_EQ(out_.str(), "");
  EXPECT_EQ(Run({"inject", "--from", "a@x", "--to", "b@y"}), kExitUnreachable);
}

TEST_F(AppTest, StatusAsTableAndJson) {
  EXPECT_EQ(Run({"status"}), kExitOk);
  EXPECT_TRUE(Has(out_, "SHARD"));
  admin_.unreachable = {"shard 1"};
  EXPECT_EQ(Run({"-o", "json", "status"}), kExitPartly);
  EXPECT_TRUE(Has(out_, "\"unreachable\": [\n    \"shard 1\"\n  ]"));
  EXPECT_EQ(Run({"status", "-o", "json"}), kExitPartly) << "global options also after the command";
}

TEST_F(AppTest, QueuesListAndShow) {
  EXPECT_EQ(Run({"queues", "list", "*.com/v1", "--limit", "7", "--paused"}), kExitOk);
  EXPECT_TRUE(Has(out_, "example.com/v1"));
  EXPECT_EQ(admin_.queues_request.request().pattern(), "*.com/v1");
  EXPECT_EQ(admin_.queues_request.request().limit(), 7u);
  EXPECT_TRUE(admin_.queues_request.request().paused_only());
  EXPECT_EQ(Run({"queues"}), kExitOk);
  EXPECT_TRUE(Has(out_, "example.com/v1"));
  EXPECT_EQ(Run({"queues", "show", "away/v1"}), kExitPartly);
  EXPECT_EQ(err_.str(), "sluicectl: queues show away/v1: no answer from s1\n")
      << "we are connected";
  EXPECT_EQ(Run({"queues", "show", "nowhere/v1"}), kExitNotFound);
  EXPECT_TRUE(Has(err_, "queues show nowhere/v1: no queue of this name has mail?[31m"));
}

TEST_F(AppTest, TopOnceTakesARate) {
  EXPECT_EQ(Run({"top", "--once", "--interval", "1s"}), kExitOk);
  EXPECT_EQ(slept_us_, 1'000'000);
  EXPECT_EQ(admin_.status_calls, 2u);
  EXPECT_TRUE(Has(out_, "example.com/v1"));
}

TEST_F(AppTest, WhatIsInForceIsAskedOfTheServer) {
  EXPECT_EQ(Run({"config", "explain", "--running", "a.test", "--vmta", "news"}), 0);
  EXPECT_TRUE(Has(out_,
                  "queue a.test/news\nmax-smtp-out  5  a.conf:3 <domain a.test>\n"
                  "1 sections are different in the files by now\n"));
}

TEST_F(AppTest, ConfigErrorsNameFileAndLine) {
  EXPECT_EQ(Run({"reload"}), kExitRefused);
  EXPECT_TRUE(Has(err_, "\nmain.cfg:7:1: error: no such directive: foo\n  foo ")) << err_.str();
  EXPECT_FALSE(Has(err_, "\x1b"));
  EXPECT_EQ(Run({"config", "check", "--on-server", "main.cfg"}), 2);
  EXPECT_TRUE(Has(out_, "does not load"));
  EXPECT_EQ(Run({"config", "check", "no-such-file"}), 2);
  EXPECT_TRUE(Has(out_, "no-such-file: error: "));
  EXPECT_EQ(Run({"config", "check", "--live", "no-such-file"}), 2);
  EXPECT_EQ(Run({"config", "check", "--live"}), kExitUsage);
  EXPECT_TRUE(Has(err_, "--live is for files of this machine"));
}

TEST_F(AppTest, PauseAndResume) {
  EXPECT_EQ(Run({"pause", "gmail.com/*", "--reason", "complaints", "--for", "2h"}), kExitOk);
  EXPECT_EQ(admin_.pause_request.queue_pattern(), "gmail.com/*");
  EXPECT_EQ(admin_.pause_request.author(), "olive");
  EXPECT_EQ(admin_.pause_request.until_us(), 1'000'000'000'000 + int64_t{7200} * 1'000'000);
  EXPECT_TRUE(Has(out_, "sluicectl resume --id p1"));
  EXPECT_EQ(Run({"pause"}), kExitUsage);
  EXPECT_EQ(Run({"resume", "--id", "p1"}), kExitOk);
  EXPECT_EQ(Run({"resume", "--id", "p2"}), kExitNotFound);
  EXPECT_EQ(Run({"resume"}), kExitUsage);
}

TEST_F(AppTest, ModesAndSourcesOfQueues) {
  EXPECT_EQ(Run({"queues", "backoff", "gmail.com/v1", "*.yahoo.com/*", "--reason", "throttled",
                 "--for", "2h"}),
            kExitOk);
  ASSERT_EQ(admin_.mode_requests.size(), 2u);
  const auto& request = admin_.mode_requests[1].request();
  EXPECT_EQ(request.pattern(), "*.yahoo.com/*");
  EXPECT_TRUE(request.backoff());
  EXPECT_EQ(request.author(), "olive");
  EXPECT_EQ(request.reason(), "throttled");
  EXPECT_EQ(request.until_us(), 1'000'000'000'000 + int64_t{7200} * 1'000'000);
  EXPECT_TRUE(Has(out_, "2 queues in backoff mode\n  gmail.com/v1\n  *.yahoo.com/*\n"));
  EXPECT_EQ(Run({"queues", "normal", "a/v1", "none/v1", "b/v1"}), kExitNotFound);
  EXPECT_EQ(admin_.mode_requests.size(), 4u) << "nothing after what failed";
  EXPECT_FALSE(admin_.mode_requests[2].request().backoff());
  EXPECT_TRUE(Has(out_, "1 queue back in normal mode\n")) << "what was done is told";
  EXPECT_TRUE(Has(err_, "queues normal none/v1: there is no queue none/v1"));
  EXPECT_EQ(Run({"queues", "backoff"}), kExitUsage);
  EXPECT_EQ(Run({"queues", "backoff", "a/v1", "--for", "soon"}), kExitUsage);
  EXPECT_EQ(Run({"queues", "disable-source", "a/*", "--source", "192.0.2.7"}), kExitOk);
  EXPECT_EQ(admin_.source_request.request().ip(), "192.0.2.7");
  EXPECT_TRUE(admin_.source_request.request().disable());
  EXPECT_EQ(Run({"queues", "enable-source", "a/*", "--source", "192.0.2.7"}), kExitOk);
  EXPECT_FALSE(admin_.source_request.request().disable());
  EXPECT_EQ(Run({"queues", "enable-source", "a/*"}), kExitUsage);
  admin_.unreachable = {"shard-1"};
  EXPECT_EQ(Run({"queues", "backoff", "a/v1"}), kExitPartly);
  EXPECT_TRUE(Has(out_, "no answer from shard-1: it has not heard of this"));
}

TEST_F(AppTest, ConnectionsAreShown) {
  EXPECT_EQ(Run({"connections", "gmail.com/v1"}), kExitOk);
  EXPECT_TRUE(Has(out_, "gmail.com/v1"));
  EXPECT_TRUE(Has(out_, "sending"));
}

TEST_F(AppTest, TheClockIsShownAndConfirmed) {
  EXPECT_EQ(Run({"clock", "show"}), kExitOk);
  EXPECT_TRUE(Has(out_, "WALL CLOCK"));
  EXPECT_EQ(Run({"clock", "confirm"}), kExitOk);
  EXPECT_TRUE(Has(out_, "UTC is right, mail expires again"));
  EXPECT_EQ(Run({"clock", "confirm", "--author", "max"}), kExitOk);
  EXPECT_TRUE(Has(out_, "nothing waited for that"));
  admin_.unreachable = {"shard-1"};
  EXPECT_EQ(Run({"clock", "confirm"}), kExitPartly);
  EXPECT_TRUE(Has(out_, "no answer from shard-1"));
}

TEST_F(AppTest, MessagesListPages) {
  EXPECT_EQ(Run({"messages", "list", "--rcpt", "bob@x", "--limit", "1500", "--older-than", "4h"}),
            kExitOk);
  EXPECT_TRUE(Has(out_, "p1"));
  EXPECT_TRUE(Has(out_, "p2"));
  EXPECT_EQ(admin_.list_request.request().limit(), 500u);
  EXPECT_EQ(admin_.list_request.request().after(), "page1");
  EXPECT_EQ(admin_.list_request.request().filter().rcpt(), "bob@x");
  EXPECT_EQ(admin_.list_request.request().filter().older_than_us(), int64_t{4 * 3600} * 1'000'000);
  EXPECT_EQ(Run({"messages", "list", "--id", "short"}), kExitUsage);
  EXPECT_TRUE(Has(err_, "short is no message id"));
}

TEST_F(AppTest, DeleteNeedsAChoiceAndGoesOnUntilNothingIsLeft) {
  EXPECT_EQ(Run({"messages", "delete"}), kExitUsage);
  EXPECT_TRUE(Has(err_, "--all"));
  EXPECT_EQ(Run({"messages", "delete", "--all", "--job", "j"}), kExitUsage);
  admin_.to_delete = 25'000;
  EXPECT_EQ(Run({"messages", "delete", "--job", "j", "--reason", "recalled"}), kExitOk);
  EXPECT_EQ(admin_.to_delete, 0u);
  EXPECT_TRUE(Has(out_, "25000 recipients deleted"));
  EXPECT_EQ(admin_.delete_request.request().author(), "olive");
  EXPECT_FALSE(admin_.delete_request.request().filter().all());
  admin_.to_delete = 25'000;
  EXPECT_EQ(Run({"messages", "delete", "--all", "--limit", "12000"}), kExitOk);
  EXPECT_EQ(admin_.to_delete, 13'000u);
  EXPECT_TRUE(admin_.delete_request.request().filter().all());
}

TEST_F(AppTest, InjectMadeUpMessages) {
  EXPECT_EQ(
      Run({"inject",  "--from",     "a@x",    "--to",     "u%n@y",  "--to",     "v@z",
           "--count", "1000",       "--size", "2000",     "--vmta", "v1",       "--job",
           "j",       "--metadata", "k=v",    "--window", "10",     "--notify", "success,failure"}),
      kExitOk);
  EXPECT_TRUE(Has(out_, "1000 accepted"));
  ASSERT_EQ(ingest_.taken.size(), 1000u);
  const auto& last = ingest_.taken.back();
  EXPECT_EQ(last.recipients(0).address(), "u1000@y");
  EXPECT_EQ(last.recipients(0).notify(), 6u);
  EXPECT_EQ(last.recipients(1).address(), "v@z");
  EXPECT_EQ(last.content().size(), 2000u);
  EXPECT_EQ(last.virtual_mta(), "v1");
  EXPECT_EQ(last.job_id(), "j");
  EXPECT_EQ(last.metadata().at("k"), "v");
  EXPECT_EQ(last.idempotency_key(), "");
}

TEST_F(AppTest, InjectFilesAndStandardInput) {
  const std::filesystem::path file =
      std::filesystem::path(testing::TempDir()) / "sluicectl_app_test.eml";
  std::ofstream(file) << "Subject: file\n\nx\n";
  in_.str("Subject: stdin\n\ny\n");
  EXPECT_EQ(Run({"inject", file.string(), "-", "--from", "<>", "--to", "b@y", "--unary", "--ids"}),
            kExitOk);
  std::filesystem::remove(file);
  ASSERT_EQ(ingest_.taken.size(), 2u);
  EXPECT_EQ(ingest_.taken[0].content(), "Subject: file\n\nx\n");
  EXPECT_EQ(ingest_.taken[1].content(), "Subject: stdin\n\ny\n");
  EXPECT_EQ(ingest_.taken[0].mail_from(), "");
  EXPECT_TRUE(Has(out_, kId));
  EXPECT_EQ(Run({"inject", "/nonexistent.eml", "--from", "a@x", "--to", "b@y"}), kExitUsage);
  EXPECT_TRUE(Has(err_, "cannot read /nonexistent.eml"));
}

TEST_F(AppTest, InjectSaysWhatWasRefused) {
  EXPECT_EQ(Run({"inject", "--from", "a@x", "--to", "refused@x", "--count", "20"}), kExitRefused);
  EXPECT_TRUE(Has(out_, "0 accepted, 20 refused"));
  EXPECT_TRUE(Has(err_, "message 1: no such? domain"));
  EXPECT_TRUE(Has(err_, "and 10 more"));
  ingest_.busy = 1;
  EXPECT_EQ(Run({"-o", "json", "inject", "--from", "a@x", "--to", "b@y", "--count", "2"}),
            kExitPartly);
  EXPECT_TRUE(Has(out_, "\"accepted\": 1, \"duplicates\": 0, \"refused\": 1"));
}

TEST_F(AppTest, InjectRetriesUnderAKeyAndNothingIsTakenTwice) {
  ingest_.busy = 5;
  ingest_.break_after = 30;
  EXPECT_EQ(Run({"inject", "--from", "a@x", "--to", "b@y", "--count", "100", "--retry", "60s"}),
            kExitOk);
  EXPECT_EQ(ingest_.taken.size(), 100u);
  EXPECT_EQ(ingest_.keys.size(), 100u);
  EXPECT_TRUE(Has(out_, "100 accepted"));
  EXPECT_EQ(
      Run({"inject", "--from", "a@x", "--to", "b@y", "--count", "2", "--idempotency-key", "same"}),
      kExitUsage);
}

TEST_F(AppTest, InjectCountsWhatStayedWithoutAnAnswer) {
  ingest_.break_after = 30;
  EXPECT_EQ(Run({"inject", "--from", "a@x", "--to", "b@y", "--count", "100"}), kExitPartly);
  EXPECT_TRUE(Has(out_, "30 accepted"));
  EXPECT_TRUE(Has(out_, "70 unanswered"));
  EXPECT_TRUE(Has(err_, "going down"));
}

}  // namespace
}  // namespace sluice::ctl
