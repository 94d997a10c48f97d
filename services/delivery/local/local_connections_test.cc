// Proves that local ends behave as the worker expects of connections.
#include "services/delivery/local/local_connections.h"

#include <deque>
#include <functional>
#include <vector>

#include "services/base/net/event_loop.h"
#include "services/delivery/local/local_fixture.h"

namespace sluice::delivery {
namespace {

class Nowhere final : public ConnectionFactory {
 public:
  std::unique_ptr<Connection> Connect(const ConnectTarget&, ConnectionHandler*) override {
    ++asked;
    return nullptr;
  }
  int asked = 0;
};

class Handler final : public ConnectionHandler {
 public:
  explicit Handler(EventLoop& loop) : loop_(loop) {}
  void OnReady() override {
    ready = true;
    Count();
  }
  void OnResult(queue::v1::GroupResult result) override {
    results.push_back(std::move(result));
    if (on_result) on_result();
    Count();
  }
  bool MayFinish(uint64_t) override { return may_finish; }
  void OnClosed(ConnectionEnd end) override {
    closed = true;
    EXPECT_TRUE(end.ready);
    Count();
  }
  // Runs the loop until so many callbacks have come.
  void Wait(int callbacks) {
    wanted_ = callbacks;
    while (wanted_ > 0) loop_.Run();
  }

  bool ready = false;
  bool closed = false;
  bool may_finish = true;
  std::function<void()> on_result;
  std::vector<queue::v1::GroupResult> results;

 private:
  void Count() {
    if (--wanted_ <= 0) loop_.Stop();
  }
  EventLoop& loop_;
  int wanted_ = 0;
};

// Gives its chunks when the loop turns.
class Chunks final : public ChunkSource {
 public:
  Chunks(EventLoop& loop, int missing) : loop_(loop), missing_(missing) {}
  void Fetch(uint32_t chunk, absl::AnyInvocable<void(absl::StatusOr<Body>)> done) override {
    loop_.Post([this, chunk, done = std::move(done)]() mutable {
      if (static_cast<int>(chunk) == missing_) {
        done(absl::NotFoundError("gone"));
      } else {
        done(Body("chunk " + std::to_string(chunk) + "\r\n"));
      }
    });
  }

 private:
  EventLoop& loop_;
  const int missing_;
};

// Has none, and says so at once.
class NoChunks final : public ChunkSource {
 public:
  void Fetch(uint32_t, absl::AnyInvocable<void(absl::StatusOr<Body>)> done) override {
    done(absl::UnavailableError("the shard is away"));
  }
};

class LocalConnectionsTest : public testing::LocalFixture {
 protected:
  LocalConnectionsTest() {
    settings_->set_type("file");
    settings_->set_file_destination(folder_);
    AddRcpt("a@b.test");
    lease_->set_lease_id(7);
    lease_->mutable_message()->set_body_size(6);
  }
  std::unique_ptr<Connection> Connect() {
    ConnectTarget target;
    target.settings = settings_;
    target.host = "file";
    target.ehlo_name = "mx.test";
    return connections_->Connect(target, &handler_);
  }
  Transaction Text(uint64_t lease_id) {
    auto lease = std::make_shared<queue::v1::Lease>(*lease_);
    lease->set_lease_id(lease_id);
    lease->mutable_message()->set_id(std::string(16, static_cast<char>(lease_id)));
    return {lease, Body("text\r\n"), nullptr};
  }

  EventLoop loop_;
  Nowhere nowhere_;
  Handler handler_{loop_};
  std::unique_ptr<LocalConnections> connections_ =
      std::make_unique<LocalConnections>(loop_, nowhere_, LocalOptions{2, 2, 10});
};

TEST_F(LocalConnectionsTest, GroupsAreAnsweredInOrderAndQuitEndsIt) {
  auto connection = Connect();
  handler_.Wait(1);
  EXPECT_TRUE(handler_.ready);
  connection->Send(Text(1));
  connection->Send(Text(2));
  connection->Quit();
  handler_.Wait(3);
  ASSERT_EQ(handler_.results.size(), 2u);
  EXPECT_EQ(handler_.results[0].lease_id(), 1u);
  EXPECT_EQ(handler_.results[1].lease_id(), 2u);
  EXPECT_EQ(handler_.results[0].outcome(), queue::v1::RECIPIENT_OUTCOME_DELIVERED);
  EXPECT_EQ(handler_.results[0].attempt().delivery_type(), "file");
  EXPECT_TRUE(handler_.closed);
  EXPECT_EQ(FilesIn(folder_).size(), 2u);
  EXPECT_EQ(nowhere_.asked, 0);
  settings_->set_type("smtp");
  Connect();
  EXPECT_EQ(nowhere_.asked, 1);
}

TEST_F(LocalConnectionsTest, ALargeBodyIsFetchedAndMustBeWhole) {
  auto connection = Connect();
  handler_.Wait(1);
  lease_->set_chunk_count(3);
  connection->Send({lease_, Body(), std::make_unique<Chunks>(loop_, -1)});
  handler_.Wait(1);
  ASSERT_EQ(FilesIn(folder_).size(), 1u);
  EXPECT_EQ(ReadFile(FilesIn(folder_)[0]), "chunk 0\r\nchunk 1\r\nchunk 2\r\n");
  connection->Send({lease_, Body(), std::make_unique<Chunks>(loop_, 2)});
  handler_.Wait(1);
  EXPECT_EQ(handler_.results[1].outcome(), queue::v1::RECIPIENT_OUTCOME_TRANSIENT);
}

TEST_F(LocalConnectionsTest, NothingIsDoneWithoutALease) {
  handler_.may_finish = false;
  auto connection = Connect();
  connection->Send(Text(1));
  handler_.Wait(2);
  EXPECT_EQ(handler_.results[0].outcome(), queue::v1::RECIPIENT_OUTCOME_NOT_ATTEMPTED);
  EXPECT_TRUE(FilesIn(folder_).empty());
}

TEST_F(LocalConnectionsTest, MessagesBeyondTheMemoryBudgetTakeTurns) {
  std::vector<std::unique_ptr<Connection>> connections;
  for (uint64_t i = 1; i <= 5; ++i) {
    connections.push_back(Connect());
    connections.back()->Send(Text(i));
  }
  connections.pop_back();  // one that goes away while it waits
  handler_.Wait(8);
  EXPECT_EQ(handler_.results.size(), 4u);
  EXPECT_EQ(FilesIn(folder_).size(), 4u);
}

// Room comes free for one that ends at once; whoever hears of that gives up the next in the line.
TEST_F(LocalConnectionsTest, OneThatWaitsMayGoWhileRoomIsGiven) {
  std::vector<std::unique_ptr<Connection>> connections;
  for (uint64_t i = 1; i <= 3; ++i) connections.push_back(Connect());
  connections[0]->Send(Text(1));
  lease_->set_lease_id(2);
  lease_->set_chunk_count(1);
  connections[1]->Send({lease_, Body(), std::make_unique<NoChunks>()});
  connections[2]->Send(Text(3));
  handler_.on_result = [&] {
    if (handler_.results.back().lease_id() == 2) connections.pop_back();
  };
  handler_.Wait(5);
  ASSERT_EQ(handler_.results.size(), 2u);
  EXPECT_EQ(connections.size(), 2u);
  EXPECT_EQ(FilesIn(folder_).size(), 1u);
}

TEST_F(LocalConnectionsTest, RecipientsWithTheirOwnVerdictAreNamed) {
  settings_->set_type("pipe");
  settings_->set_smtp_data_termination_timeout_us(60'000'000);
  settings_->set_command("/bin/sh -c \"test $0 = c@b.test\" ${rcpt}");
  AddRcpt("c@b.test");
  auto connection = Connect();
  connection->Send(Text(1));
  handler_.Wait(2);
  EXPECT_EQ(handler_.results[0].outcome(), queue::v1::RECIPIENT_OUTCOME_PERMANENT);
  ASSERT_EQ(handler_.results[0].recipients_size(), 1);
  EXPECT_EQ(handler_.results[0].recipients(0).position(), 1u);
  EXPECT_EQ(handler_.results[0].recipients(0).outcome(), queue::v1::RECIPIENT_OUTCOME_DELIVERED);
}

// If it did not, this test would take ten minutes and be ended.
TEST_F(LocalConnectionsTest, AProgramUnderWayEndsWithItsConnection) {
  settings_->set_type("pipe");
  settings_->set_smtp_data_termination_timeout_us(600'000'000);
  settings_->set_command("/bin/sh -c \"sleep 600\"");
  auto connection = Connect();
  connection->Send(Text(1));
  handler_.Wait(1);
  connection.reset();
  connections_.reset();
}

}  // namespace
}  // namespace sluice::delivery
