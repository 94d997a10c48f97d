// Proves the session's one deadline, its back-pressure, its orderly end and the half-closed client.
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
    body += text;
    if (session != nullptr) session->PauseBody();
  }
  std::optional<ServerReply> OnMessageEnd(const MessageFacts&) override {
    ++messages;
    return std::nullopt;
  }
  void OnReset() override { ++resets; }
  void OnFault(ClientFault fault) override { faults.push_back(fault); }

  std::vector<ClientFault> faults;
  SmtpServerSession* session = nullptr;  // set: pauses after each slice
  std::string body;
  int messages = 0;
  int resets = 0;
};

class SmtpServerTimingTest : public testing::Test {
 protected:
  SmtpServerTimingTest() {
    options_.host_name = "h";
    options_.command_timeout = minutes(10);
    options_.data_timeout = minutes(3);
    session_.Start(now_);
    Take();
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
  void ToData() {
    Say("HELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    ASSERT_TRUE(session_.receiving_data());
  }

  MonotonicTime now_{seconds(100)};
  SmtpServerOptions options_;
  Handler handler_;
  SmtpServerSession session_{handler_, options_};
};

TEST_F(SmtpServerTimingTest, CommandDeadlineMovesWithCommandsNotWithBytes) {
  EXPECT_EQ(session_.deadline(), now_ + minutes(10));
  const MonotonicTime start = now_;
  now_ += minutes(5);
  Say("NO");
  EXPECT_EQ(session_.deadline(), start + minutes(10));
  Say("OP\r\n");
  EXPECT_EQ(session_.deadline(), now_ + minutes(10));
  now_ += minutes(10) - Duration(1);
  session_.OnTimer(now_);
  EXPECT_FALSE(session_.closing());
  now_ += Duration(1);
  session_.OnTimer(now_);
  EXPECT_TRUE(session_.closing());
  EXPECT_EQ(Take(), "421 4.4.2 h waited too long, closing the connection\r\n");
}

TEST_F(SmtpServerTimingTest, DataDeadlineMovesWithBytesAndResets) {
  ToData();
  now_ += minutes(2);
  Say("text");
  EXPECT_EQ(session_.deadline(), now_ + minutes(3));
  now_ += minutes(3);
  session_.OnTimer(now_);
  EXPECT_TRUE(session_.closing());
  EXPECT_EQ(handler_.resets, 1);
}

TEST_F(SmtpServerTimingTest, NoDeadlineAndNoReadWhileTheVerdictIsOurs) {
  ToData();
  EXPECT_EQ(Say("text\r\n.\r\nNOOP\r\n"), "");
  EXPECT_EQ(handler_.messages, 1);
  EXPECT_FALSE(session_.wants_read());
  EXPECT_EQ(session_.deadline(), std::nullopt);
  session_.OnVerdict(now_, {250, {2, 0, 0}, "queued"});
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n250 2.0.0 OK\r\n");
  EXPECT_TRUE(session_.wants_read());
}

TEST_F(SmtpServerTimingTest, PausedBodyStopsReadingAndGoesOn) {
  handler_.session = &session_;
  ToData();
  Say("one\r\n");
  EXPECT_FALSE(session_.wants_read());
  EXPECT_EQ(session_.deadline(), std::nullopt);
  session_.ResumeBody(now_);
  EXPECT_TRUE(session_.wants_read());
  handler_.session = nullptr;
  Say("two\r\n.\r\n");
  EXPECT_EQ(handler_.body, "one\r\ntwo\r\n");
  EXPECT_EQ(handler_.messages, 1);
}

TEST_F(SmtpServerTimingTest, ClientThatDoesNotReadStopsBeingReadAndTimesOut) {
  std::string noops;
  for (int i = 0; i < 5000; ++i) noops += "VRFY x\r\n";
  options_.max_idle_commands = 100'000;
  session_.OnBytes(now_, noops);
  EXPECT_FALSE(session_.wants_read());
  EXPECT_LT(session_.output().size(), 20'000u);
  EXPECT_LT(session_.buffered_bytes(), 100'000u);
  // It reads again: everything is answered.
  size_t replies = 0;
  while (!session_.output().empty()) {
    for (char c : Take()) replies += c == '\n';
  }
  EXPECT_EQ(replies, 5000u);
  EXPECT_TRUE(session_.wants_read());

  session_.OnBytes(now_, noops);
  now_ += minutes(11);
  session_.OnTimer(now_);
  EXPECT_TRUE(session_.closing());
  EXPECT_TRUE(session_.output().empty());
}

TEST_F(SmtpServerTimingTest, ShutdownIsImmediateBetweenMessages) {
  Say("HELO c\r\nMAIL FROM:<a@b>\r\n");
  session_.Shutdown(now_);
  EXPECT_EQ(Take(), "421 4.3.2 h is shutting down\r\n");
  EXPECT_TRUE(session_.closing());
  EXPECT_EQ(handler_.resets, 1);
}

TEST_F(SmtpServerTimingTest, ShutdownWaitsForTheMessageOnItsWay) {
  ToData();
  session_.Shutdown(now_);
  EXPECT_FALSE(session_.closing());
  Say("text\r\n.\r\nMAIL FROM:<a@b>\r\n");
  EXPECT_FALSE(session_.closing());
  session_.OnVerdict(now_, {250, {2, 0, 0}, "queued"});
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n421 4.3.2 h is shutting down\r\n");
  EXPECT_TRUE(session_.closing());
}

TEST_F(SmtpServerTimingTest, HalfClosedClientStillGetsItsAnswers) {
  ToData();
  Say("text\r\n.\r\nQUIT\r\n");
  session_.OnEof(now_);
  EXPECT_FALSE(session_.closing());
  session_.OnVerdict(now_, {250, {2, 0, 0}, "queued"});
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n221 2.0.0 h closes the connection\r\n");
  EXPECT_TRUE(session_.closing());
}

TEST_F(SmtpServerTimingTest, VerdictAfterTheEndIsIgnored) {
  ToData();
  Say("text\r\n.\r\n");
  session_.OnEof(now_);
  session_.OnVerdict(now_, {250, {2, 0, 0}, "queued"});
  EXPECT_TRUE(session_.closing());
  session_.OnVerdict(now_, {250, {2, 0, 0}, "queued"});
  EXPECT_EQ(Take(), "250 2.0.0 queued\r\n");
}

TEST_F(SmtpServerTimingTest, RefusedConnection) {
  SmtpServerSession refused(handler_, options_);
  const ServerReply reply{421, {4, 3, 2}, "Too many connections"};
  refused.Start(now_, &reply);
  EXPECT_EQ(refused.output(), "421 4.3.2 Too many connections\r\n");
  EXPECT_TRUE(refused.closing());
}

TEST_F(SmtpServerTimingTest, LineTooLongEndsTheSessionAtOnce) {
  EXPECT_EQ(Say(std::string(4095, 'x')), "");
  EXPECT_EQ(Say("x"), "500 5.5.2 Line too long\r\n");
  EXPECT_TRUE(session_.closing());
}

TEST_F(SmtpServerTimingTest, AMessageHasToComeInAtItsLeastRate) {
  options_.min_data_bytes_per_second = 10;
  ToData();
  const MonotonicTime start = now_;
  EXPECT_EQ(session_.deadline(), start + kDataRateGrace);
  now_ += seconds(20);
  Say(std::string(98, 'x') + "\r\n");
  EXPECT_EQ(session_.deadline(), start + kDataRateGrace + seconds(10));
  // What comes fast keeps the usual deadline.
  Say(std::string(9'998, 'x') + "\r\n");
  EXPECT_EQ(session_.deadline(), now_ + minutes(3));
  now_ = *session_.deadline();
  Say("y\r\n");
  now_ = start + kDataRateGrace + seconds(1010);
  session_.OnTimer(now_);
  EXPECT_TRUE(Take().starts_with("421 4.4.2"));
  EXPECT_TRUE(session_.closing());
  EXPECT_EQ(handler_.resets, 1);
}

TEST_F(SmtpServerTimingTest, AByteNowAndThenIsNoWayToStayForEver) {
  ToData();
  const MonotonicTime began = now_;
  while (!session_.closing() && now_ < began + 2 * kMessageTimeMax) {
    now_ += minutes(2);
    session_.OnTimer(now_);
    if (!session_.closing()) Say("x");
  }
  EXPECT_TRUE(session_.closing());
  EXPECT_LE(now_, began + kMessageTimeMax + minutes(2));
  EXPECT_EQ(handler_.resets, 1);
  EXPECT_EQ(handler_.faults, std::vector{ClientFault::kTooSlow});
}

TEST_F(SmtpServerTimingTest, NorIsAByteReadNowAndThen) {
  options_.max_idle_commands = 100'000;
  std::string noops;
  for (int i = 0; i < 5000; ++i) noops += "NOOP\r\n";
  now_ += minutes(9);  // idle before; that does not count
  session_.OnBytes(now_, noops);
  const MonotonicTime began = now_;
  while (!session_.closing() && now_ < began + 2 * kUnreadTimeMax) {
    now_ += minutes(2);
    session_.OnTimer(now_);
    if (!session_.closing()) session_.Sent(now_, 1);
  }
  EXPECT_TRUE(session_.closing());
  EXPECT_LE(now_, began + kUnreadTimeMax + minutes(2));
  EXPECT_EQ(handler_.faults, std::vector{ClientFault::kTooSlow});
}

TEST_F(SmtpServerTimingTest, WhatWeMakeTheClientWaitIsNotHeldAgainstIt) {
  options_.min_data_bytes_per_second = 10;
  ToData();
  const MonotonicTime start = now_;
  handler_.session = &session_;
  now_ += seconds(5);
  Say("Subject: 1\r\n");
  EXPECT_EQ(session_.deadline(), std::nullopt);
  now_ += minutes(5);
  handler_.session = nullptr;
  session_.ResumeBody(now_);
  EXPECT_EQ(session_.deadline(), start + minutes(5) + kDataRateGrace + seconds(1));
}

}  // namespace
}  // namespace sluice::mail
