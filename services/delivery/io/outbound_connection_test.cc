// Mail over loopback sockets, against a server that answers by rule.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "services/delivery/io/outbound_fixture.h"

namespace sluice::delivery {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Chunks on request; counts how many were given and not yet read by the server.
class CountingChunks final : public ChunkSource {
 public:
  CountingChunks(EventLoop& loop, std::vector<Body> chunks, uint32_t* given, uint32_t fail_at)
      : loop_(loop), chunks_(std::move(chunks)), given_(given), fail_at_(fail_at) {}
  void Fetch(uint32_t chunk, absl::AnyInvocable<void(absl::StatusOr<Body>)> done) override {
    loop_.Post(
        [this, alive = std::weak_ptr<bool>(alive_), chunk, done = std::move(done)]() mutable {
          if (alive.expired()) return;
          ++*given_;
          if (chunk == fail_at_) {
            done(absl::UnavailableError("the shard went away"));
          } else {
            done(chunks_[chunk]);
          }
        });
  }

 private:
  EventLoop& loop_;
  const std::vector<Body> chunks_;
  uint32_t* const given_;
  const uint32_t fail_at_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class OutboundConnectionTest : public testing::OutboundFixture {
 protected:
  // `count` chunks of the largest size; all of them together in `whole`.
  Transaction LargeGroup(uint64_t id, uint32_t count, uint32_t fail_at = UINT32_MAX) {
    std::vector<Body> chunks;
    for (uint32_t i = 0; i < count; ++i) {
      std::string text;
      while (text.size() + 64 <= kMaxInlineBodyBytes) text.append(62, 'a' + i).append("\r\n");
      text.resize(kMaxInlineBodyBytes, '\n');
      whole_ += text;
      chunks.emplace_back(std::move(text));
    }
    auto lease = std::make_shared<queue::v1::Lease>();
    lease->set_lease_id(id);
    lease->set_large_body_id(9);
    lease->set_chunk_count(count);
    lease->mutable_message()->set_body_size(whole_.size());
    lease->add_deliveries()->set_rcpt("a@e.net");
    return {std::move(lease), Body(),
            std::make_unique<CountingChunks>(loop_, std::move(chunks), &chunks_given_, fail_at)};
  }

  std::string whole_;
  uint32_t chunks_given_ = 0;
};

TEST_F(OutboundConnectionTest, DeliversAndTellsHow) {
  recorder_.on_ready = [&] {
    connection_->Send(Group(7, "Subject: x\r\n\r\n.dot\r\n", {"a@example.net", "b@example.net"}));
  };
  Connect();
  ASSERT_TRUE(UntilResults(1));
  const queue::v1::GroupResult& result = recorder_.results[0];
  EXPECT_EQ(result.lease_id(), 7u);
  EXPECT_EQ(result.outcome(), queue::v1::RECIPIENT_OUTCOME_DELIVERED);
  EXPECT_EQ(result.recipients_size(), 0);
  EXPECT_EQ(result.reply().code(), 250u);
  EXPECT_EQ(result.reply().enhanced(), "2.0.0");
  EXPECT_EQ(result.reply().stage(), common::v1::STAGE_FINAL_DOT);
  EXPECT_EQ(result.reply().host(), "mx.example");
  EXPECT_EQ(result.attempt().source_ip(), "127.0.0.2");
  EXPECT_EQ(result.attempt().destination_ip(), "127.0.0.1");
  EXPECT_EQ(result.attempt().destination_host(), "mx.example");
  EXPECT_EQ(result.attempt().delivery_type(), "smtp");
  EXPECT_EQ(result.attempt().esmtp_extensions_size(), 3);
  EXPECT_EQ(server_.seen_peer, "127.0.0.2");
  EXPECT_EQ(server_.messages, std::vector<std::string>{"Subject: x\r\n\r\n..dot\r\n"});
  EXPECT_EQ(server_.commands,
            (std::vector<std::string>{"EHLO out.example", "MAIL FROM:<from@example.org> SIZE=20",
                                      "RCPT TO:<a@example.net>", "RCPT TO:<b@example.net>", "DATA",
                                      "."}));
  connection_->Quit();
  ASSERT_TRUE(UntilClosed());
  EXPECT_TRUE(recorder_.end->ready);
  EXPECT_EQ(server_.commands.back(), "QUIT");
}

TEST_F(OutboundConnectionTest, RecipientsThatDifferAreNamed) {
  server_.answers["RCPT TO:<no@"] = "550 5.1.1 unknown\r\n";
  server_.answers["RCPT TO:<later@"] = "451 4.2.1 busy\r\n";
  recorder_.on_ready = [&] {
    connection_->Send(Group(1, "x\r\n", {"a@e.net", "no@e.net", "b@e.net", "later@e.net"}));
  };
  Connect();
  ASSERT_TRUE(UntilResults(1));
  const queue::v1::GroupResult& result = recorder_.results[0];
  EXPECT_EQ(result.outcome(), queue::v1::RECIPIENT_OUTCOME_DELIVERED);
  ASSERT_EQ(result.recipients_size(), 2);
  EXPECT_EQ(result.recipients(0).position(), 1u);
  EXPECT_EQ(result.recipients(0).outcome(), queue::v1::RECIPIENT_OUTCOME_PERMANENT);
  EXPECT_EQ(result.recipients(0).reply().text(), "unknown");
  EXPECT_EQ(result.recipients(0).reply().stage(), common::v1::STAGE_RCPT);
  EXPECT_EQ(result.recipients(1).position(), 3u);
  EXPECT_EQ(result.recipients(1).outcome(), queue::v1::RECIPIENT_OUTCOME_TRANSIENT);
}

TEST_F(OutboundConnectionTest, TwoAtOnceThenMore) {
  recorder_.on_ready = [&] {
    connection_->Send(Group(1, "one\r\n", {"a@e.net"}));
    connection_->Send(Group(2, "two\r\n", {"b@e.net"}));
  };
  Connect();
  ASSERT_TRUE(UntilResults(2));
  connection_->Send(Group(3, "three", {"c@e.net"}));
  ASSERT_TRUE(UntilResults(3));
  for (uint64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(recorder_.results[i].lease_id(), i + 1);
    EXPECT_EQ(recorder_.results[i].outcome(), queue::v1::RECIPIENT_OUTCOME_DELIVERED);
  }
  EXPECT_EQ(server_.messages, (std::vector<std::string>{"one\r\n", "two\r\n", "three\r\n"}));
  // The extensions were told once.
  EXPECT_EQ(recorder_.results[1].attempt().esmtp_extensions_size(), 0);
}

TEST_F(OutboundConnectionTest, SilenceAfterTheFinalDotIsTransient) {
  settings_->set_smtp_data_termination_timeout_us(50'000);
  server_.answers["."] = "-";
  recorder_.on_ready = [&] { connection_->Send(Group(1, "x\r\n", {"a@e.net"})); };
  Connect();
  ASSERT_TRUE(UntilClosed());
  ASSERT_EQ(recorder_.results.size(), 1u);
  EXPECT_EQ(recorder_.results[0].outcome(), queue::v1::RECIPIENT_OUTCOME_TRANSIENT);
  EXPECT_EQ(recorder_.results[0].reply().stage(), common::v1::STAGE_FINAL_DOT);
  EXPECT_TRUE(recorder_.results[0].reply().local());
  ASSERT_TRUE(Until([&] { return server_.peer_closed; }));
}

TEST_F(OutboundConnectionTest, ServerHangsUp) {
  server_.answers["MAIL"] = "";
  recorder_.on_ready = [&] { connection_->Send(Group(1, "x\r\n", {"a@e.net"})); };
  Connect();
  ASSERT_TRUE(UntilClosed());
  ASSERT_EQ(recorder_.results.size(), 1u);
  EXPECT_EQ(recorder_.results[0].outcome(), queue::v1::RECIPIENT_OUTCOME_TRANSIENT);
  EXPECT_EQ(recorder_.results[0].reply().stage(), common::v1::STAGE_MAIL);
}

TEST_F(OutboundConnectionTest, LeaseRanOutNoFinalDot) {
  recorder_.denied = 1;
  recorder_.on_ready = [&] { connection_->Send(Group(1, "x\r\n", {"a@e.net"})); };
  Connect();
  ASSERT_TRUE(UntilClosed());
  EXPECT_EQ(recorder_.results.size(), 1u);
  ASSERT_TRUE(Until([&] { return server_.peer_closed; }));
  EXPECT_TRUE(server_.messages.empty());
}

// A reply that comes line by line for ever is no reply: the deadline is that of the whole.
TEST_F(OutboundConnectionTest, ADripOfARemoteEndsInTime) {
  settings_->set_smtp_greeting_timeout_us(200'000);
  server_.greeting = "220-";
  Connect();
  int drips = 0;
  const MonotonicTime limit = loop_.clock().Now() + seconds(10);
  MonotonicTime next{};  // a fast drip would be a reply of too many lines
  while (!recorder_.end && loop_.clock().Now() < limit) {
    if (server_.connected() && !server_.peer_closed && loop_.clock().Now() >= next) {
      server_.Say(drips++ % 2 == 0 ? "a\r\n" : "220-");
      next = loop_.clock().Now() + milliseconds(10);
    }
    loop_.RunOnce(milliseconds(10));
  }
  ASSERT_TRUE(recorder_.end.has_value());
  EXPECT_GT(drips, 3);
  EXPECT_EQ(recorder_.end->reply.stage(), common::v1::STAGE_GREETING);
  EXPECT_TRUE(recorder_.end->reply.local());
  EXPECT_EQ(factory_.fault_stats().timeouts, 1u);
}

// Nor does a gigabyte of reply cost more than the parser's bound.
TEST_F(OutboundConnectionTest, AFloodOfARemoteEndsAtOnce) {
  server_.answers["EHLO"] = std::string(1 << 20, 'x');
  Connect();
  ASSERT_TRUE(UntilClosed());
  EXPECT_EQ(recorder_.end->reply.stage(), common::v1::STAGE_EHLO);
  EXPECT_LT(recorder_.end->reply.text().size(), 100u);
  EXPECT_EQ(factory_.fault_stats().no_smtp, 1u);
}

// A reply that nobody asked for, between greeting and EHLO.
TEST_F(OutboundConnectionTest, AReplyThatNobodyAskedForEndsIt) {
  server_.greeting = "220 mx\r\n250 and more\r\n250 and more\r\n";
  Connect();
  ASSERT_TRUE(UntilClosed());
  EXPECT_EQ(factory_.fault_stats().unasked, 1u);
  EXPECT_EQ(factory_.fault_stats().no_smtp, 0u);
}

TEST_F(OutboundConnectionTest, GreetingRefused) {
  server_.greeting = "554 5.7.1 not you\r\n";
  Connect();
  ASSERT_TRUE(UntilClosed());
  EXPECT_FALSE(recorder_.ready);
  EXPECT_FALSE(recorder_.end->ready);
  EXPECT_EQ(recorder_.end->reply.code(), 554u);
  EXPECT_EQ(recorder_.end->reply.stage(), common::v1::STAGE_GREETING);
  EXPECT_EQ(recorder_.end->reply.text(), "not you");
}

TEST_F(OutboundConnectionTest, SourceThatIsNotOurs) {
  Connect("192.0.2.77");
  ASSERT_TRUE(UntilClosed());
  EXPECT_TRUE(recorder_.end->source_missing);
  EXPECT_EQ(recorder_.end->reply.stage(), common::v1::STAGE_CONNECT);
  EXPECT_TRUE(recorder_.end->reply.local());
}

TEST_F(OutboundConnectionTest, DestroyedWithinItsCallbacks) {
  recorder_.on_ready = [&] { connection_.reset(); };
  Connect();
  ASSERT_TRUE(Until([&] { return server_.peer_closed; }));
  EXPECT_TRUE(recorder_.ready);
  EXPECT_FALSE(recorder_.end.has_value());
}

TEST_F(OutboundConnectionTest, LargeBodyInBoundedMemory) {
  constexpr uint32_t kChunks = 60;
  server_.pause_at_data = true;
  recorder_.on_ready = [&] { connection_->Send(LargeGroup(1, kChunks)); };
  Connect();
  // The kernel takes some megabytes on loopback; then nothing more is fetched.
  ASSERT_TRUE(Until([&] { return chunks_given_ > 0; }));
  uint32_t before = 0;
  int still = 0;
  ASSERT_TRUE(Until([&] {
    still = before == chunks_given_ ? still + 1 : 0;
    before = chunks_given_;
    return still > 5;
  }));
  EXPECT_LT(chunks_given_, kChunks);
  EXPECT_TRUE(recorder_.results.empty());
  server_.ResumeReading();
  ASSERT_TRUE(UntilResults(1));
  EXPECT_EQ(chunks_given_, kChunks);
  EXPECT_EQ(recorder_.results[0].outcome(), queue::v1::RECIPIENT_OUTCOME_DELIVERED);
  ASSERT_EQ(server_.messages.size(), 1u);
  EXPECT_TRUE(server_.messages[0] == whole_);
}

// A remote that says 354 and reads nothing: the time of the body ends it, and only what fits into
// the buffers was ever fetched.
TEST_F(OutboundConnectionTest, ARemoteThatDoesNotReadEndsInTime) {
  settings_->set_data_send_timeout_us(300'000);
  server_.pause_at_data = true;
  recorder_.on_ready = [&] { connection_->Send(LargeGroup(1, 100)); };
  Connect();
  ASSERT_TRUE(UntilClosed());
  ASSERT_EQ(recorder_.results.size(), 1u);
  EXPECT_EQ(recorder_.results[0].outcome(), queue::v1::RECIPIENT_OUTCOME_TRANSIENT);
  EXPECT_EQ(recorder_.results[0].reply().stage(), common::v1::STAGE_BODY);
  EXPECT_LT(chunks_given_, 60u);
}

TEST_F(OutboundConnectionTest, LostChunkEndsWithoutFinalDot) {
  recorder_.on_ready = [&] { connection_->Send(LargeGroup(1, 4, 2)); };
  Connect();
  ASSERT_TRUE(UntilClosed());
  ASSERT_EQ(recorder_.results.size(), 1u);
  EXPECT_EQ(recorder_.results[0].outcome(), queue::v1::RECIPIENT_OUTCOME_TRANSIENT);
  EXPECT_EQ(recorder_.results[0].reply().stage(), common::v1::STAGE_BODY);
  EXPECT_EQ(recorder_.results[0].reply().text(), "the shard went away");
  EXPECT_EQ(chunks_given_, 3u);
  ASSERT_TRUE(Until([&] { return server_.peer_closed; }));
  EXPECT_TRUE(server_.messages.empty());
}

// The extensions are strings of a protobuf message, which must be UTF-8 to be read again.
TEST_F(OutboundConnectionTest, BytesThatAreNoKeywordAreNotKept) {
  server_.answers["EHLO"] =
      "250-mx.example\r\n250-\xff\xfe\r\n250-X_Y\r\n250-\r\n250-x-own 1\r\n250 DSN\r\n";
  recorder_.on_ready = [&] { connection_->Send(Group(1, "x\r\n", {"a@e.net"})); };
  Connect();
  ASSERT_TRUE(UntilResults(1));
  const auto& kept = recorder_.results[0].attempt().esmtp_extensions();
  EXPECT_EQ(std::vector<std::string>(kept.begin(), kept.end()),
            (std::vector<std::string>{"X-OWN", "DSN"}));
}

}  // namespace
}  // namespace sluice::delivery
