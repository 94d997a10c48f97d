// Proves the session's one deadline, its back-pressure, its orderly end and the half-closed client.
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/mail/testing/smtp_server_side.h"

namespace sluice::mail {
namespace {

using std::chrono::minutes;
using std::chrono::seconds;

class SmtpServerTimingTest : public testing::Test, protected SmtpServerSide {
 protected:
  SmtpServerTimingTest() {
    options.host_name = "h";
    options.command_timeout = minutes(10);
    options.data_timeout = minutes(3);
    handler.end.reset();
    session.Start(now);
    Take();
  }
  void ToData() {
    Say("HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    ASSERT_TRUE(session.receiving_data());
  }
};

TEST_F(SmtpServerTimingTest, CommandDeadlineMovesWithCommandsNotWithBytes) {
  EXPECT_EQ(session.deadline(), now + minutes(10));
  const MonotonicTime start = now;
  now += minutes(5);
  Say("NO");
  EXPECT_EQ(session.deadline(), start + minutes(10));
  Say("OP\r\n");
  EXPECT_EQ(session.deadline(), now + minutes(10));
  now += minutes(10) - Duration(1);
  session.OnTimer(now);
  EXPECT_FALSE(session.closing());
  now += Duration(1);
  session.OnTimer(now);
  EXPECT_TRUE(session.closing());
  EXPECT_EQ(Take(), "421 4.4.2 h waited too long, closing the connection\r\n");
}

TEST_F(SmtpServerTimingTest, DataDeadlineMovesWithBytesAndResets) {
  ToData();
  now += minutes(2);
  Say("text");
  EXPECT_EQ(session.deadline(), now + minutes(3));
  now += minutes(3);
  session.OnTimer(now);
  EXPECT_TRUE(session.closing());
  EXPECT_EQ(handler.resets, 1);
}

TEST_F(SmtpServerTimingTest, NoDeadlineAndNoReadWhileTheVerdictIsOurs) {
  ToData();
  EXPECT_EQ(Say("text\r\n.\r\nNOOP\r\n"), "");
  EXPECT_EQ(handler.messages, 1);
  EXPECT_FALSE(session.wants_read());
  EXPECT_EQ(session.deadline(), std::nullopt);
  session.OnVerdict(now, {250, {2, 0, 0}, "queued"});
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n250 2.0.0 OK\r\n");
  EXPECT_TRUE(session.wants_read());
}

TEST_F(SmtpServerTimingTest, PausedBodyStopsReadingAndGoesOn) {
  handler.pauses = &session;
  ToData();
  Say("one\r\n");
  EXPECT_FALSE(session.wants_read());
  EXPECT_EQ(session.deadline(), std::nullopt);
  session.ResumeBody(now);
  EXPECT_TRUE(session.wants_read());
  handler.pauses = nullptr;
  Say("two\r\n.\r\n");
  EXPECT_EQ(handler.body, "one\r\ntwo\r\n");
  EXPECT_EQ(handler.messages, 1);
}

TEST_F(SmtpServerTimingTest, ClientThatDoesNotReadStopsBeingReadAndTimesOut) {
  std::string noops;
  for (int i = 0; i < 5000; ++i) noops += "VRFY x\r\n";
  options.max_idle_commands = 100'000;
  session.OnBytes(now, noops);
  EXPECT_FALSE(session.wants_read());
  EXPECT_LT(session.output().size(), 20'000u);
  EXPECT_LT(session.buffered_bytes(), 100'000u);
  // It reads again: everything is answered.
  size_t replies = 0;
  while (!session.output().empty()) {
    for (char c : Take()) replies += c == '\n';
  }
  EXPECT_EQ(replies, 5000u);
  EXPECT_TRUE(session.wants_read());

  session.OnBytes(now, noops);
  now += minutes(11);
  session.OnTimer(now);
  EXPECT_TRUE(session.closing());
  EXPECT_TRUE(session.output().empty());
}

TEST_F(SmtpServerTimingTest, ShutdownIsImmediateBetweenMessages) {
  Say("HELO c\r\nMAIL FROM:<a@b>\r\n");
  session.Shutdown(now);
  EXPECT_EQ(Take(), "421 4.3.2 h is shutting down\r\n");
  EXPECT_TRUE(session.closing());
  EXPECT_EQ(handler.resets, 1);
}

TEST_F(SmtpServerTimingTest, ShutdownWaitsForTheMessageOnItsWay) {
  ToData();
  session.Shutdown(now);
  EXPECT_FALSE(session.closing());
  Say("text\r\n.\r\nMAIL FROM:<a@b>\r\n");
  EXPECT_FALSE(session.closing());
  session.OnVerdict(now, {250, {2, 0, 0}, "queued"});
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n421 4.3.2 h is shutting down\r\n");
  EXPECT_TRUE(session.closing());
}

TEST_F(SmtpServerTimingTest, HalfClosedClientStillGetsItsAnswers) {
  ToData();
  Say("text\r\n.\r\nQUIT\r\n");
  session.OnEof(now);
  EXPECT_FALSE(session.closing());
  session.OnVerdict(now, {250, {2, 0, 0}, "queued"});
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n221 2.0.0 h closes the connection\r\n");
  EXPECT_TRUE(session.closing());
}

TEST_F(SmtpServerTimingTest, VerdictAfterTheEndIsIgnored) {
  ToData();
  Say("text\r\n.\r\n");
  session.OnEof(now);
  session.OnVerdict(now, {250, {2, 0, 0}, "queued"});
  EXPECT_TRUE(session.closing());
  session.OnVerdict(now, {250, {2, 0, 0}, "queued"});
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n");
}

TEST_F(SmtpServerTimingTest, RefusedConnection) {
  SmtpServerSession refused(handler, options);
  const ServerReply reply{421, {4, 3, 2}, "Too many connections"};
  refused.Start(now, &reply);
  EXPECT_EQ(refused.output(), "421 4.3.2 Too many connections\r\n");
  EXPECT_TRUE(refused.closing());
}

TEST_F(SmtpServerTimingTest, LineTooLongEndsTheSessionAtOnce) {
  EXPECT_EQ(Say(std::string(4095, 'x')), "");
  EXPECT_EQ(Say("x"), "500 5.5.2 Line too long\r\n");
  EXPECT_TRUE(session.closing());
}

TEST_F(SmtpServerTimingTest, AMessageHasToComeInAtItsLeastRate) {
  options.min_data_bytes_per_second = 10;
  ToData();
  const MonotonicTime start = now;
  EXPECT_EQ(session.deadline(), start + kDataRateGrace);
  now += seconds(20);
  Say(std::string(98, 'x') + "\r\n");
  EXPECT_EQ(session.deadline(), start + kDataRateGrace + seconds(10));
  // What comes fast keeps the usual deadline.
  Say(std::string(9'998, 'x') + "\r\n");
  EXPECT_EQ(session.deadline(), now + minutes(3));
  now = *session.deadline();
  Say("y\r\n");
  now = start + kDataRateGrace + seconds(1010);
  session.OnTimer(now);
  EXPECT_TRUE(Take().starts_with("421 4.4.2"));
  EXPECT_TRUE(session.closing());
  EXPECT_EQ(handler.resets, 1);
}

TEST_F(SmtpServerTimingTest, AByteNowAndThenIsNoWayToStayForEver) {
  ToData();
  const MonotonicTime began = now;
  while (!session.closing() && now < began + 2 * kMessageTimeMax) {
    now += minutes(2);
    session.OnTimer(now);
    if (!session.closing()) Say("x");
  }
  EXPECT_TRUE(session.closing());
  EXPECT_LE(now, began + kMessageTimeMax + minutes(2));
  EXPECT_EQ(handler.resets, 1);
  EXPECT_EQ(handler.faults, std::vector{ClientFault::kTooSlow});
}

TEST_F(SmtpServerTimingTest, NorIsAByteReadNowAndThen) {
  options.max_idle_commands = 100'000;
  std::string noops;
  for (int i = 0; i < 5000; ++i) noops += "NOOP\r\n";
  now += minutes(9);  // idle before; that does not count
  session.OnBytes(now, noops);
  const MonotonicTime began = now;
  while (!session.closing() && now < began + 2 * kUnreadTimeMax) {
    now += minutes(2);
    session.OnTimer(now);
    if (!session.closing()) session.Sent(now, 1);
  }
  EXPECT_TRUE(session.closing());
  EXPECT_LE(now, began + kUnreadTimeMax + minutes(2));
  EXPECT_EQ(handler.faults, std::vector{ClientFault::kTooSlow});
}

TEST_F(SmtpServerTimingTest, WhatWeMakeTheClientWaitIsNotHeldAgainstIt) {
  options.min_data_bytes_per_second = 10;
  ToData();
  const MonotonicTime start = now;
  handler.pauses = &session;
  now += seconds(5);
  Say("Subject: 1\r\n");
  EXPECT_EQ(session.deadline(), std::nullopt);
  now += minutes(5);
  handler.pauses = nullptr;
  session.ResumeBody(now);
  EXPECT_EQ(session.deadline(), start + minutes(5) + kDataRateGrace + seconds(1));
}

}  // namespace
}  // namespace sluice::mail
