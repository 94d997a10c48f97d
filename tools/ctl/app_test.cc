// Proves what the command line does with a server: what it asks, what it prints, its exit codes,
// and that what cannot be done is said with the place and a remedy.
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "services/base/testing/temp_folder.h"
#include "sluice/queue/v1/queue_control.grpc.pb.h"
#include "tools/ctl/app_fixture.h"

namespace sluice::ctl {
namespace {

using grpc::ServerContext;
using grpc::Status;
using grpc::StatusCode;
using testing::AppTest;
using testing::Has;
using testing::kId;

TEST_F(AppTest, ATokenIsMadeAndSentToTheAdminApi) {
  const sluice::testing::TempFolder folder("token");
  const std::string file = folder.File("anna.token");
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
  EXPECT_EQ(Run({"-o", "json", "token", "otto", "--to", file + "2"}), kExitOk) << err_.str();
  EXPECT_EQ(out_.str().rfind("{\n  \"name\": \"otto\",\n  \"role\": \"monitor\",", 0), 0u)
      << out_.str();
  EXPECT_TRUE(Has(out_, "\"line\": \"otto monitor sha256:"));

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
  EXPECT_TRUE(Has(err_, "there is no command \"frobnicate")) << err_.str();
  EXPECT_EQ(Run({"messages", "lst"}), kExitUsage);
  EXPECT_TRUE(Has(err_, "there is no command \"lst\"")) << err_.str();
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
  // A script that reads the answer gets one that it can read.
  EXPECT_EQ(Run({"-o", "json", "reload"}), kExitRefused);
  EXPECT_TRUE(Has(out_, "{\n  \"loaded\": false,\n  \"error\": \"main.cfg:7:1: error: "));
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

}  // namespace
}  // namespace sluice::ctl
