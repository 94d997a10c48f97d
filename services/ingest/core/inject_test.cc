// Proves Inject and InjectStream: what a request becomes, what is refused and how, idempotency
// keys.
#include "services/ingest/core/inject.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/base/rpc/inproc_stream.h"
#include "services/base/testing/manual_executor.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"
#include "services/mail/message_id.h"

namespace sluice::ingest {
namespace {

using queue::v1::EnqueueResult;
using testing::FakePolicy;
using testing::FakeShard;

v1::InjectRequest Request() {
  v1::InjectRequest request;
  request.set_mail_from("a@B.test");
  request.add_recipients()->set_address("x@y.test");
  request.set_content("Subject: s\nFrom: f@b.test\r\n\nbody");
  return request;
}

class InjectTest : public ::testing::Test {
 protected:
  void Start(int shards = 1) {
    std::vector<ShardEndpoint> endpoints;
    for (int i = 0; i < shards; ++i) {
      shards_.push_back(std::make_unique<FakeShard>());
      endpoints.push_back(
          {"shard-" + std::to_string(i), &shards_[i]->enqueue(), &shards_[i]->upload()});
    }
    options_.random = 42;
    ingest_ = std::make_unique<Ingest>(executor_, options_, endpoints, policy_);
    ingest_->Start();
    executor_.RunPosted();
    service_ = std::make_unique<InjectService>(*ingest_);
  }
  absl::StatusOr<v1::InjectResponse> Inject(v1::InjectRequest request) {
    std::optional<absl::StatusOr<v1::InjectResponse>> result;
    service_->Inject(std::move(request), [&](auto r) {
      EXPECT_FALSE(result);
      result = std::move(r);
    });
    EXPECT_FALSE(result);
    executor_.RunPosted();
    if (!result) return absl::DeadlineExceededError("no answer yet");
    return *result;
  }
  std::string Refusal(v1::InjectRequest request, absl::StatusCode code) {
    const auto result = Inject(std::move(request));
    EXPECT_EQ(result.status().code(), code) << result.status();
    return std::string(result.status().message());
  }
  FakeShard& shard(int i = 0) { return *shards_[i]; }

  sluice::testing::ManualExecutor executor_;
  std::shared_ptr<FakePolicy> policy_ = std::make_shared<FakePolicy>();
  IngestOptions options_;
  std::vector<std::unique_ptr<FakeShard>> shards_;
  std::unique_ptr<Ingest> ingest_;
  std::unique_ptr<InjectService> service_;
};

TEST_F(InjectTest, MessageReachesTheShard) {
  policy_->AddVirtualMta("v1");
  Start();
  v1::InjectRequest request = Request();
  request.set_virtual_mta("v1");
  request.set_job_id("j");
  request.set_envid("e");
  request.set_priority(70);
  request.set_traceparent("00-1-2-03");
  request.set_tenant("acme");
  (*request.mutable_metadata())["k"] = "v";
  request.mutable_recipients(0)->set_notify(1);
  const auto result = Inject(request);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& [message, body] = shard().taken[0];
  EXPECT_EQ(result->message_id(), mail::FormatMessageId(message.message().id()));
  EXPECT_FALSE(result->duplicate());
  EXPECT_EQ(body.substr(body.find("Subject")), "Subject: s\r\nFrom: f@b.test\r\n\r\nbody\r\n");
  EXPECT_TRUE(body.starts_with("Received: by mx.test (Sluice) with gRPC id "));
  EXPECT_EQ(message.message().body_size(), body.size());
  EXPECT_EQ(message.message().header_size(), body.find("\r\n\r\n") + 4);
  EXPECT_EQ(message.message().mail_from(), "a@b.test");
  EXPECT_EQ(message.message().source_type(), common::v1::SOURCE_TYPE_GRPC);
  EXPECT_EQ(message.message().priority(), 70u);
  EXPECT_EQ(message.message().envid(), "e");
  EXPECT_EQ(message.message().header_from(), "f@b.test");
  EXPECT_EQ(message.message().metadata().at("k"), "v");
  EXPECT_EQ(message.message().tenant(), "acme");
  EXPECT_EQ(message.deliveries(0).delivery().vmta(), "v1");
  EXPECT_EQ(message.deliveries(0).delivery().job_id(), "j");
  EXPECT_EQ(message.deliveries(0).delivery().notify(), 1u);
}

TEST_F(InjectTest, ATextWithoutHeaderBeginsBehindAnEmptyLine) {
  Start();
  v1::InjectRequest request = Request();
  request.set_content(" by forged.test\nSubject: x\n");
  ASSERT_TRUE(Inject(request).ok());
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& [message, body] = shard().taken[0];
  EXPECT_TRUE(body.starts_with("Received: ")) << body;
  EXPECT_TRUE(body.ends_with("\r\n\r\n by forged.test\r\nSubject: x\r\n")) << body;
  EXPECT_EQ(message.message().header_size(), body.find("\r\n\r\n") + 4);
  EXPECT_EQ(message.message().body_size(), body.size());
}

TEST_F(InjectTest, InvalidRequestsSayWhatAndWhere) {
  policy_->global_settings.set_max_message_size(1000);
  Start();
  using absl::StatusCode;
  auto with = [](auto change) {
    v1::InjectRequest request = Request();
    change(request);
    return request;
  };
  EXPECT_EQ(Refusal(with([](auto& r) { r.clear_recipients(); }), StatusCode::kInvalidArgument),
            "recipients: none");
  EXPECT_EQ(Refusal(with([](auto& r) { r.add_recipients()->set_address("no"); }),
                    StatusCode::kInvalidArgument),
            "recipients[1].address: wrong syntax or too long");
  EXPECT_EQ(Refusal(with([](auto& r) { r.mutable_recipients(0)->set_notify(3); }),
                    StatusCode::kInvalidArgument),
            "recipients[0].notify: not a valid set of bits");
  EXPECT_EQ(Refusal(with([](auto& r) { r.set_job_id("j\r\nx-receiver: v@x"); }),
                    StatusCode::kInvalidArgument),
            "job_id: a control character");
  for (const std::string& orcpt :
       {std::string("a@b"), "rfc822;a\r\n" + std::string("b"), "rfc822;" + std::string(500, 'x')}) {
    EXPECT_EQ(Refusal(with([&](auto& r) { r.mutable_recipients(0)->set_orcpt(orcpt); }),
                      StatusCode::kInvalidArgument),
              "recipients[0].orcpt: not type;address of at most 500 bytes");
  }
  EXPECT_EQ(Refusal(with([](auto& r) { r.set_mail_from("a b@c"); }), StatusCode::kInvalidArgument),
            "mail_from: the address has wrong syntax or is too long");
  EXPECT_EQ(Refusal(with([](auto& r) { r.set_content("a\rb"); }), StatusCode::kInvalidArgument),
            "content: has a NUL, or a carriage return without a line feed");
  EXPECT_EQ(Refusal(with([](auto& r) { r.set_content(std::string(1001, 'x')); }),
                    StatusCode::kInvalidArgument),
            "content: larger than 1000 bytes");
  EXPECT_EQ(Refusal(with([](auto& r) { r.set_idempotency_key(std::string(129, 'x')); }),
                    StatusCode::kInvalidArgument),
            "idempotency_key: longer than 128 bytes");
  EXPECT_EQ(
      Refusal(with([](auto& r) { r.set_virtual_mta("other"); }), StatusCode::kInvalidArgument),
      "There is no virtual MTA \"other\"");
  EXPECT_EQ(Refusal(with([](auto& r) { r.set_priority(101); }), StatusCode::kInvalidArgument),
            "priority: above 100");
  EXPECT_EQ(Refusal(with([](auto& r) { r.set_deliver_by_us(1); }), StatusCode::kInvalidArgument),
            "deliver_by_us: has passed");
  const int64_t later_us = ToUnixMicros(executor_.clock().WallNow()) + 3'600'000'000;
  EXPECT_EQ(Refusal(with([&](auto& r) {
                      r.set_not_before_us(later_us);
                      r.set_deliver_by_us(later_us);
                    }),
                    StatusCode::kInvalidArgument),
            "deliver_by_us: not after not_before_us");
  // Nothing may be added to it any more.
  for (const int64_t far_us : {INT64_MAX, int64_t{253'402'300'800'000'000}}) {
    EXPECT_EQ(
        Refusal(with([&](auto& r) { r.set_not_before_us(far_us); }), StatusCode::kInvalidArgument),
        "not_before_us, deliver_by_us: after the year 9999");
  }
  EXPECT_TRUE(shard().taken.empty());
  EXPECT_EQ(ingest_->counters().messages_refused, 17u);
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

// When it may leave and until when; a queue's own time for mail begins when it may leave.
TEST_F(InjectTest, NotBeforeAndDeliverBy) {
  policy_->bounce_after_us = 60'000'000;
  Start();
  const int64_t begin_us = ToUnixMicros(executor_.clock().WallNow()) + 3'600'000'000;
  v1::InjectRequest request = Request();
  request.set_not_before_us(begin_us);
  ASSERT_TRUE(Inject(request).ok());
  EXPECT_EQ(shard().taken[0].message.message().not_before_us(), begin_us);
  EXPECT_EQ(shard().taken[0].message.deliveries(0).delivery().expires_us(), begin_us + 60'000'000);
  request.set_deliver_by_us(begin_us + 5);
  ASSERT_TRUE(Inject(request).ok());
  EXPECT_EQ(shard().taken[1].message.message().deliver_by_us(), begin_us + 5);
  EXPECT_EQ(shard().taken[1].message.deliveries(0).delivery().expires_us(), begin_us + 5);
  ASSERT_TRUE(Inject(Request()).ok());
  EXPECT_EQ(shard().taken[2].message.deliveries(0).delivery().expires_us(), 0) << "the queue's";
}

TEST_F(InjectTest, StatusOfEachOutcome) {
  Start();
  struct Case {
    EnqueueResult::Outcome outcome;
    absl::StatusCode code;
  };
  const Case kCases[] = {
      {EnqueueResult::OUTCOME_QUEUED, absl::StatusCode::kOk},
      {EnqueueResult::OUTCOME_REFUSED_BUSY, absl::StatusCode::kResourceExhausted},
      {EnqueueResult::OUTCOME_REFUSED_FULL, absl::StatusCode::kResourceExhausted},
      {EnqueueResult::OUTCOME_REFUSED_INVALID, absl::StatusCode::kInvalidArgument},
      {EnqueueResult::OUTCOME_STORE_FAILED, absl::StatusCode::kUnavailable},
      {EnqueueResult::OUTCOME_IN_FLIGHT, absl::StatusCode::kAborted},
  };
  for (const Case& c : kCases) {
    shard().outcome = c.outcome;
    EXPECT_EQ(Inject(Request()).status().code(), c.code);
  }
}

TEST_F(InjectTest, LostShardIsOutcomeUnknown) {
  Start();
  shard().answers = false;
  std::optional<absl::StatusOr<v1::InjectResponse>> result;
  service_->Inject(Request(), [&](auto r) { result = std::move(r); });
  executor_.RunPosted();
  EXPECT_FALSE(result);
  shard().Disconnect();
  executor_.RunPosted();
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(result->status().message().find("outcome unknown"), absl::string_view::npos);
}

TEST_F(InjectTest, KeysGoToOneShardAndFailWhileItIsDown) {
  Start(4);
  v1::InjectRequest request = Request();
  request.set_idempotency_key("key-1");
  ASSERT_TRUE(Inject(request).ok());
  int owner = 0;
  while (shard(owner).taken.empty()) ++owner;
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(Inject(request).ok());
  EXPECT_EQ(shard(owner).taken.size(), 21u);
  EXPECT_EQ(shard(owner).taken[0].message.message().idempotency_key(), "key-1");
  shard(owner).reachable = false;
  shard(owner).Disconnect();
  executor_.RunPosted();
  EXPECT_NE(Refusal(request, absl::StatusCode::kUnavailable).find("not accepted"),
            std::string::npos);
  EXPECT_TRUE(Inject(Request()).ok());  // without a key any shard will do
  // Keys spread over the shards.
  std::vector<bool> used(4);
  shard(owner).reachable = true;
  executor_.Advance(std::chrono::seconds(10));
  for (int i = 0; i < 100; ++i) {
    request.set_idempotency_key("other-" + std::to_string(i));
    ASSERT_TRUE(Inject(request).ok());
  }
  for (int i = 0; i < 4; ++i) EXPECT_GT(shard(i).taken.size(), 5u);
}

TEST_F(InjectTest, DuplicateNamesTheFirstMessage) {
  Start();
  shard().outcome = EnqueueResult::OUTCOME_DUPLICATE;
  shard().duplicate_of = std::string(16, 'z');
  v1::InjectRequest request = Request();
  request.set_idempotency_key("k");
  const auto result = Inject(request);
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->duplicate());
  EXPECT_EQ(result->message_id(), mail::FormatMessageId(std::string(16, 'z')));
}

TEST_F(InjectTest, LargeContentGoesByUpload) {
  Start();
  v1::InjectRequest request = Request();
  std::string content = "Subject: s\r\n\r\n";
  while (content.size() < 2'000'000) content += std::string(70, 'x') + "\r\n";
  request.set_content(content);
  ASSERT_TRUE(Inject(request).ok());
  EXPECT_TRUE(shard().taken.at(0).body.ends_with(content));
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

TEST_F(InjectTest, Utf8AddressesAndEightBitText) {
  Start();
  v1::InjectRequest request = Request();
  request.add_recipients()->set_address("\xc3\xa4@y.test");
  request.set_content("\n\xc3\xa4");
  ASSERT_TRUE(Inject(request).ok());
  EXPECT_TRUE(shard().taken.at(0).message.message().smtputf8());
  EXPECT_EQ(shard().taken.at(0).message.message().body_type(), common::v1::BODY_TYPE_8BITMIME);
}

class ServerStream final : public Stream<v1::InjectStreamResponse, v1::InjectStreamRequest> {
 public:
  void Start(Handler* h) override { handler = h; }
  bool Send(Frame<v1::InjectStreamResponse> frame) override {
    sent.push_back(std::move(frame.header));
    return true;
  }
  void Close(absl::Status status) override { closed = status; }
  void Cancel() override {}
  size_t queued_bytes() const override { return 0; }
  std::string peer() const override { return "test"; }
  void Receive(uint64_t token, v1::InjectRequest request) {
    Frame<v1::InjectStreamRequest> frame;
    frame.header.set_token(token);
    *frame.header.mutable_message() = std::move(request);
    handler->OnFrame(std::move(frame));
  }

  Handler* handler = nullptr;
  std::vector<v1::InjectStreamResponse> sent;
  std::optional<absl::Status> closed;
};

TEST_F(InjectTest, StreamAnswersByTokenAndOutlivesRefusals) {
  Start();
  auto stream = std::make_shared<ServerStream>();
  service_->OnStream(stream);
  v1::InjectRequest bad = Request();
  bad.clear_recipients();
  stream->Receive(5, Request());
  stream->Receive(6, bad);
  stream->Receive(7, Request());
  executor_.RunPosted();
  ASSERT_EQ(stream->sent.size(), 3u);
  EXPECT_EQ(stream->sent[0].token(), 6u);
  EXPECT_EQ(stream->sent[0].code(), 3u);
  EXPECT_EQ(stream->sent[0].detail(), "recipients: none");
  EXPECT_EQ(stream->sent[1].token(), 5u);
  EXPECT_EQ(stream->sent[1].message_id().size(), 26u);
  EXPECT_EQ(shard().frames, 1);
  stream->handler->OnClosed(absl::OkStatus());
}

class ClientEnd final : public Stream<v1::InjectStreamRequest, v1::InjectStreamResponse>::Handler {
 public:
  void OnFrame(Frame<v1::InjectStreamResponse> frame) override {
    received.push_back(std::move(frame.header));
  }
  void OnClosed(absl::Status status) override { closed = status; }
  std::vector<v1::InjectStreamResponse> received;
  std::optional<absl::Status> closed;
};

// No open relay by gRPC either: without a certificate a caller has the rights of its network.
TEST_F(InjectTest, ACallerFromElsewhereMayDoWhatItsNetworkMayBySmtp) {
  policy_->AddVirtualMta("v1");
  Start();
  const auto from = [this](InjectService& service, std::string_view peer,
                           const v1::InjectRequest& request) {
    absl::Status status = absl::DeadlineExceededError("no answer yet");
    service.InjectFrom(service.OriginOf(peer), request,
                       [&status](const auto& result) { status = result.status(); });
    executor_.RunPosted();
    return status;
  };
  constexpr std::string_view kElsewhere = "ipv4:192.0.2.7:4711";
  EXPECT_EQ(from(*service_, kElsewhere, Request()),
            absl::PermissionDeniedError("recipients[0].address: Relaying denied"));
  for (const std::string_view here :
       {"ipv4:127.0.0.9:1", "ipv6:[::1]:1", "unix:/run/x", "inproc"}) {
    EXPECT_TRUE(from(*service_, here, Request()).ok()) << here;
  }
  InjectService authenticated(*ingest_, true);
  EXPECT_TRUE(from(authenticated, kElsewhere, Request()).ok());
  EXPECT_EQ(shard().taken.size(), 5u);
  EXPECT_EQ(shard().taken[0].message.message().client_ip(), "127.0.0.9");

  const auto others = [this](bool require_auth, bool process_x_virtual_mta) {
    policy_->others = std::make_shared<policy::v1::ClientSettings>();
    policy_->others->set_allow_relay(true);
    policy_->others->set_require_auth(require_auth);
    policy_->others->set_process_x_virtual_mta(process_x_virtual_mta);
  };
  others(true, true);
  EXPECT_EQ(from(*service_, kElsewhere, Request()),
            absl::PermissionDeniedError("Authentication is required"));
  others(false, false);
  v1::InjectRequest request = Request();
  request.set_virtual_mta("v1");
  EXPECT_EQ(from(*service_, kElsewhere, request),
            absl::PermissionDeniedError("virtual_mta: clients of 192.0.2.7 may not choose it"));
  others(false, true);
  EXPECT_TRUE(from(*service_, kElsewhere, request).ok());
  EXPECT_EQ(shard().taken.back().message.deliveries(0).delivery().vmta(), "v1");
}

TEST_F(InjectTest, OverAnInProcessStream) {
  Start();
  InprocStreamClient<v1::InjectStreamRequest, v1::InjectStreamResponse> client(*service_);
  ClientEnd end;
  auto stream = client.Open(executor_);
  stream->Start(&end);
  for (uint64_t token = 1; token <= 50; ++token) {
    Frame<v1::InjectStreamRequest> frame;
    frame.header.set_token(token);
    *frame.header.mutable_message() = Request();
    stream->Send(std::move(frame));
  }
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(end.received.size(), 50u);
  stream->Close(absl::OkStatus());
  executor_.Advance(std::chrono::seconds(1));
  ASSERT_TRUE(end.closed);
  EXPECT_TRUE(end.closed->ok());
  // The service has let go of the stream: nothing is left to drain.
  bool drained = false;
  ingest_->Drain([&] { drained = true; });
  executor_.RunPosted();
  EXPECT_TRUE(drained);
}

TEST_F(InjectTest, AClientThatHasSentAllGetsEveryAnswerBeforeTheEnd) {
  Start();
  shard().answers = false;
  InprocStreamClient<v1::InjectStreamRequest, v1::InjectStreamResponse> client(*service_);
  ClientEnd end;
  auto stream = client.Open(executor_);
  stream->Start(&end);
  for (uint64_t token = 1; token <= 5; ++token) {
    Frame<v1::InjectStreamRequest> frame;
    frame.header.set_token(token);
    *frame.header.mutable_message() = Request();
    stream->Send(std::move(frame));
  }
  stream->Close(absl::OkStatus());
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(end.received.empty());
  EXPECT_FALSE(end.closed);
  shard().AnswerAll();
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_EQ(end.received.size(), 5u);
  ASSERT_TRUE(end.closed);
  EXPECT_TRUE(end.closed->ok()) << *end.closed;
}

TEST_F(InjectTest, StreamClosedBeforeTheAnswer) {
  Start();
  shard().answers = false;
  auto stream = std::make_shared<ServerStream>();
  service_->OnStream(stream);
  stream->Receive(5, Request());
  executor_.RunPosted();
  stream->handler->OnClosed(absl::UnavailableError("gone"));
  shard().AnswerAll();
  executor_.RunPosted();
  EXPECT_TRUE(stream->sent.empty());
}

TEST_F(InjectTest, DrainAnswersWhatIsOutAndClosesStreams) {
  Start();
  shard().answers = false;
  auto stream = std::make_shared<ServerStream>();
  service_->OnStream(stream);
  stream->Receive(5, Request());
  executor_.RunPosted();
  bool drained = false;
  ingest_->Drain([&] { drained = true; });
  stream->Receive(6, Request());
  executor_.RunPosted();
  ASSERT_EQ(stream->sent.size(), 1u);
  EXPECT_EQ(stream->sent[0].token(), 6u);
  EXPECT_NE(stream->sent[0].code(), 0u);
  EXPECT_FALSE(stream->closed);
  shard().AnswerAll();
  executor_.RunPosted();
  EXPECT_EQ(stream->sent.at(1).token(), 5u);
  EXPECT_TRUE(stream->closed);
  EXPECT_FALSE(drained);
  stream->handler->OnClosed(*stream->closed);
  executor_.RunPosted();
  EXPECT_TRUE(drained);
}

}  // namespace
}  // namespace sluice::ingest
