// Proves that no client holds a session, its memory or its answers longer than the limits say, by
// the ways that extensions open: chunks, authentication, mail merge, answers that wait.
#include <algorithm>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/mail/testing/smtp_server_side.h"

namespace sluice::mail {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

class SmtpServerHostileTest : public testing::Test, protected SmtpServerSide {
 protected:
  SmtpServerHostileTest() {
    options.host_name = "h";
    options.command_timeout = minutes(10);
    options.data_timeout = minutes(3);
    options.max_message_bytes = 1 << 20;
    options.extensions.chunking = true;
    handler.mechanisms = "X";
    handler.merges = true;
    handler.auth = SlowJudge();
    session.Start(now);
    Say("EHLO c\r\n");
  }
  // Lets nobody in: "wait" is never answered, everything else after a while.
  static auto SlowJudge() -> decltype(FakeServerHandler::auth) {
    return [](std::string_view, std::optional<std::string_view> initial) {
      if (!initial) return std::optional(ServerReply{334, {}, "who"});
      if (*initial == "wait") return std::optional<ServerReply>();
      return std::optional(ServerReply{535, {5, 7, 8}, "no", seconds(8)});
    };
  }
  void Envelope() { Say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"); }
};

TEST_F(SmtpServerHostileTest, ChunksHaveTheDeadlineOfTextAndGapsThatOfCommands) {
  Envelope();
  Say("BDAT 10\r\nabc");
  EXPECT_EQ(session.deadline(), now + minutes(3));
  now += minutes(2);
  Say("d");
  EXPECT_EQ(session.deadline(), now + minutes(3));
  EXPECT_TRUE(Say("efghij").starts_with("250 "));
  EXPECT_EQ(session.deadline(), now + minutes(10));
  now += minutes(10);
  session.OnTimer(now);
  EXPECT_TRUE(Take().starts_with("421 "));
  EXPECT_TRUE(session.closing());
  EXPECT_EQ(handler.resets, 1);
}

TEST_F(SmtpServerHostileTest, AChunkHasToComeInAtTheLeastRate) {
  options.min_data_bytes_per_second = 100;
  Envelope();
  Say("BDAT 1000000 LAST\r\n");
  for (int i = 0; i < 40 && !session.closing(); ++i) {
    now += seconds(1);
    session.OnTimer(now);
    if (!session.closing()) Say("x");
  }
  EXPECT_TRUE(session.closing());
}

TEST_F(SmtpServerHostileTest, ManySmallChunksAreNoWayToStayForEver) {
  Envelope();
  const MonotonicTime began = now;
  while (!session.closing() && now < began + 2 * kMessageTimeMax) {
    EXPECT_TRUE(Say("BDAT 1\r\nx").starts_with("250 "));
    now = std::min(now + minutes(9), session.deadline().value_or(now));
    session.OnTimer(now);
  }
  EXPECT_TRUE(Take().starts_with("421 "));
  EXPECT_LE(now, began + kMessageTimeMax);
  EXPECT_EQ(handler.faults, std::vector{ClientFault::kTooSlow});
  EXPECT_EQ(handler.resets, 1);
}

TEST_F(SmtpServerHostileTest, ChunksAndPartsHaveTheLeastRateOfOneText) {
  options.min_data_bytes_per_second = 100;
  for (const bool merge : {false, true}) {
    SmtpServerSession other(handler, options);
    const auto say = [&](std::string_view text) {
      other.OnBytes(now, text);
      other.Sent(now, other.output().size());
    };
    other.Start(now);
    say(merge ? "EHLO c\r\nXMRG FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
              : "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    const MonotonicTime began = now;
    for (int part = 1; part <= 10 && !other.closing(); ++part) {
      say(merge ? "XPRT " + std::to_string(part) + "\r\nx\r\n.\r\n" : "BDAT 3\r\nx\r\n");
      now += seconds(20);
      other.OnTimer(now);
    }
    EXPECT_TRUE(other.closing()) << merge;
    EXPECT_LE(now, began + seconds(40)) << merge;
  }
}

TEST_F(SmtpServerHostileTest, ARefusedChunkIsDroppedNotHeld) {
  // 40 MB behind a refusal; nothing of it is kept or given on.
  Say("BDAT 40000000 LAST\r\n");
  const std::string piece(100'000, 'x');
  for (int i = 0; i < 400; ++i) {
    EXPECT_TRUE(session.wants_read());
    session.OnBytes(now, piece);
    EXPECT_LE(session.buffered_bytes(), 8192u);
  }
  EXPECT_TRUE(Take().starts_with("503 "));
  EXPECT_EQ(handler.body.size(), 0u);
  // The same of a message that is too large.
  Envelope();
  Say("BDAT 40000000 LAST\r\n");
  for (int i = 0; i < 400; ++i) session.OnBytes(now, piece);
  EXPECT_TRUE(Take().starts_with("552 "));
  EXPECT_LE(handler.body.size(), 1u << 20);
  EXPECT_EQ(handler.messages, 0);
}

TEST_F(SmtpServerHostileTest, APausedChunkStopsReadingAndGoesOn) {
  Envelope();
  handler.pauses = &session;
  EXPECT_EQ(Say("BDAT 6\r\nab\r\ncd"), "250 2.0.0 6 bytes taken\r\n");
  EXPECT_EQ(Say("BDAT 2 LAST\r\n\r\n"), "");
  EXPECT_FALSE(session.wants_read());
  EXPECT_FALSE(session.deadline());
  EXPECT_EQ(handler.body.size(), 6u);
  session.ResumeBody(now);
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n");
  EXPECT_EQ(handler.body.size(), 8u);
}

TEST_F(SmtpServerHostileTest, HalfClosedInAChunkDeliversNothing) {
  Envelope();
  Say("BDAT 10 LAST\r\nabc\r\n");
  session.OnEof(now);
  EXPECT_TRUE(session.closing());
  EXPECT_EQ(handler.messages, 0);
  EXPECT_EQ(handler.resets, 1);
  EXPECT_EQ(handler.faults, std::vector{ClientFault::kCutOff});
}

TEST_F(SmtpServerHostileTest, WhoLeavesBetweenTextsIsNoFault) {
  Envelope();
  session.OnLost();
  EXPECT_TRUE(session.closing());
  EXPECT_TRUE(handler.faults.empty());
}

TEST_F(SmtpServerHostileTest, WhoIsLostInATextIsCountedOnce) {
  Envelope();
  Say("DATA\r\nabc");
  session.OnLost();
  session.OnLost();
  EXPECT_EQ(handler.faults, std::vector{ClientFault::kCutOff});
}

TEST_F(SmtpServerHostileTest, HalfClosedBehindAWholeChunkHearsTheVerdict) {
  Envelope();
  session.OnBytes(now, "BDAT 3 LAST\r\nabc");
  session.OnEof(now);
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n");
  EXPECT_TRUE(session.closing());
}

TEST_F(SmtpServerHostileTest, GuessesWaitInTurnAndEndTheSession) {
  options.max_errors = 3;
  // All at once: each waits for the one before it.
  std::string guesses;
  for (int i = 0; i < 10; ++i) guesses += "AUTH X AAAA\r\n";
  EXPECT_EQ(Say(guesses), "");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(handler.auths, i + 1);
    EXPECT_FALSE(session.wants_read());
    EXPECT_EQ(session.deadline(), now + seconds(8));
    now += seconds(7);
    session.OnTimer(now);
    EXPECT_EQ(Take(), "") << "before its time";
    now += seconds(1);
    session.OnTimer(now);
    EXPECT_TRUE(Take().starts_with("535 "));
  }
  now += seconds(8);
  session.OnTimer(now);
  EXPECT_TRUE(Take().ends_with("421 4.7.0 Too many errors\r\n"));
  EXPECT_TRUE(session.closing());
  EXPECT_EQ(handler.auths, 4);
}

TEST_F(SmtpServerHostileTest, LeavingWhileAGuessWaitsEndsIt) {
  Say("AUTH X AAAA\r\n");
  session.OnEof(now);
  EXPECT_FALSE(session.closing());
  now += seconds(8);
  session.OnTimer(now);
  EXPECT_TRUE(session.closing());
  // And in the middle of an exchange whose answer is ours to give.
  FakeServerHandler other;
  other.mechanisms = "X";
  other.auth = SlowJudge();
  SmtpServerSession second(other, options);
  second.Start(now);
  second.OnBytes(now, "EHLO c\r\nAUTH X d2FpdA==\r\nQUIT\r\n");
  EXPECT_FALSE(second.deadline() && second.output().empty());
  second.Shutdown(now);
  EXPECT_TRUE(second.closing());
  EXPECT_EQ(other.cancels, 1);
  second.OnVerdict(now, ServerReply{235, {2, 7, 0}, "late"});
  EXPECT_EQ(second.output().find("235"), std::string::npos);
}

TEST_F(SmtpServerHostileTest, AResponseWithoutEndIsNotKept) {
  Say("AUTH X\r\n");
  const std::string piece(1000, 'A');
  for (int i = 0; i < 10 && !session.closing(); ++i) session.OnBytes(now, piece);
  EXPECT_TRUE(session.closing());
  EXPECT_LE(session.buffered_bytes(), 16u * 1024);
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
  options.max_idle_commands = 50;
  Say("XACK OFF\r\nXMRG FROM:<a@b>\r\n");
  std::string flood;
  for (int i = 0; i < 100; ++i) flood += "XDFN a=1\r\n";
  EXPECT_TRUE(Say(flood).starts_with("421 "));
  EXPECT_TRUE(session.closing());
}

// Who does not hear of a refusal sends the rest of a long list, and is told at its end.
TEST_F(SmtpServerHostileTest, ARefusedMergeWithoutRepliesIsPassedOverToItsEnd) {
  options.max_idle_commands = 50;
  options.max_recipients = 10;
  Say("XACK OFF\r\n");
  std::string list;
  for (int i = 0; i < 1000; ++i) list += "XDFN a=1\r\nRCPT TO:<r@b>\r\n";
  EXPECT_EQ(Say("XMRG FROM:<a@b>\r\n" + list + "XPRT 1 LAST\r\n"),
            "452 4.5.3 Too many recipients, send the rest in another transaction\r\n");
  EXPECT_FALSE(session.closing());
  // But not for ever.
  Say("XMRG FROM:<a@b>\r\n" + list);
  std::string flood;
  for (int i = 0; i < 1000; ++i) flood += "XDFN a=1\r\n";
  for (uint32_t i = 0; i <= kMaxPassedOver / 1000 && !session.closing(); ++i) Say(flood);
  EXPECT_TRUE(session.closing());
}

TEST_F(SmtpServerHostileTest, PipelinedCommandsStopAtTheReaderOfReplies) {
  options.max_idle_commands = 1'000'000;
  std::string flood;
  for (int i = 0; i < 5000; ++i) flood += "HELP\r\n";
  session.OnBytes(now, flood);
  EXPECT_FALSE(session.wants_read());
  EXPECT_LE(session.output().size(), 17u * 1024);
  size_t replies = 0;
  while (!session.output().empty()) {
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
    FakeServerHandler handler;
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
