// Proves that replies are read however they are cut, and that what is none ends.
#include "services/mail/reply_parser.h"

#include <gtest/gtest.h>

#include <vector>

#include "services/mail/dot_stuffer.h"

namespace sluice::mail {
namespace {

// Feeds `text` in pieces of `step` bytes.
std::vector<SmtpReply> Parse(const std::string& text, size_t step, std::string* problem = nullptr) {
  ReplyParser parser;
  std::vector<SmtpReply> replies;
  for (size_t begin = 0; begin < text.size(); begin += step) {
    std::string_view piece = std::string_view(text).substr(begin, step);
    while (!piece.empty() && !parser.broken()) {
      piece.remove_prefix(parser.Consume(piece));
      if (parser.complete()) replies.push_back(parser.Take());
    }
  }
  if (problem != nullptr) *problem = parser.problem();
  return replies;
}

TEST(ReplyParser, ReadsRepliesHoweverTheyAreCut) {
  const std::string text =
      "220 mx ready\r\n250-mx greets\r\n250-SIZE 100\r\n250 PIPELINING\r\n"
      "550 5.1.1 no such user\r\n354\r\n450-4.2.0 busy\n450 4.2.0 try later\n250 2.0.0.1 odd\r\n";
  for (size_t step = 1; step <= text.size(); ++step) {
    const auto replies = Parse(text, step);
    ASSERT_EQ(replies.size(), 6U) << step;
    EXPECT_EQ(replies[0].code, 220);
    EXPECT_EQ(replies[1].text, "mx greets\nSIZE 100\nPIPELINING");
    EXPECT_EQ(replies[2].enhanced, "5.1.1");
    EXPECT_EQ(replies[2].text, "no such user");
    EXPECT_EQ(replies[3].code, 354);
    EXPECT_EQ(replies[3].text, "");
    EXPECT_EQ(replies[4].enhanced, "4.2.0");
    EXPECT_EQ(replies[4].text, "busy\ntry later");
    EXPECT_EQ(replies[5].enhanced, "");
  }
}

TEST(ReplyParser, WhatIsNoReplyBreaks) {
  for (const char* text : {"HTTP/1.1 400 Bad Request\r\n", "99 short\r\n", "650 code\r\n",
                           "250-a\r\n251 b\r\n", "250_x\r\n", "\r\n"}) {
    std::string problem;
    EXPECT_TRUE(Parse(text, 1, &problem).empty()) << text;
    EXPECT_NE(problem, "") << text;
  }
  // What it was is shown to people, on terminals, too.
  std::string problem;
  EXPECT_TRUE(Parse("\x1b[2Jgone\r\r\x07\n", 3, &problem).empty());
  EXPECT_EQ(problem, "not an SMTP reply:  [2Jgone   ");
}

TEST(ReplyParser, LongRepliesAreCutAndEndlessOnesBreak) {
  std::string text;
  for (int i = 0; i < 20; ++i) text += "250-" + std::string(1000, 'x') + "\r\n";
  const auto replies = Parse(text + "250 end\r\n", 777);
  ASSERT_EQ(replies.size(), 1U);
  EXPECT_EQ(replies[0].text.size(), kMaxReplyTextBytes);
  std::string problem;
  EXPECT_TRUE(Parse(std::string(10'000, '2'), 100, &problem).empty());
  EXPECT_NE(problem, "");
  for (int i = 0; i < 100; ++i) text += "250-" + std::string(1000, 'x') + "\r\n";
  EXPECT_TRUE(Parse(text, 1000, &problem).empty());
  EXPECT_NE(problem, "");
}

std::string Stuff(const std::string& body, size_t step) {
  DotStuffer stuffer;
  std::string out;
  auto add = [&out](std::string_view text) { out += text; };
  for (size_t begin = 0; begin < body.size(); begin += step) {
    stuffer.Write(std::string_view(body).substr(begin, step), add, add);
  }
  return out + std::string(stuffer.Finish());
}

TEST(DotStuffer, StuffsAtEveryCut) {
  struct Case {
    std::string body;
    std::string sent;
  };
  for (const Case& c :
       {Case{"", ".\r\n"}, Case{"a\r\n", "a\r\n.\r\n"}, Case{".\r\n", "..\r\n.\r\n"},
        Case{"a\r\n.b\r\n..c\r\n", "a\r\n..b\r\n...c\r\n.\r\n"}, Case{"no end", "no end\r\n.\r\n"},
        Case{"x\r\n.", "x\r\n..\r\n.\r\n"}, Case{"a.b\r\n", "a.b\r\n.\r\n"},
        Case{"cr\r", "cr\r\r\n.\r\n"}, Case{"\r\n.\r\n.\r\n", "\r\n..\r\n..\r\n.\r\n"}}) {
    for (size_t step = 1; step <= c.body.size() + 1; ++step) {
      EXPECT_EQ(Stuff(c.body, step), c.sent) << step;
    }
  }
}

}  // namespace
}  // namespace sluice::mail
