// Proves that real sockets carry messages from SMTP clients to a shard: several loops,
// back-pressure, limits, half-closed and vanished clients, drain.
#include "services/ingest/io/smtp_listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "services/ingest/testing/fake_policy.h"
#include "services/ingest/testing/fake_shard.h"

namespace sluice::ingest {
namespace {

using testing::FakePolicy;
using testing::FakeShard;

// A blocking client; every wait ends after 20 s.
class Client {
 public:
  explicit Client(const Endpoint& server) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    const timeval limit{20, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    sockaddr_storage address;
    const socklen_t size = server.ToSockaddr(&address);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), size) == 0;
  }
  ~Client() { ::close(fd_); }
  bool connected() const { return connected_; }
  bool Send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  // One line without CR LF; "" at the end of the connection.
  std::string Line() {
    while (true) {
      const size_t end = buffer_.find("\r\n");
      if (end != std::string::npos) {
        std::string line = buffer_.substr(0, end);
        buffer_.erase(0, end + 2);
        return line;
      }
      char chunk[4096];
      const ssize_t n = ::recv(fd_, chunk, sizeof chunk, 0);
      if (n <= 0) return "";
      buffer_.append(chunk, static_cast<size_t>(n));
    }
  }
  // The last line of a reply.
  std::string Reply() {
    std::string line = Line();
    while (line.size() > 3 && line[3] == '-') line = Line();
    return line;
  }
  std::string Say(std::string_view text) {
    Send(text);
    return Reply();
  }
  void FinishSending() { ::shutdown(fd_, SHUT_WR); }
  void Reset() {
    const linger hard{1, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
  bool connected_ = false;
  std::string buffer_;
};

class SmtpListenerTest : public ::testing::Test {
 protected:
  struct Lane {
    EventLoop loop;
    FakeShard shard;
    std::unique_ptr<Ingest> ingest;
    std::thread thread;
  };

  void Start(int lanes = 1) {
    std::vector<IngestLoop> loops;
    for (int i = 0; i < lanes; ++i) {
      lanes_.push_back(std::make_unique<Lane>());
      Lane& lane = *lanes_.back();
      lane.shard.answers = answers_;
      lane.ingest = std::make_unique<Ingest>(
          lane.loop, options_,
          std::vector<ShardEndpoint>{{"s", &lane.shard.enqueue(), &lane.shard.upload()}}, policy_);
      lane.ingest->Start();
      while (!lane.ingest->ready()) lane.loop.RunOnce(std::chrono::milliseconds(10));
      loops.push_back({&lane.loop, lane.ingest.get()});
    }
    policy_->loopback->set_allow_chunking(true);
    auto opened = SmtpListener::Open(
        lanes_[0]->loop,
        {.addresses = {*Endpoint::Parse("127.0.0.1:0"), *Endpoint::Parse("127.0.0.1:0")},
         .proxied = {1},
         .max_connections = max_connections_},
        loops);
    ASSERT_TRUE(opened.ok()) << opened.status();
    listener_ = *std::move(opened);
    for (auto& lane : lanes_) {
      lane->thread = std::thread([&loop = lane->loop] { loop.Run(); });
    }
  }
  void Stop() {
    for (auto& lane : lanes_) {
      lane->loop.Stop();
      if (lane->thread.joinable()) lane->thread.join();
    }
  }
  void TearDown() override {
    Stop();
    listener_.reset();
    for (auto& lane : lanes_) lane->ingest.reset();
  }
  // Runs `task` on the lane's loop and waits for it.
  void On(Lane& lane, std::function<void()> task) {
    std::promise<void> done;
    lane.loop.Post([&] {
      task();
      done.set_value();
    });
    done.get_future().wait();
  }
  const Endpoint& address() const { return listener_->addresses()[0]; }

  std::shared_ptr<FakePolicy> policy_ = std::make_shared<FakePolicy>();
  IngestOptions options_;
  uint64_t max_connections_ = 100;
  bool answers_ = true;
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::unique_ptr<SmtpListener> listener_;
};

constexpr char kMessage[] =
    "MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\nSubject: s\r\n\r\ntext\r\n.\r\n";

TEST_F(SmtpListenerTest, MessagesOverSeveralLoops) {
  Start(3);
  std::vector<std::thread> threads;
  std::atomic<int> accepted{0};
  for (int i = 0; i < 9; ++i) {
    threads.emplace_back([&] {
      Client client(address());
      EXPECT_EQ(client.Reply(), "220 mx.test ESMTP Sluice");
      EXPECT_EQ(client.Say("EHLO c.test\r\n"), "250 HELP");
      for (int m = 0; m < 20; ++m) {
        client.Send(kMessage);
        EXPECT_EQ(client.Reply(), "250 2.1.0 Sender OK");
        EXPECT_EQ(client.Reply(), "250 2.1.5 Recipient OK");
        EXPECT_EQ(client.Reply().substr(0, 3), "354");
        accepted += client.Reply().starts_with("250 2.0.0 OK, queued as ");
      }
      EXPECT_EQ(client.Say("QUIT\r\n").substr(0, 3), "221");
      EXPECT_EQ(client.Line(), "");
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(accepted, 180);
  Stop();
  size_t taken = 0;
  for (auto& lane : lanes_) {
    EXPECT_EQ(lane->shard.taken.size(), 60u);
    taken += lane->shard.taken.size();
    for (const auto& t : lane->shard.taken) EXPECT_TRUE(t.body.ends_with("\r\n\r\ntext\r\n"));
  }
  EXPECT_EQ(taken, 180u);
}

TEST_F(SmtpListenerTest, LargeMessageArrivesWhole) {
  Start();
  Client client(address());
  client.Reply();
  client.Say("EHLO c.test\r\n");
  client.Say("MAIL FROM:<a@b.test>\r\n");
  client.Say("RCPT TO:<x@y.test>\r\n");
  client.Say("DATA\r\n");
  std::string text = "Subject: s\r\n\r\n";
  while (text.size() < 20'000'000) text += ".." + std::string(100, 'x') + "\r\n";
  ASSERT_TRUE(client.Send(text));
  EXPECT_EQ(client.Say(".\r\n").substr(0, 4), "250 ");
  Stop();
  std::string sent;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at) + 1;
    sent += text.substr(text[at] == '.' ? at + 1 : at, end - at - (text[at] == '.'));
    at = end;
  }
  EXPECT_TRUE(lanes_[0]->shard.taken.at(0).body.ends_with(sent));
}

TEST_F(SmtpListenerTest, SlowShardStopsTheSocket) {
  Start();
  Lane& lane = *lanes_[0];
  On(lane, [&] { lane.shard.acknowledges_chunks = false; });
  Client client(address());
  client.Reply();
  client.Send("EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nDATA\r\n");
  for (int i = 0; i < 4; ++i) client.Reply();
  std::string text = "\r\n";
  while (text.size() < 30'000'000) text += std::string(100, 'x') + "\r\n";
  std::atomic<bool> sent{false};
  std::thread sender([&] {
    EXPECT_TRUE(client.Send(text + ".\r\n"));
    sent = true;
  });
  // Two chunks are out, and the client is held up: memory stays where it is.
  size_t chunks = 0;
  while (chunks < 2) On(lane, [&] { chunks = lane.shard.chunks_waiting; });
  EXPECT_LT(lane.ingest->body_bytes(), 2'000'000u);
  EXPECT_FALSE(sent);
  On(lane, [&] {
    lane.shard.acknowledges_chunks = true;
    lane.shard.AcknowledgeChunks();
  });
  EXPECT_EQ(client.Reply().substr(0, 4), "250 ");
  sender.join();
  Stop();
  EXPECT_TRUE(lane.shard.taken.at(0).body.ends_with(text));
}

TEST_F(SmtpListenerTest, ConnectionLimits) {
  max_connections_ = 3;
  policy_->loopback->set_max_smtp_in(2);
  Start();
  Client a(address());
  EXPECT_EQ(a.Reply().substr(0, 3), "220");
  {
    Client b(address());
    EXPECT_EQ(b.Reply().substr(0, 3), "220");
    Client c(address());
    EXPECT_EQ(c.Reply(), "421 4.7.0 Too many connections from your network");
    EXPECT_EQ(c.Line(), "");
    EXPECT_EQ(lanes_[0]->ingest->counters().connections_refused, 1u);
    b.Say("QUIT\r\n");
    EXPECT_EQ(b.Line(), "");
  }
  while (listener_->connections() > 1) std::this_thread::yield();
  Client d(address());
  EXPECT_EQ(d.Reply().substr(0, 3), "220");
}

// Whom a trusted proxy speaks for counts for its own network, and not for the proxy's.
TEST_F(SmtpListenerTest, AProxysClientsCountForTheirNetwork) {
  policy_->loopback->set_allow_xclient(true);
  policy_->loopback->set_allow_proxy_protocol(true);
  policy_->loopback->set_max_smtp_in(1);
  policy_->loopback->set_max_smtp_in_scope("127.0.0.0/8");
  policy_->others->set_max_smtp_in(2);
  policy_->others->set_max_smtp_in_scope("0.0.0.0/0");
  Start();
  Client first(address());
  EXPECT_EQ(first.Reply().substr(0, 3), "220");
  Client second(address());
  EXPECT_EQ(second.Reply().substr(0, 3), "421");
  EXPECT_EQ(first.Say("XCLIENT ADDR=192.0.2.1\r\n").substr(0, 3), "220");
  Client third(address());
  EXPECT_EQ(third.Reply().substr(0, 3), "220");
  // The PROXY protocol's client never counts for the proxy.
  Client proxied(listener_->addresses()[1]);
  proxied.Send("PROXY TCP4 192.0.2.7 192.0.2.25 1234 25\r\n");
  EXPECT_EQ(proxied.Reply().substr(0, 3), "220");
  Client more(listener_->addresses()[1]);
  more.Send("PROXY TCP4 192.0.2.8 192.0.2.25 1234 25\r\n");
  EXPECT_EQ(more.Reply(), "421 4.7.0 Too many connections from your network");
  EXPECT_EQ(third.Say("XCLIENT ADDR=192.0.2.2\r\n"),
            "421 4.7.0 Too many connections from your network");
  EXPECT_EQ(third.Line(), "");
  // The places are given back to whom they were taken from.
  first.Say("QUIT\r\n");
  EXPECT_EQ(first.Line(), "");
  while (listener_->connections() > 1) std::this_thread::yield();
  Client fourth(address());
  EXPECT_EQ(fourth.Reply().substr(0, 3), "220");
  EXPECT_EQ(fourth.Say("XCLIENT ADDR=192.0.2.2\r\n").substr(0, 3), "220");
}

// max-smtp-in of {auth} counts those who have authenticated, wherever they come from.
TEST_F(SmtpListenerTest, UsersCountForTheirOwnSection) {
  policy_->users.emplace_back();
  policy_->users.back().set_name("ann");
  policy_->users.back().set_password("secret");
  policy_->loopback->set_allow_unencrypted_plain_auth(true);
  policy_->loopback->set_max_smtp_in(10);
  policy_->loopback->set_max_smtp_in_scope("127.0.0.0/8");
  policy_->named_sources["{auth}"].set_max_smtp_in(1);
  policy_->named_sources["{auth}"].set_max_smtp_in_scope("{auth}");
  Start();
  const auto log_in = [](Client& client) {
    client.Reply();
    client.Say("EHLO c.test\r\n");
    return client.Say("AUTH PLAIN AGFubgBzZWNyZXQ=\r\n");
  };
  Client first(address());
  EXPECT_EQ(log_in(first).substr(0, 3), "235");
  EXPECT_EQ(first.Say("MAIL FROM:<a@b.test>\r\n").substr(0, 3), "250");
  Client second(address());
  EXPECT_EQ(log_in(second).substr(0, 3), "235");
  EXPECT_EQ(second.Say("MAIL FROM:<a@b.test>\r\n"),
            "421 4.7.0 Too many connections from your network");
  EXPECT_EQ(second.Line(), "");
  // Who does not say who it is, is none of them.
  Client third(address());
  third.Reply();
  third.Say("EHLO c.test\r\n");
  EXPECT_EQ(third.Say("MAIL FROM:<a@b.test>\r\n").substr(0, 3), "250");
  first.Say("QUIT\r\n");
  EXPECT_EQ(first.Line(), "");
  while (listener_->connections() > 1) std::this_thread::yield();
  Client fourth(address());
  log_in(fourth);
  EXPECT_EQ(fourth.Say("MAIL FROM:<a@b.test>\r\n").substr(0, 3), "250");
}

TEST_F(SmtpListenerTest, HalfClosedClientHearsTheVerdict) {
  Start();
  Client client(address());
  client.Send(std::string("HELO c.test\r\n") + kMessage + "QUIT\r\n");
  client.FinishSending();
  std::vector<std::string> codes;
  for (std::string line = client.Line(); !line.empty(); line = client.Line()) {
    codes.push_back(line.substr(0, 3));
  }
  EXPECT_EQ(codes, (std::vector<std::string>{"220", "250", "250", "250", "354", "250", "221"}));
}

TEST_F(SmtpListenerTest, VanishedClientsLeaveNothing) {
  answers_ = false;
  Start();
  Lane& lane = *lanes_[0];
  for (int i = 0; i < 10; ++i) {
    Client client(address());
    client.Send(std::string("HELO c.test\r\n") + kMessage);
    for (int reply = 0; reply < 5; ++reply) client.Reply();
    client.Reset();
  }
  while (listener_->connections() > 0) std::this_thread::yield();
  On(lane, [&] { lane.shard.AnswerAll(); });
  On(lane, [] {});
  EXPECT_EQ(lane.ingest->body_bytes(), 0u);
}

TEST_F(SmtpListenerTest, DrainFinishesAndRefuses) {
  answers_ = false;
  Start();
  Lane& lane = *lanes_[0];
  Client idle(address());
  idle.Reply();
  Client busy(address());
  busy.Send(std::string("HELO c.test\r\n") + kMessage);
  for (int reply = 0; reply < 5; ++reply) busy.Reply();
  std::promise<void> drained;
  On(lane, [&] {
    listener_->StopAccepting();
    lane.ingest->Drain([&] { drained.set_value(); });
  });
  EXPECT_EQ(idle.Reply().substr(0, 9), "421 4.3.2");
  EXPECT_EQ(idle.Line(), "");
  EXPECT_FALSE(Client(address()).connected());
  On(lane, [&] { lane.shard.AnswerAll(); });
  EXPECT_EQ(busy.Reply().substr(0, 4), "250 ");
  EXPECT_EQ(busy.Reply().substr(0, 4), "421 ");
  EXPECT_EQ(busy.Line(), "");
  EXPECT_EQ(drained.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

TEST_F(SmtpListenerTest, PortInUseIsAClearError) {
  Start();
  EventLoop other;
  const auto second =
      SmtpListener::Open(other, {.addresses = {address()}}, {{&other, lanes_[0]->ingest.get()}});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists) << second.status();
}

TEST_F(SmtpListenerTest, PipelinedRepliesAllArriveWhenTheClientReadsLate) {
  Start();
  Client client(address());
  std::string noise;
  for (int i = 0; i < 950; ++i) noise += "VRFY x\r\n";
  ASSERT_TRUE(client.Send(noise + "QUIT\r\n"));
  EXPECT_EQ(client.Reply().substr(0, 3), "220");
  for (int i = 0; i < 950; ++i) ASSERT_EQ(client.Line().substr(0, 3), "252");
  EXPECT_EQ(client.Line().substr(0, 3), "221");
  EXPECT_EQ(client.Line(), "");
}

TEST_F(SmtpListenerTest, AProxySaysWhoTheClientIs) {
  policy_->loopback->set_allow_proxy_protocol(true);
  policy_->others->set_allow_relay(true);
  Start();
  const Endpoint& proxied = listener_->addresses()[1];
  Client client(proxied);
  client.Send("PROXY TCP4 192.0.2.7 192.0.2.25 1234");
  client.Send(" 25\r\n");
  EXPECT_EQ(client.Reply(), "220 mx.test ESMTP Sluice");
  client.Say("EHLO c.test\r\n");
  client.Send(kMessage);
  for (int i = 0; i < 3; ++i) client.Reply();
  EXPECT_TRUE(client.Reply().starts_with("250 "));
  // Version 2, of a proxy that asks whether we live.
  Client check(proxied);
  check.Send(std::string_view("\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", 16));
  EXPECT_EQ(check.Reply(), "220 mx.test ESMTP Sluice");
  Stop();
  const auto& message = lanes_[0]->shard.taken.at(0).message.message();
  EXPECT_EQ(message.client_ip(), "192.0.2.7");
  EXPECT_EQ(message.local_ip(), "192.0.2.25");
  EXPECT_NE(lanes_[0]->shard.taken[0].body.find("([192.0.2.7])"), std::string::npos);
}

TEST_F(SmtpListenerTest, NothingButAHeaderOpensAProxiedConnection) {
  policy_->loopback->set_allow_proxy_protocol(true);
  Start();
  const Endpoint& proxied = listener_->addresses()[1];
  const std::string_view kWrong[] = {"EHLO c.test\r\n", "PROXY TCP4 1.2.3.4\r\n",
                                     // Text that a client pipelined before our greeting.
                                     "PROXY TCP4 192.0.2.7 192.0.2.25 1234 25\r\nEHLO c.test\r\n"};
  for (const std::string_view text : kWrong) {
    Client client(proxied);
    client.Send(text);
    EXPECT_EQ(client.Line(), "") << text;
  }
  Client early(proxied);
  early.Send("PROXY ");
  early.FinishSending();
  EXPECT_EQ(early.Line(), "");
  EXPECT_EQ(lanes_[0]->ingest->counters().proxy_headers_refused, 4u);
  EXPECT_EQ(Client(address()).Reply(), "220 mx.test ESMTP Sluice");
}

TEST_F(SmtpListenerTest, OnlyTrustedNetworksMayBeProxies) {
  Start();
  Client client(listener_->addresses()[1]);
  client.Send("PROXY TCP4 192.0.2.7 192.0.2.25 1234 25\r\n");
  EXPECT_EQ(client.Line(), "");
  EXPECT_EQ(lanes_[0]->ingest->counters().proxy_headers_refused, 1u);
}

TEST_F(SmtpListenerTest, PipelinedChunksArriveWhole) {
  Start();
  Client client(address());
  client.Reply();
  client.Say("EHLO c.test\r\n");
  const std::string line = "..x" + std::string(100, 'y') + "\r\n";
  std::string text;
  while (text.size() < 3'000'000) text += line;
  std::string wire = "MAIL FROM:<a@b.test>\r\nRCPT TO:<x@y.test>\r\nBDAT 2\r\n\r\n";
  const std::string half = text.substr(0, text.size() / 2 + 1);
  wire += "BDAT " + std::to_string(half.size()) + "\r\n" + half;
  wire += "BDAT " + std::to_string(text.size() - half.size()) + " LAST\r\n" +
          text.substr(half.size()) + "NOOP\r\n";
  ASSERT_TRUE(client.Send(wire));
  for (const char* expected : {"250 2.1.0", "250 2.1.5", "250 2.0.0 2 ", "250 2.0.0 1",
                               "250 2.0.0 OK, queued as ", "250 2.0.0 OK"}) {
    EXPECT_TRUE(client.Reply().starts_with(expected)) << expected;
  }
  Stop();
  EXPECT_TRUE(lanes_[0]->shard.taken.at(0).body.ends_with("\r\n\r\n" + text));
}

}  // namespace
}  // namespace sluice::ingest
