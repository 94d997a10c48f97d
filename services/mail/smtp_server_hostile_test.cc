// Proves that no client holds a session, its memory or its answers longer than the limits say, by
// the ways that extensions open: chunks, authentication, mail merge, answers that wait.
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/mail/smtp_server_session.h"

namespace sluice::mail {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

class Handler : public SmtpServerHandler {
 public:
  void OnHello(std::string_view, bool) override {}
  std::optional<ServerReply> OnMail(const MailCommand&) override {
    return ServerReply{250, {2, 1, 0}, "OK"};
  }
  std::optional<ServerReply> OnRcpt(const RcptCommand&) override {
    return ServerReply{250, {2, 1, 5}, "OK"};
  }
  std::optional<ServerReply> OnData() override { return ServerReply{354, {}, "go"}; }
  void OnBody(std::string_view text) override {
    body_bytes += text.size();
    if (pauses != nullptr) pauses->PauseBody();
  }
  std::optional<ServerReply> OnMessageEnd(const MessageFacts&) override {
    ++messages;
    return ServerReply{250, {2, 0, 0}, "queued"};
  }
  void OnReset() override { ++resets; }
  std::string AuthMechanisms() override { return "X"; }
  std::optional<ServerReply> OnAuth(std::string_view,
                                    std::optional<std::string_view> initial) override {
    ++auths;
    if (!initial) return ServerReply{334, {}, "who"};
    if (*initial == "wait") return std::nullopt;
    return ServerReply{535, {5, 7, 8}, "no", seconds(8)};
  }
  void OnAuthCancel() override { ++cancels; }
  void OnFault(ClientFault fault) override { faults.push_back(fault); }
  bool OffersMailMerge() override { return true; }

  std::vector<ClientFault> faults;
  SmtpServerSession* pauses = nullptr;
  uint64_t body_bytes = 0;
  int messages = 0;
  int resets = 0;
  int auths = 0;
  int cancels = 0;
};

class SmtpServerHostileTest : public testing::Test {
 protected:
  SmtpServerHostileTest() {
    options_.host_name = "h";
    options_.command_timeout = minutes(10);
    options_.data_timeout = minutes(3);
    options_.max_message_bytes = 1 << 20;
    options_.extensions.chunking = true;
    session_.Start(now_);
    Say("EHLO c\r\n");
  }
  std::string Take() {
    std::string text(session_.output());
    session_.Sent(now_, text.size());
    return text;
  }
  std::string Say(std::string_view text) {
    session_.OnBytes(now_, text);
    return Take();
  }
  void Envelope() { Say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"); }

  MonotonicTime now_{seconds(100)};
  SmtpServerOptions options_;
  Handler handler_;
  SmtpServerSession session_{handler_, options_};
};

TEST_F(SmtpServerHostileTest, ChunksHaveTheDeadlineOfTextAndGapsThatOfCommands) {
  Envelope();
  Say("BDAT 10\r\nabc");
  EXPECT_EQ(session_.deadline(), now_ + minutes(3));
  now_ += minutes(2);
  Say("d");
  EXPECT_EQ(session_.deadline(), now_ + minutes(3));
  EXPECT_TRUE(Say("efghij").starts_with("250 "));
  EXPECT_EQ(session_.deadline(), now_ + minutes(10));
  now_ += minutes(10);
  session_.OnTimer(now_);
  EXPECT_TRUE(Take().starts_with("421 "));
  EXPECT_TRUE(session_.closing());
  EXPECT_EQ(handler_.resets, 1);
}

TEST_F(SmtpServerHostileTest, AChunkHasToComeInAtTheLeastRate) {
  options_.min_data_bytes_per_second = 100;
  Envelope();
  Say("BDAT 1000000 LAST\r\n");
  for (int i = 0; i < 40 && !session_.closing(); ++i) {
    now_ += seconds(1);
    session_.OnTimer(now_);
    if (!session_.closing()) Say("x");
  }
  EXPECT_TRUE(session_.closing());
}

TEST_F(SmtpServerHostileTest, ARefusedChunkIsDroppedNotHeld) {
  // 40 MB behind a refusal; nothing of it is kept or given on.
  Say("BDAT 40000000 LAST\r\n");
  const std::string piece(100'000, 'x');
  for (int i = 0; i < 400; ++i) {
    EXPECT_TRUE(session_.wants_read());
    session_.OnBytes(now_, piece);
    EXPECT_LE(session_.buffered_bytes(), 8192u);
  }
  EXPECT_TRUE(Take().starts_with("503 "));
  EXPECT_EQ(handler_.body_bytes, 0u);
  // The same of a message that is too large.
  Envelope();
  Say("BDAT 40000000 LAST\r\n");
  for (int i = 0; i < 400; ++i) session_.OnBytes(now_, piece);
  EXPECT_TRUE(Take().starts_with("552 "));
  EXPECT_LE(handler_.body_bytes, 1u << 20);
  EXPECT_EQ(handler_.messages, 0);
}

TEST_F(SmtpServerHostileTest, APausedChunkStopsReadingAndGoesOn) {
  Envelope();
  handler_.pauses = &session_;
  EXPECT_EQ(Say("BDAT 6\r\nab\r\ncd"), "250 2.0.0 6 bytes taken\r\n");
  EXPECT_EQ(Say("BDAT 2 LAST\r\n\r\n"), "");
  EXPECT_FALSE(session_.wants_read());
  EXPECT_FALSE(session_.deadline());
  EXPECT_EQ(handler_.body_bytes, 6u);
  session_.ResumeBody(now_);
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n");
  EXPECT_EQ(handler_.body_bytes, 8u);
}

TEST_F(SmtpServerHostileTest, HalfClosedInAChunkDeliversNothing) {
  Envelope();
  Say("BDAT 10 LAST\r\nabc\r\n");
  session_.OnEof(now_);
  EXPECT_TRUE(session_.closing());
  EXPECT_EQ(handler_.messages, 0);
  EXPECT_EQ(handler_.resets, 1);
}

TEST_F(SmtpServerHostileTest, HalfClosedBehindAWholeChunkHearsTheVerdict) {
  Envelope();
  session_.OnBytes(now_, "BDAT 3 LAST\r\nabc");
  session_.OnEof(now_);
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n");
  EXPECT_TRUE(session_.closing());
}

TEST_F(SmtpServerHostileTest, GuessesWaitInTurnAndEndTheSession) {
  options_.max_errors = 3;
  // All at once: each waits for the one before it.
  std::string guesses;
  for (int i = 0; i < 10; ++i) guesses += "AUTH X AAAA\r\n";
  EXPECT_EQ(Say(guesses), "");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(handler_.auths, i + 1);
    EXPECT_FALSE(session_.wants_read());
    EXPECT_EQ(session_.deadline(), now_ + seconds(8));
    now_ += seconds(7);
    session_.OnTimer(now_);
    EXPECT_EQ(Take(), "") << "before its time";
    now_ += seconds(1);
    session_.OnTimer(now_);
    EXPECT_TRUE(Take().starts_with("535 "));
  }
  now_ += seconds(8);
  session_.OnTimer(now_);
  EXPECT_TRUE(Take().ends_with("421 4.7.0 Too many errors\r\n"));
  EXPECT_TRUE(session_.closing());
  EXPECT_EQ(handler_.auths, 4);
}

TEST_F(SmtpServerHostileTest, LeavingWhileAGuessWaitsEndsIt) {
  Say("AUTH X AAAA\r\n");
  session_.OnEof(now_);
  EXPECT_FALSE(session_.closing());
  now_ += seconds(8);
  session_.OnTimer(now_);
  EXPECT_TRUE(session_.closing());
  // And in the middle of an exchange whose answer is ours to give.
  Handler handler;
  SmtpServerSession session(handler, options_);
  session.Start(now_);
  session.OnBytes(now_, "EHLO c\r\nAUTH X d2FpdA==\r\nQUIT\r\n");
  EXPECT_FALSE(session.deadline() && session.output().empty());
  session.Shutdown(now_);
  EXPECT_TRUE(session.closing());
  EXPECT_EQ(handler.cancels, 1);
  session.OnVerdict(now_, ServerReply{235, {2, 7, 0}, "late"});
  EXPECT_EQ(session.output().find("235"), std::string::npos);
}

TEST_F(SmtpServerHostileTest, AResponseWithoutEndIsNotKept) {
  Say("AUTH X\r\n");
  const std::string piece(1000, 'A');
  for (int i = 0; i < 10 && !session_.closing(); ++i) session_.OnBytes(now_, piece);
  EXPECT_TRUE(session_.closing());
  EXPECT_LE(session_.buffered_bytes(), 16u * 1024);
}

TEST_F(SmtpServerHostileTest, DefinitionsOfAMergeAreBounded) {
  Say("XMRG FROM:<a@b>\r\n");
  std::string reply;
  for (int i = 0; i < 100; ++i) {
    reply = Say("XDFN v" + std::to_string(i) + "=" + std::string(4000, 'x') + "\r\n");
    if (!reply.starts_with("250 ")) break;
  }
  EXPECT_TRUE(reply.starts_with("552 "));
}

TEST_F(SmtpServerHostileTest, QuietMergeCommandsAreNoWayAroundTheLimits) {
  options_.max_idle_commands = 50;
  Say("XACK OFF\r\nXMRG FROM:<a@b>\r\n");
  std::string flood;
  for (int i = 0; i < 100; ++i) flood += "XDFN a=1\r\n";
  EXPECT_TRUE(Say(flood).starts_with("421 "));
  EXPECT_TRUE(session_.closing());
}

TEST_F(SmtpServerHostileTest, PipelinedCommandsStopAtTheReaderOfReplies) {
  options_.max_idle_commands = 1'000'000;
  std::string flood;
  for (int i = 0; i < 5000; ++i) flood += "HELP\r\n";
  session_.OnBytes(now_, flood);
  EXPECT_FALSE(session_.wants_read());
  EXPECT_LE(session_.output().size(), 17u * 1024);
  size_t replies = 0;
  while (!session_.output().empty()) {
    const std::string text = Take();
    for (size_t at = 0; (at = text.find("214 ", at)) != text.npos; ++at) ++replies;
  }
  EXPECT_EQ(replies, 5000u);
}

// What ends a session is told once, so that somebody can count it.
TEST(SmtpServerFaults, AreNamed) {
  struct Case {
    std::string bytes;
    ClientFault fault;
    const char* code;
  };
  const Case kCases[] = {
      {"NOOP\nQUIT\r\n", ClientFault::kBareLineEnd, "554 5.5.2"},
      {"NOOP\r\r\n", ClientFault::kBareLineEnd, "554 5.5.2"},
      {"NO\rOP\r\n", ClientFault::kBareLineEnd, "554 5.5.2"},
      {std::string("NO\0OP\r\n", 7), ClientFault::kBareLineEnd, "554 5.5.2"},
      {std::string(5000, 'x'), ClientFault::kLineTooLong, "500 5.5.2"},
      {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ClientFault::kForeignProtocol, "554 5.5.1"},
      {"A\r\nB\r\nC\r\nD\r\nE\r\n", ClientFault::kTooManyErrors, "421 4.7.0"},
      {"NOOP\r\nNOOP\r\nNOOP\r\nNOOP\r\nNOOP\r\nNOOP\r\n", ClientFault::kTooManyErrors,
       "421 4.7.0"},
      {"EHLO c\r\nRCPT TO:<>\r\nRCPT TO:<>\r\nRCPT TO:<>\r\nRCPT TO:<>\r\n",
       ClientFault::kTooManyErrors, "421 4.7.0"},
  };
  for (const Case& each : kCases) {
    Handler handler;
    SmtpServerOptions options;
    options.max_errors = 3;
    options.max_idle_commands = 5;
    SmtpServerSession session(handler, options);
    session.Start(MonotonicTime{seconds(1)});
    session.OnBytes(MonotonicTime{seconds(1)}, each.bytes);
    EXPECT_TRUE(session.closing()) << each.bytes;
    EXPECT_EQ(handler.faults, std::vector{each.fault}) << each.bytes;
    EXPECT_NE(session.output().find(each.code), std::string::npos) << session.output();
    EXPECT_LE(session.buffered_bytes(), 8192u);
  }
}

TEST(SmtpServerSessionSize, AnIdleSessionIsSmall) { EXPECT_LE(sizeof(SmtpServerSession), 1024u); }

}  // namespace
}  // namespace sluice::mail
