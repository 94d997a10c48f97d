// The sink's session: a dialogue gives the same replies and the same text however it is cut, and
// each rule does what it says.
#include "tools/sink/session.h"

#include <gtest/gtest.h>

#include <optional>

#include "services/base/testing/manual_executor.h"

namespace sluice::sink {
namespace {

const IpAddress kClient = IpAddress::V4(0x7f000002);
const IpAddress kLocal = IpAddress::V4(0x7f000001);

struct Harness final : SessionOutput, MessageKeeper {
  Harness() : state(executor.clock(), 42) { options.Finish(); }

  void Reply(std::string_view lines) override {
    EXPECT_FALSE(closed);
    replies += lines;
  }
  void Delay(Duration delay) override { replies += "[" + std::to_string(delay.count()) + "us]"; }
  void Close() override { closed = true; }
  void OnMessage(const ReceivedMessage& message) override {
    ++messages;
    text = std::string(message.text);
    from = std::string(message.from);
    recipients = *message.recipients;
  }

  void Open(const IpAddress& client = kClient) {
    session.reset();
    closed = false;
    session.emplace(state, options, *this, keep ? this : nullptr, client, kLocal);
    session->Start();
  }
  // What the session answers to `bytes`.
  std::string Talk(std::string_view bytes) {
    replies.clear();
    session->OnBytes(bytes);
    return replies;
  }
  void Rule(std::string_view rule) {
    absl::Status status = state.rules().Add(rule);
    ASSERT_TRUE(status.ok()) << status.message();
  }

  testing::ManualExecutor executor;
  SinkState state;
  SessionOptions options;
  bool keep = true;
  std::optional<Session> session;
  std::string replies;
  bool closed = false;
  int messages = 0;
  std::string text;
  std::string from;
  std::vector<std::string> recipients;
};

constexpr std::string_view kEnvelope =
    "EHLO client.test\r\nMAIL FROM:<a@x.test> SIZE=100\r\nRCPT TO:<b@y.test>\r\n";

TEST(Session, ADialogueIsTheSameCutAtEveryByte) {
  const std::string dialogue =
      std::string(kEnvelope) +
      "RCPT TO:<c@Y.TEST>\r\nDATA\r\n"
      "Subject: x\r\n\r\n..one dot\r\n.\r not the end\r\n\r.\r\n..\r\nlast\n.\n\r\n.\r\n"
      "MAIL FROM:<>\r\nRCPT TO:<d@y.test>\r\nDATA\r\n.\r\nNOOP\r\nQUIT\r\n";
  const std::string text =
      "Subject: x\r\n\r\n.one dot\r\n\r not the end\r\n\r.\r\n.\r\nlast\n.\n\r\n";
  std::string whole;
  for (size_t cut = 0; cut <= dialogue.size(); ++cut) {
    Harness harness;
    harness.Open();
    harness.session->OnBytes(std::string_view(dialogue).substr(0, cut));
    EXPECT_TRUE(harness.messages != 1 || harness.text == text) << cut;
    harness.session->OnBytes(std::string_view(dialogue).substr(cut));
    EXPECT_EQ(harness.messages, 2) << cut;
    EXPECT_EQ(harness.text, "");
    EXPECT_TRUE(harness.closed);
    EXPECT_EQ(harness.state.counters().recipients, 3u);
    EXPECT_EQ(harness.state.counters().bytes, text.size());
    EXPECT_EQ(harness.state.Domain("y.test")->accepted, 3u);
    if (cut == 0) whole = harness.replies;
    EXPECT_EQ(harness.replies, whole) << cut;
  }
  Harness bytewise;
  bytewise.Open();
  for (char c : dialogue) bytewise.session->OnBytes(std::string_view(&c, 1));
  EXPECT_EQ(bytewise.replies, whole);
  EXPECT_EQ(bytewise.messages, 2);
}

TEST(Session, CommandsOutOfOrderAndMalformedOnesAreRefused) {
  Harness harness;
  harness.Open();
  EXPECT_TRUE(harness.replies.starts_with("220 "));
  EXPECT_TRUE(harness.Talk("MAIL FROM:<a@b>\r\n").starts_with("503"));
  EXPECT_TRUE(harness.Talk("EHLO x\r\n").starts_with("250-sink.test\r\n250-SIZE "));
  EXPECT_TRUE(harness.Talk("DATA\r\n").starts_with("503"));
  EXPECT_TRUE(harness.Talk("RCPT TO:<a@b>\r\n").starts_with("503"));
  EXPECT_TRUE(harness.Talk("MAIL FROM:a@b\r\n").starts_with("501"));
  EXPECT_TRUE(harness.Talk("MAIL FROM:<a@b>\n").starts_with("500"));
  EXPECT_TRUE(harness.Talk("mail from: <a@b>\r\n").starts_with("250"));
  EXPECT_TRUE(harness.Talk("MAIL FROM:<a@b>\r\n").starts_with("503"));
  EXPECT_TRUE(harness.Talk("RCPT TO:<>\r\n").starts_with("501"));
  EXPECT_TRUE(harness.Talk("DATA\r\n").starts_with("554"));
  EXPECT_TRUE(harness.Talk("BDAT 5\r\n").starts_with("500"));
  EXPECT_TRUE(harness.Talk(std::string(5000, 'x') + "\r\n").starts_with("500 5.5.2 line too long"));
  EXPECT_TRUE(harness.Talk("RSET\r\n").starts_with("250"));
  EXPECT_EQ(harness.state.counters().messages, 0u);
}

TEST(Session, SharesFailAtTheStageAsked) {
  Harness harness;
  harness.Rule("soft.test defer=1 defer-reply=450_4.2.0_soft");
  harness.Rule("hard.test reject=1 fail-at=dot");
  harness.Rule("data.test reject=1 fail-at=data");
  harness.Open();
  harness.Talk("EHLO x\r\nMAIL FROM:<a@b>\r\n");
  EXPECT_EQ(harness.Talk("RCPT TO:<u@soft.test>\r\n"), "450 4.2.0 soft\r\n");
  EXPECT_TRUE(harness.Talk("RCPT TO:<u@data.test>\r\n").starts_with("250"));
  EXPECT_TRUE(harness.Talk("DATA\r\n").starts_with("550"));
  harness.Talk("MAIL FROM:<a@b>\r\nRCPT TO:<u@hard.test>\r\n");
  EXPECT_TRUE(harness.Talk("DATA\r\n").starts_with("354"));
  EXPECT_EQ(harness.Talk("x\r\n.\r\n"), "550 5.1.1 no such user\r\n");
  EXPECT_EQ(harness.messages, 0);
  EXPECT_EQ(harness.state.counters().deferred, 1u);
  EXPECT_EQ(harness.state.counters().rejected, 2u);
}

TEST(Session, ASharesIsKeptOverManyRecipients) {
  Harness harness;
  harness.Rule("* defer=5%");
  harness.Open();
  harness.Talk("EHLO x\r\nMAIL FROM:<a@b>\r\n");
  for (int i = 0; i < 10'000; ++i) harness.Talk("RCPT TO:<u@d.test>\r\n");
  EXPECT_NEAR(static_cast<double>(harness.state.counters().deferred), 500, 120);
}

TEST(Session, DelayComesBeforeItsReplyAndCloseInsteadOfIt) {
  Harness harness;
  harness.Rule("slow.test delay=2ms");
  harness.Rule("gone.test close=dot");
  harness.Open();
  harness.Talk("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@slow.test>\r\nDATA\r\n");
  EXPECT_EQ(harness.Talk("x\r\n.\r\n"), "[2000us]250 2.0.0 taken\r\n");
  harness.Talk("MAIL FROM:<a@b>\r\nRCPT TO:<u@gone.test>\r\nDATA\r\n");
  EXPECT_EQ(harness.Talk("x\r\n.\r\nNOOP\r\n"), "");
  EXPECT_TRUE(harness.closed);
  EXPECT_EQ(harness.state.counters().messages, 1u);
  EXPECT_EQ(harness.state.counters().dropped, 1u);
}

TEST(Session, CloseInTheMiddleOfTheText) {
  Harness harness;
  harness.Rule("gone.test close=text");
  harness.Open();
  harness.Talk("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@gone.test>\r\nDATA\r\n");
  EXPECT_EQ(harness.Talk("first half "), "");
  EXPECT_TRUE(harness.closed);
}

TEST(Session, ConnectionLimitCountsOneClientsConnections) {
  Harness first;
  first.Rule("tight.test connections=1");
  first.Open();
  constexpr std::string_view kTry = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<u@tight.test>\r\n";
  first.Talk(kTry);
  EXPECT_TRUE(first.Talk("RCPT TO:<v@tight.test>\r\n").starts_with("250"));
  {
    Harness output;
    Session second(first.state, first.options, output, nullptr, kClient, kLocal);
    second.Start();
    second.OnBytes(kTry);
    EXPECT_NE(output.replies.find("421 4.7.0"), std::string::npos);
    EXPECT_TRUE(output.closed);
    Harness other;
    Session third(first.state, first.options, other, nullptr, kLocal, kLocal);
    third.OnBytes(kTry);
    EXPECT_FALSE(other.closed);
    EXPECT_EQ(first.state.Domain("tight.test")->connections, 3u);
  }
  EXPECT_EQ(first.state.Domain("tight.test")->connections, 1u);
  EXPECT_EQ(first.state.Domain("tight.test")->connections_peak, 3u);
}

TEST(Session, RateAndGreylistFollowTheClock) {
  Harness harness;
  harness.Rule("rate.test rate=2/s");
  harness.Rule("grey.test greylist=1m");
  harness.Open();
  harness.Talk("EHLO x\r\nMAIL FROM:<a@b>\r\n");
  EXPECT_TRUE(harness.Talk("RCPT TO:<u@rate.test>\r\n").starts_with("250"));
  EXPECT_TRUE(harness.Talk("RCPT TO:<u@rate.test>\r\n").starts_with("250"));
  EXPECT_TRUE(harness.Talk("RCPT TO:<u@rate.test>\r\n").starts_with("451"));
  EXPECT_TRUE(harness.Talk("RCPT TO:<u@grey.test>\r\n").starts_with("451"));
  harness.executor.Advance(std::chrono::seconds(1));
  EXPECT_TRUE(harness.Talk("RCPT TO:<u@rate.test>\r\n").starts_with("250"));
  EXPECT_TRUE(harness.Talk("RCPT TO:<u@grey.test>\r\n").starts_with("451"));
  harness.executor.Advance(std::chrono::seconds(59));
  EXPECT_TRUE(harness.Talk("RCPT TO:<u@grey.test>\r\n").starts_with("250"));
  EXPECT_TRUE(harness.Talk("RCPT TO:<v@grey.test>\r\n").starts_with("451"));
  EXPECT_EQ(harness.state.counters().greylist_wait.count(), 1u);
  EXPECT_EQ(harness.state.counters().greylist_wait.max_us(), 60'000'000u);
}

TEST(Session, LatencyIsReadFromTheHeaderOnly) {
  for (bool keep : {true, false}) {
    Harness harness;
    harness.keep = keep;
    harness.Open();
    harness.Talk(kEnvelope);
    int64_t sent = ToUnixMicros(harness.executor.clock().WallNow()) - 1500;
    std::string field = "X-Sent-Us: " + std::to_string(sent) + "\r\n";
    harness.Talk("DATA\r\nX-Test-Id: big-7\r\n" + field + "\r\nbody\r\n.\r\n");
    EXPECT_EQ(harness.state.counters().latency_by_load["big"].count(), 1u);
    EXPECT_EQ(harness.state.counters().latency.count(), 1u);
    EXPECT_EQ(harness.state.counters().latency.max_us(), 1500u);
    harness.Talk("MAIL FROM:<>\r\nRCPT TO:<b@y.test>\r\nDATA\r\nSubject: a\r\n\r\n" + field +
                 ".\r\n");
    EXPECT_EQ(harness.state.counters().messages, 2u);
    EXPECT_EQ(harness.state.counters().latency.count(), 1u);
  }
}

TEST(Session, SizeLimitHolds) {
  Harness harness;
  harness.options.size_max_bytes = 1000;
  harness.Open();
  harness.Talk(std::string(kEnvelope) + "DATA\r\n");
  EXPECT_EQ(harness.Talk(std::string(999, 'x') + "\r\n.\r\n"), "552 5.3.4 message too big\r\n");
  EXPECT_EQ(harness.messages, 0);
}

}  // namespace
}  // namespace sluice::sink
