// Proves what becomes of messages where shards are slow, full, broken or gone, where memory is
// short, and where a message is larger than a chunk: nothing is lost unseen, nothing is sent twice.
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/ingest/testing/ingest_fixture.h"
#include "services/mail/message_id.h"

namespace sluice::ingest {
namespace {

using queue::v1::EnqueueResult;
using testing::FakeShard;
using testing::SmtpClient;

constexpr char kEnvelope[] =
    "EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n";

class SmtpShardTroubleTest : public testing::IngestFixture {};

TEST_F(SmtpShardTroubleTest, OutcomesOfTheShard) {
  Start();
  auto client = Connect();
  struct Case {
    EnqueueResult::Outcome outcome;
    const char* reply;
  };
  const Case kCases[] = {
      {EnqueueResult::OUTCOME_REFUSED_BUSY, "451 4.3.1 "},
      {EnqueueResult::OUTCOME_REFUSED_FULL, "452 4.3.1 "},
      {EnqueueResult::OUTCOME_REFUSED_INVALID, "554 5.6.0 "},
      {EnqueueResult::OUTCOME_STORE_FAILED, "451 4.3.0 "},
      {EnqueueResult::OUTCOME_UNSPECIFIED, "451 4.3.0 "},
      {EnqueueResult::OUTCOME_QUEUED, "250 2.0.0 "},
  };
  client->Say("EHLO c.test\r\n");
  for (const Case& c : kCases) {
    shard().outcome = c.outcome;
    client->Say("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
    const std::string heard = client->Say("S: 1\r\n\r\n.\r\n");
    EXPECT_EQ(heard.substr(0, 10), c.reply);
  }
}

TEST_F(SmtpShardTroubleTest, AnswerThatNeverComesIsUnknownAndNotSentAgain) {
  Start(2);
  for (auto& s : shards_) s->answers = false;
  auto client = Connect();
  client->Say(kEnvelope);
  EXPECT_EQ(client->Say("S: 1\r\n\r\n.\r\n"), "");
  FakeShard& used = shard(0).taken.empty() ? shard(1) : shard(0);
  used.Disconnect();
  EXPECT_EQ(client->Hear().substr(0, 10), "451 4.3.0 ");
  executor_.Advance(std::chrono::minutes(5));
  EXPECT_EQ(shard(0).taken.size() + shard(1).taken.size(), 1u);
  EXPECT_EQ(ingest_->counters().outcomes_unknown, 1u);
}

TEST_F(SmtpShardTroubleTest, SilentShardTimesOut) {
  Start();
  shard().answers = false;
  auto client = Connect();
  client->Say(kEnvelope);
  EXPECT_EQ(client->Say("S: 1\r\n\r\n.\r\n"), "");
  executor_.Advance(options_.shard.answer_timeout - Duration(1));
  EXPECT_EQ(client->Hear(), "");
  executor_.Advance(Duration(1));
  client->Drain();
  shard().AnswerAll();  // too late: nobody asks any more
  executor_.RunPosted();
  EXPECT_EQ(ingest_->counters().outcomes_unknown, 1u);
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

TEST_F(SmtpShardTroubleTest, WithoutAShardMailIsDeferredEarly) {
  Start();
  EXPECT_TRUE(ingest_->ready());
  shard().reachable = false;
  shard().Disconnect();
  executor_.RunPosted();
  EXPECT_FALSE(ingest_->ready());
  EXPECT_NE(ingest_->not_ready_reason().find("shard-0"), std::string::npos);
  auto client = Connect();
  client->Say("EHLO c.test\r\n");
  EXPECT_EQ(client->Say("MAIL FROM:<a@b.test>\r\n").substr(0, 10), "451 4.3.2 ");
  shard().reachable = true;
  executor_.Advance(std::chrono::seconds(10));
  EXPECT_TRUE(ingest_->ready());
  EXPECT_EQ(client->Say("MAIL FROM:<a@b.test>\r\n"), "250 2.1.0 Sender OK\r\n");
}

TEST_F(SmtpShardTroubleTest, ShardThatTakesNothingIsAskedAgain) {
  Start();
  shard().accepting = false;
  shard().SendLoad();
  executor_.RunPosted();
  EXPECT_FALSE(ingest_->ready());
  executor_.Advance(std::chrono::seconds(2));
  EXPECT_FALSE(ingest_->ready());
  shard().accepting = true;
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(ingest_->ready());
}

TEST_F(SmtpShardTroubleTest, ShardThatSaysNothingIsTakenForAliveAfterAWhile) {
  prepare_ = [this] { shard().says_load = false; };
  Start();
  EXPECT_FALSE(ingest_->ready());
  executor_.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(ingest_->ready());
}

TEST_F(SmtpShardTroubleTest, DeadShardNeverStopsInjection) {
  Start(3);
  shard(1).reachable = false;
  shard(1).Disconnect();
  shard(2).accepting = false;
  shard(2).SendLoad();
  executor_.RunPosted();
  auto client = Connect();
  client->Say("EHLO c.test\r\n");
  for (int i = 0; i < 20; ++i) {
    client->Say("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
    EXPECT_EQ(client->Say("S: 1\r\n\r\n.\r\n").substr(0, 4), "250 ");
    executor_.Advance(std::chrono::milliseconds(300));
  }
  EXPECT_EQ(shard(0).taken.size(), 20u);
}

TEST_F(SmtpShardTroubleTest, MemoryLimitDefersNewMessages) {
  options_.max_body_bytes = 100'000;
  Start();
  auto a = Connect();
  a->Say("EHLO c.test\r\nMAIL FROM:<a@b.test> SIZE=90000\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
  EXPECT_GE(ingest_->body_bytes(), 90'000u);
  auto b = Connect();
  b->Say("EHLO c.test\r\n");
  EXPECT_EQ(b->Say("MAIL FROM:<a@b.test> SIZE=20000\r\n").substr(0, 10), "451 4.3.1 ");
  a.reset();
  EXPECT_EQ(ingest_->body_bytes(), 0u);
  EXPECT_EQ(b->Say("MAIL FROM:<a@b.test> SIZE=20000\r\n"), "250 2.1.0 Sender OK\r\n");
}

// Nobody need ever send a text to fill a process that keeps envelopes.
TEST_F(SmtpShardTroubleTest, RecipientsCountBeforeAnyText) {
  options_.max_body_bytes = 1'000'000;
  Start();
  std::vector<std::unique_ptr<SmtpClient>> clients;
  int refused = 0;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(Connect());
    clients.back()->Say("EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n");
    std::string rcpts;
    for (int r = 0; r < 200; ++r) {
      rcpts += "RCPT TO:<" + std::string(60, 'r') + "@y.test> ORCPT=rfc822;" +
               std::string(450, 'o') + "\r\n";
    }
    const std::string replies = clients.back()->Say(rcpts);
    refused += replies.find("451 4.3.1 ") != replies.npos;
    EXPECT_LE(ingest_->body_bytes(), 2'000'000u);
  }
  EXPECT_GT(refused, 5);
  EXPECT_GT(ingest_->counters().backpressure, 0u);
  // A transaction that is over, or a client that has gone, holds nothing.
  clients.front()->Say("RSET\r\n");
  EXPECT_LT(ingest_->body_bytes(), 1'900'000u);
  clients.clear();
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

TEST_F(SmtpShardTroubleTest, MessagesThatGrowCannotPassTwiceTheLimit) {
  options_.max_body_bytes = 2'000'000;
  Start();
  shard().acknowledges_chunks = false;
  std::vector<std::unique_ptr<SmtpClient>> clients;
  for (int i = 0; i < 50; ++i) {
    clients.push_back(Connect());
    clients.back()->Say(kEnvelope);
  }
  const std::string header = "A: " + std::string(900'000, 'x');
  for (size_t i = 0; i < clients.size(); ++i) {
    clients[i]->Say(i % 2 == 0 ? header : "\r\n" + header);
    EXPECT_LE(ingest_->body_bytes(), 4'000'000u);
  }
  // Those that found no room hear of it at the end of their text.
  int refused = 0;
  for (auto& client : clients) refused += client->Say("\r\n.\r\n").starts_with("451 4.3.1 ");
  EXPECT_GT(refused, 30);
  EXPECT_GT(ingest_->counters().backpressure, 30u);
  clients.clear();
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

TEST_F(SmtpShardTroubleTest, LargeMessageGoesByUpload) {
  prepare_ = [this] { policy_->loopback->set_process_x_job(true); };
  Start();
  auto client = Connect();
  client->Say(kEnvelope);
  std::string text = "A: 1\r\nX-Job: big\r\n\r\n";
  while (text.size() < 1'500'000)
    text += "A line of a large message, number " + std::to_string(text.size()) + "\r\n";
  client->Say(text);
  const std::string heard = client->Say(".\r\n");
  EXPECT_EQ(heard.substr(0, 4), "250 ");
  ASSERT_EQ(shard().taken.size(), 1u);
  const auto& [message, body] = shard().taken[0];
  EXPECT_EQ(message.body_case(), queue::v1::NewMessage::kUploadId);
  text.erase(text.find("X-Job"), 12);
  EXPECT_EQ(body.substr(body.find("A: 1")), text);
  EXPECT_EQ(message.message().body_size(), body.size());
  EXPECT_EQ(message.deliveries(0).delivery().job_id(), "big");
  EXPECT_EQ(shard().aborts, 0);
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

// Clients say SMTPUTF8 for plain ASCII, and a host without it could take that.
TEST_F(SmtpShardTroubleTest, ALargeMessageNeedsSmtpUtf8WhereItsHeaderDoes) {
  Start();
  auto client = Connect();
  client->Say("EHLO c.test\r\n");
  for (const char* subject : {"plain", "sch\xc3\xb6n"}) {
    std::string text = std::string("Subject: ") + subject + "\r\n\r\n";
    while (text.size() < 600'000) text += "\xc3\xb6\r\n";
    client->Say("MAIL FROM:<a@b.test> SMTPUTF8 BODY=8BITMIME\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
    ASSERT_EQ(client->Say(text + ".\r\n").substr(0, 4), "250 ");
    const auto& message = shard().taken.back().message.message();
    EXPECT_EQ(message.smtputf8(), subject[0] == 's') << subject;
    EXPECT_EQ(message.body_type(), common::v1::BODY_TYPE_8BITMIME);
  }
}

TEST_F(SmtpShardTroubleTest, EverySizeAroundTheChunkSize) {
  Start();
  auto client = Connect();
  client->Say("EHLO c.test\r\n");
  for (int around : {1, 2}) {
    for (int delta = -300; delta <= 100; delta += 1) {
      if (delta > -160 && delta < -150) continue;
      const size_t size = around * kMaxInlineBodyBytes + delta;
      std::string text = "\r\n" + std::string(size - 4, 'x') + "\r\n";
      client->Say("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
      ASSERT_EQ(client->Say(text + ".\r\n").substr(0, 4), "250 ") << size;
      const auto& taken = shard().taken.back();
      ASSERT_TRUE(taken.body.ends_with(text)) << size;
      ASSERT_EQ(taken.body.size(), taken.message.message().body_size());
      shard().taken.clear();
      if (delta == -300) delta = -200;
    }
  }
}

TEST_F(SmtpShardTroubleTest, HeaderLargerThanAChunk) {
  prepare_ = [this] { policy_->loopback->set_process_x_job(true); };
  Start();
  auto client = Connect();
  const std::string header = "A: " + std::string(600'000, 'x') + "\r\n";
  for (const char* rest : {"", "\r\n", "\r\nbody\r\n"}) {
    client->Say(kEnvelope);
    ASSERT_EQ(client->Say(header + "X-Job: j\r\n" + rest + ".\r\n").substr(0, 4), "250 ");
    const auto& taken = shard().taken.back();
    EXPECT_TRUE(taken.body.ends_with("\r\n" + header + rest));
    EXPECT_EQ(taken.message.message().body_size(), taken.body.size());
    EXPECT_EQ(taken.message.deliveries(0).delivery().job_id(), "j");
  }
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

TEST_F(SmtpShardTroubleTest, SlowUploadStopsReading) {
  Start();
  shard().acknowledges_chunks = false;
  auto client = Connect();
  client->Say(kEnvelope);
  std::string text = "\r\n";
  while (text.size() < 3'000'000) text += std::string(70, 'x') + "\r\n";
  client->Say(text);
  EXPECT_FALSE(client->connection().session().wants_read());
  EXPECT_GT(client->left_over(), 1'500'000u);
  EXPECT_EQ(shard().chunks_waiting, 2u);
  size_t left = client->left_over();
  while (left > 0) {
    shard().AcknowledgeChunks();
    executor_.RunPosted();
    client->Say(std::string_view(text).substr(text.size() - left));
    ASSERT_LT(client->left_over(), left);
    left = client->left_over();
  }
  shard().acknowledges_chunks = true;
  shard().AcknowledgeChunks();
  executor_.RunPosted();
  EXPECT_EQ(client->Say(".\r\n").substr(0, 4), "250 ");
  EXPECT_TRUE(shard().taken.at(0).body.ends_with(text));
}

TEST_F(SmtpShardTroubleTest, BrokenUploadIsA4xxAndLeavesNothing) {
  Start();
  auto client = Connect();
  client->Say(kEnvelope);
  std::string text = "\r\n";
  while (text.size() < 700'000) text += std::string(70, 'x') + "\r\n";
  client->Say(text);
  shard().Disconnect();
  executor_.RunPosted();
  executor_.Advance(std::chrono::seconds(5));
  EXPECT_EQ(client->Say(text + ".\r\n").substr(0, 10), "451 4.3.2 ");
  EXPECT_EQ(shard().taken.size(), 0u);
  EXPECT_EQ(ingest_->body_bytes(), 0u);
  client->Say("MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
  EXPECT_EQ(client->Say(text + ".\r\n").substr(0, 4), "250 ");
}

TEST_F(SmtpShardTroubleTest, ClientThatLeavesAbortsItsUpload) {
  Start();
  auto client = Connect();
  client->Say(kEnvelope);
  std::string text = "\r\n";
  while (text.size() < 700'000) text += std::string(70, 'x') + "\r\n";
  client->Say(text);
  client.reset();
  executor_.RunPosted();
  EXPECT_EQ(shard().aborts, 1);
  EXPECT_EQ(ingest_->body_bytes(), 0u);
}

TEST_F(SmtpShardTroubleTest, RefusedUploadIsA4xx) {
  Start();
  shard().refuses_uploads = true;
  auto client = Connect();
  client->Say(kEnvelope);
  EXPECT_EQ(client->Say("\r\n" + std::string(600'000, 'x') + "\r\n.\r\n").substr(0, 10),
            "451 4.3.2 ");
}

TEST_F(SmtpShardTroubleTest, ClientThatLeavesBeforeTheAnswerIsForgotten) {
  Start();
  shard().answers = false;
  auto client = Connect();
  client->Say(std::string(kEnvelope) + "S: 1\r\n\r\n.\r\n");
  client.reset();
  shard().AnswerAll();
  executor_.RunPosted();
  EXPECT_EQ(shard().taken.size(), 1u);
}

TEST_F(SmtpShardTroubleTest, DrainFinishesMessagesOnTheirWay) {
  Start();
  shard().answers = false;
  auto idle = Connect();
  idle->Say("EHLO c.test\r\n");
  auto busy = Connect();
  busy->Say(kEnvelope);
  bool drained = false;
  ingest_->Drain([&] { drained = true; });
  EXPECT_FALSE(ingest_->ready());
  EXPECT_TRUE(idle->connection().session().closing());
  EXPECT_FALSE(busy->connection().session().closing());
  busy->Say("S: 1\r\n\r\n.\r\n");
  shard().AnswerAll();
  const std::string heard = busy->Hear();
  EXPECT_EQ(heard.substr(0, 4), "250 ");
  EXPECT_NE(heard.find("\r\n421 4.3.2 "), std::string::npos);
  auto late = Connect();
  EXPECT_TRUE(late->connection().session().closing());
  late.reset();
  idle.reset();
  executor_.RunPosted();
  EXPECT_FALSE(drained);
  busy.reset();
  executor_.RunPosted();
  EXPECT_TRUE(drained);
}

}  // namespace
}  // namespace sluice::ingest
