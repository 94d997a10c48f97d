// The worst remotes: replies without an end, replies that nobody asked for, bytes that want to be
// somewhere else. Each costs bounded memory, and no mail is called delivered that was not.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "services/mail/smtp_client_session.h"

namespace sluice::mail {
namespace {

class Peer final : public SmtpClientHandler {
 public:
  explicit Peer(SmtpClientOptions options = {}) : session(*this, options) {}
  // Up to `total` bytes of `piece` again and again, while the session listens.
  size_t Pour(std::string_view piece, size_t total) {
    size_t poured = 0;
    while (poured < total && !session.ended()) {
      session.OnBytes(piece);
      poured += piece.size();
    }
    return poured;
  }
  void Hello() { session.OnBytes("220 mx\r\n250-mx\r\n250 PIPELINING\r\n"); }
  void Begin(uint64_t id, size_t recipients = 1) {
    ClientTransaction transaction;
    transaction.id = id;
    transaction.mail_from = "s@x";
    transaction.recipients.assign(recipients, "r@y");
    transaction.size = 10;
    session.Begin(std::move(transaction));
  }
  void OnOutput(std::string_view text) override { output += text; }
  void OnReady() override {}
  void OnWantBody(uint64_t) override {
    session.SendBody("body\r\n", true, [this](std::string_view text) { output += text; });
  }
  bool MayFinish(uint64_t) override { return true; }
  void OnResult(uint64_t id, std::vector<RecipientVerdict> recipients) override {
    for (RecipientVerdict& each : recipients) results.emplace_back(id, std::move(each));
  }
  void OnEnd(const RecipientVerdict& last) override {
    ++ends;
    end = last;
  }
  std::string output;
  std::vector<std::pair<uint64_t, RecipientVerdict>> results;
  int ends = 0;
  RecipientVerdict end;
  SmtpClientSession session;
};

constexpr size_t kGigabyte = size_t{1} << 30;

// A reply of a gigabyte, in one line and in many, at every stage.
TEST(HostileRemote, AReplyOfAGigabyte) {
  const std::string line(64 * 1024, 'x');
  const std::vector<std::string> before = {
      "", "220 mx\r\n", "220 mx\r\n250-mx\r\n250 PIPELINING\r\n",
      "220 mx\r\n250-mx\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go\r\n"};
  for (const std::string& start : before) {
    for (const std::string& piece : {line, std::string("250-more\r\n250-more\r\n")}) {
      Peer peer;
      peer.session.OnBytes(start.substr(0, start.find("250 ok")));
      if (start.find("PIPELINING") != start.npos) peer.Begin(1);
      if (start.find("250 ok") != start.npos)
        peer.session.OnBytes(start.substr(start.find("250 ok")));
      EXPECT_LE(peer.Pour(piece, kGigabyte), kMaxReplyBytes + 2 * line.size());
      EXPECT_EQ(peer.ends, 1);
      EXPECT_LE(peer.end.reply.text.size(), kMaxReplyTextBytes);
      for (const auto& [id, verdict] : peer.results) {
        EXPECT_NE(verdict.verdict, Verdict::kDelivered);
        EXPECT_NE(verdict.verdict, Verdict::kPermanent);
      }
    }
  }
}

// 2^16 lines in one reply, as short as lines can be.
TEST(HostileRemote, AReplyOfManyLines) {
  Peer peer;
  std::string reply;
  for (int i = 0; i < 1 << 16; ++i) reply += "220-\r\n";
  peer.session.OnBytes(reply);
  EXPECT_EQ(peer.ends, 1);
  EXPECT_EQ(peer.end.reply.text, "a reply is longer than 65536 bytes");
}

// 2^16 replies at once: only those that were asked for count, and the rest ends the connection.
TEST(HostileRemote, ManyReplies) {
  Peer peer;
  peer.Hello();
  peer.Begin(1, 3);
  std::string replies = "250 a\r\n250 b\r\n250 c\r\n250 d\r\n354 go\r\n250 taken\r\n";
  for (int i = 0; i < 1 << 16; ++i) replies += "250 more\r\n";
  peer.session.OnBytes(replies);
  EXPECT_EQ(peer.ends, 1);
  ASSERT_EQ(peer.results.size(), 3u);
  for (const auto& [id, verdict] : peer.results) EXPECT_EQ(verdict.reply.text, "taken");
}

// Replies ahead of their commands: none of them may stand for the final dot of a message.
TEST(HostileRemote, RepliesAheadOfTheirCommands) {
  Peer peer;
  peer.session.OnBytes("220 mx\r\n250 mx\r\n250 too early\r\n");
  EXPECT_EQ(peer.ends, 1);
  Peer eager;
  eager.Hello();
  eager.Begin(1);
  eager.Begin(2);
  // One reply more than was asked for shifts all that follow.
  eager.session.OnBytes("250 mail\r\n250 rcpt\r\n354 go\r\n250 dot\r\n250 extra\r\n");
  ASSERT_EQ(eager.results.size(), 1u);
  eager.session.OnBytes("250 mail\r\n250 rcpt\r\n354 go\r\n250 dot\r\n");
  ASSERT_GE(eager.results.size(), 2u);
  EXPECT_EQ(eager.results[1].first, 2u);
  EXPECT_NE(eager.results[1].second.verdict, Verdict::kDelivered);
}

// What a reply says ends up in logs, reports and bounces: no line of its own making there.
TEST(HostileRemote, RepliesCannotSplit) {
  Peer peer;
  peer.session.OnBytes(
      std::string_view("554 no\rBcc: victim@example\r\r\x1b[2J\0\x7f\x08 \t end\r\n", 47));
  ASSERT_EQ(peer.ends, 1);
  EXPECT_EQ(peer.end.reply.text, "no Bcc: victim@example   [2J    \t end");
  Peer lines;
  lines.session.OnBytes("554-a\r\n554 b\r\n");
  EXPECT_EQ(lines.end.reply.text, "a\nb");
}

// The enhanced code is the class's own, and short.
TEST(HostileRemote, EnhancedCodesAreWhatTheyAre) {
  for (const char* line :
       {"554 5.1.1111 x\r\n", "554 2.0.0 x\r\n", "554 5.1.1x\r\n", "554 5..1 x\r\n"}) {
    Peer peer;
    peer.session.OnBytes(line);
    EXPECT_EQ(peer.end.reply.enhanced, "") << line;
  }
}

// EHLO with thousands of keywords, and absurd numbers.
TEST(HostileRemote, EhloIsBounded) {
  Peer peer;
  std::string ehlo = "220 mx\r\n";
  for (int i = 0; i < 4000; ++i) ehlo += "250-X" + std::to_string(i) + "\r\n";
  ehlo += "250-SIZE 99999999999999999999999999\r\n250-SIZE -1\r\n250-AUTH";
  for (int i = 0; i < 500; ++i) ehlo += " M" + std::to_string(i);
  peer.session.OnBytes(ehlo + "\r\n250 ok\r\n");
  EXPECT_EQ(peer.ends, 0);
  EXPECT_LE(peer.session.peer().keywords.size(), 64u);
  EXPECT_LE(peer.session.peer().auth.size(), 16u);
}

}  // namespace
}  // namespace sluice::mail
