// Proves, over seeded random runs of clients that come, talk, stall and vanish, and of shards that
// stall, refuse and break: a 250 means that the shard has exactly that message, nothing reaches a
// shard twice, every client that waits hears something in the end, and no memory is left behind.
#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/base/testing/manual_executor.h"
#include "services/ingest/core/smtp_connection.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"

namespace sluice::ingest {
namespace {

using queue::v1::EnqueueResult;
using testing::FakePolicy;
using testing::FakeShard;

constexpr int kSeeds = 300;
constexpr int kSteps = 400;

// Sends one message after another, each with a mark of its own.
class Client final : public SmtpConnection::Driver {
 public:
  Client(Ingest& ingest, sluice::testing::ManualExecutor& executor, std::mt19937_64& random,
         uint64_t& next_mark)
      : executor_(executor),
        random_(random),
        next_mark_(next_mark),
        connection_(ingest, {"127.0.0.1", "127.0.0.1", "127.0.0.1:25"}, *this) {
    connection_.Start();
    to_send_ = "EHLO c.test\r\n";
    Drain();
  }

  // Sends some of what is to be sent, if the session reads.
  void Step() {
    Drain();
    if (to_send_.empty()) NextMessage();
    if (!connection_.session().wants_read()) return;
    const size_t most = random_() % 4 == 0 ? 7 : 200'000;
    const std::string piece = to_send_.substr(0, 1 + random_() % most);
    to_send_.erase(0, piece.size());
    connection_.session().OnBytes(executor_.clock().Now(), piece);
    Drain();
  }
  void OnWake() override { Drain(); }
  bool over() { return connection_.session().closing(); }
  bool idle() { return to_send_.empty() && marks_.empty(); }
  // Sends the rest and no new message.
  void Finish() {
    while (!to_send_.empty() && connection_.session().wants_read()) Step();
    Drain();
  }

  std::set<uint64_t> accepted;

 private:
  void NextMessage() {
    const uint64_t mark = next_mark_++;
    marks_.push_back(mark);
    static constexpr size_t kSizes[] = {0, 100, 10'000, 200'000, 262'144, 300'000, 900'000};
    std::string text = "X-Mark: " + std::to_string(mark) + "\r\n";
    if (random_() % 20 == 0) text += "X-Long: " + std::string(300'000, 'h') + "\r\n";
    if (random_() % 10 != 0) text += "\r\n";
    const size_t size = kSizes[random_() % std::size(kSizes)];
    while (text.size() < size) text += std::string(random_() % 2000, 'x') + "\r\n";
    to_send_ = "MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n" + text + ".\r\n";
    if (random_() % 15 == 0) to_send_.insert(to_send_.size() / 2, "\n");  // to be refused
  }
  void Drain() {
    heard_ += connection_.session().output();
    connection_.session().Sent(executor_.clock().Now(), connection_.session().output().size());
    for (size_t end = heard_.find("\r\n"); end != std::string::npos; end = heard_.find("\r\n")) {
      const std::string line = heard_.substr(0, end);
      heard_.erase(0, end + 2);
      if (line.starts_with("354")) {
        in_data_ = true;
      } else if (in_data_ &&
                 (line.starts_with("2") || line.starts_with("5") || line.starts_with("4"))) {
        in_data_ = false;
        if (line.starts_with("250")) accepted.insert(marks_.front());
        marks_.erase(marks_.begin());
      } else if (!in_data_ && (line.starts_with("451") || line.starts_with("421"))) {
        // MAIL or DATA was deferred: what follows is read as commands until the session ends.
        broken_ = true;
      }
    }
    if (broken_ && !over()) connection_.session().OnEof(executor_.clock().Now());
  }

  sluice::testing::ManualExecutor& executor_;
  std::mt19937_64& random_;
  uint64_t& next_mark_;
  std::string to_send_;
  std::string heard_;
  std::vector<uint64_t> marks_;
  bool in_data_ = false;
  bool broken_ = false;
  SmtpConnection connection_;
};

void RunSeed(uint64_t seed, size_t& all_accepted) {
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  sluice::testing::ManualExecutor executor;
  std::vector<std::unique_ptr<FakeShard>> shards;
  std::vector<ShardEndpoint> endpoints;
  for (int i = 0; i < 3; ++i) {
    shards.push_back(std::make_unique<FakeShard>());
    endpoints.push_back({"s" + std::to_string(i), &shards[i]->enqueue(), &shards[i]->upload()});
  }
  IngestOptions options;
  options.random = seed + 1;
  options.max_body_bytes = 4'000'000;
  Ingest ingest(executor, options, endpoints, std::make_shared<FakePolicy>());
  ingest.Start();
  executor.Advance(std::chrono::seconds(1));

  uint64_t next_mark = 1;
  std::vector<std::unique_ptr<Client>> clients;
  std::set<uint64_t> accepted;
  const auto leave = [&](size_t i) {
    accepted.insert(clients[i]->accepted.begin(), clients[i]->accepted.end());
    clients.erase(clients.begin() + static_cast<std::ptrdiff_t>(i));
  };
  for (int step = 0; step < kSteps; ++step) {
    FakeShard& shard = *shards[random() % shards.size()];
    switch (random() % 24) {
      case 0:
        if (clients.size() < 8) {
          clients.push_back(std::make_unique<Client>(ingest, executor, random, next_mark));
        }
        break;
      case 1:
        if (!clients.empty() && random() % 3 == 0) leave(random() % clients.size());
        break;
      case 2:
        shard.answers = !shard.answers;
        break;
      case 3:
        shard.AnswerAll();
        break;
      case 4:
        shard.acknowledges_chunks = !shard.acknowledges_chunks;
        break;
      case 5:
        if (shard.connected()) shard.AcknowledgeChunks();
        break;
      case 6:
        if (random() % 3 == 0) shard.Disconnect();
        break;
      case 7:
        shard.outcome =
            random() % 3 == 0 ? EnqueueResult::OUTCOME_REFUSED_BUSY : EnqueueResult::OUTCOME_QUEUED;
        break;
      case 8:
        shard.refuses_uploads = random() % 4 == 0;
        break;
      case 9:
        executor.Advance(std::chrono::milliseconds(random() % 2000));
        break;
      default:
        if (!clients.empty()) clients[random() % clients.size()]->Step();
        if (random() % 2 == 0) executor.RunPosted();
        break;
    }
    ASSERT_LE(ingest.body_bytes(), 2 * options.max_body_bytes);
    for (size_t i = clients.size(); i-- > 0;) {
      if (clients[i]->over()) leave(i);
    }
  }
  // Everybody behaves again, and everything ends.
  for (auto& shard : shards) {
    shard->answers = true;
    shard->acknowledges_chunks = true;
    shard->refuses_uploads = false;
    if (!shard->connected()) continue;
    shard->AnswerAll();
    shard->AcknowledgeChunks();
  }
  for (int i = 0; i < 200; ++i) {
    for (auto& client : clients) client->Finish();
    executor.Advance(std::chrono::seconds(1));
  }
  for (auto& client : clients) ASSERT_TRUE(client->over() || client->idle());
  while (!clients.empty()) leave(clients.size() - 1);
  executor.RunPosted();
  EXPECT_EQ(ingest.body_bytes(), 0u);

  std::set<uint64_t> taken;
  for (auto& shard : shards) {
    for (const auto& [message, body] : shard->taken) {
      const size_t at = body.find("X-Mark: ");
      ASSERT_NE(at, std::string::npos);
      EXPECT_TRUE(taken.insert(std::strtoull(body.c_str() + at + 8, nullptr, 10)).second);
      EXPECT_EQ(message.message().body_size(), body.size());
      EXPECT_TRUE(body.ends_with("\r\n"));
    }
  }
  for (uint64_t mark : accepted) EXPECT_TRUE(taken.contains(mark)) << mark;
  all_accepted += accepted.size();
}

TEST(SmtpConnectionRandom, NothingIsLostDoubledOrLeftBehind) {
  size_t all_accepted = 0;
  for (uint64_t seed = 1; seed <= kSeeds && !::testing::Test::HasFailure(); ++seed) {
    RunSeed(seed, all_accepted);
  }
  EXPECT_GT(all_accepted, 1000u);  // the runs were not all failures
}

}  // namespace
}  // namespace sluice::ingest
