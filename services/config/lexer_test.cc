// Proves that text becomes statements, and that lines which cannot are named and left out.
#include "services/config/lexer.h"

#include "gtest/gtest.h"

namespace sluice::config {
namespace {

bool TakesRegex(std::string_view name) { return name == "reply" || name == "/"; }

TEST(LexerTest, DirectivesSectionsCommentsAndLineEnds) {
  std::vector<Diagnostic> diagnostics;
  const auto got = Lex("f.conf",
                       "\xEF\xBB\xBFHost-Name mx.test # ours\r\n"
                       "\r\n"
                       "  <domain *.Example>  #x\n"
                       "\tsmtp-greeting \"a \\\"b\\\" # c\"\n"
                       "</domain>",
                       &TakesRegex, &diagnostics);
  EXPECT_TRUE(diagnostics.empty()) << Render(diagnostics);
  ASSERT_EQ(got.size(), 4u);
  EXPECT_EQ(got[0].name, "host-name");
  EXPECT_EQ(got[0].rest, "mx.test");
  EXPECT_EQ(got[0].where.line, 1);
  EXPECT_EQ(got[0].where.column, 1);
  EXPECT_EQ(got[1].kind, Statement::Kind::kOpen);
  EXPECT_EQ(got[1].name, "domain");
  ASSERT_EQ(got[1].arguments.size(), 1u);
  EXPECT_EQ(got[1].arguments[0].text, "*.Example");
  EXPECT_EQ(got[1].where.line, 3);
  EXPECT_EQ(got[1].where.column, 3);
  ASSERT_EQ(got[2].arguments.size(), 1u);
  EXPECT_EQ(got[2].arguments[0].text, "a \"b\" # c");
  EXPECT_TRUE(got[2].arguments[0].quoted);
  EXPECT_EQ(got[3].kind, Statement::Kind::kClose);
}

TEST(LexerTest, ListGoesOnAfterAComma) {
  std::vector<Diagnostic> diagnostics;
  const auto got =
      Lex("f", "domain-macro m a,b, # first\n# between\n  c,\nd\nx y\n", &TakesRegex, &diagnostics);
  EXPECT_TRUE(diagnostics.empty());
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].rest, "m a,b,c,d");
  EXPECT_EQ(got[1].name, "x");
  EXPECT_EQ(got[1].where.line, 5);
}

TEST(LexerTest, BadLinesAreNamedAndLeftOut) {
  std::vector<Diagnostic> diagnostics;
  const auto got =
      Lex("f.conf", "a \"b\n<domain x\n</domain y>\n< x>\ngood 1\n", &TakesRegex, &diagnostics);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].name, "good");
  ASSERT_EQ(diagnostics.size(), 4u);
  EXPECT_EQ(diagnostics[0].ToString(),
            "f.conf:1:3: error: this quotation does not end in its line\n"
            "  a \"b\n"
            "    ^");
  EXPECT_EQ(diagnostics[1].where.line, 2);
}

TEST(DiagnosticTest, ClosestName) {
  EXPECT_EQ(ClosestName("max-smpt-out", {"max-msg-rate", "max-smtp-out"}), "max-smtp-out");
  EXPECT_EQ(ClosestName("bounceafter", {"retry-after", "bounce-after"}), "bounce-after");
  EXPECT_EQ(ClosestName("zzz", {"retry-after", "bounce-after"}), std::nullopt);
}

// A regex holds blanks and quotes; a path is no regex.
TEST(LexerTest, RegexLiterals) {
  std::vector<Diagnostic> diagnostics;
  const auto got = Lex("f",
                       "reply /say \"no\" \\/ now/i mode=backoff # x\n"
                       "/5\\.1\\.1/ bad-mailbox\npickup /a/i /b\nreply /no end\n",
                       &TakesRegex, &diagnostics);
  EXPECT_TRUE(diagnostics.empty());
  ASSERT_EQ(got.size(), 4u);
  ASSERT_EQ(got[0].arguments.size(), 2u);
  EXPECT_EQ(got[0].arguments[0].text, "/say \"no\" \\/ now/i");
  EXPECT_TRUE(got[0].arguments[0].regex);
  EXPECT_EQ(got[1].name, "/");
  EXPECT_EQ(got[1].arguments[0].text, "/5\\.1\\.1/");
  EXPECT_EQ(got[1].rest, "/5\\.1\\.1/ bad-mailbox");
  EXPECT_FALSE(got[2].arguments[0].regex);
  EXPECT_FALSE(got[3].arguments[0].regex);
}

TEST(LexerTest, ACommentEndsARegexAndLongLinesAreRefused) {
  std::vector<Diagnostic> diagnostics;
  Lex("f", "reply /a # b/ x\n", &TakesRegex, &diagnostics);
  ASSERT_EQ(diagnostics.size(), 1u);
  EXPECT_EQ(diagnostics[0].where.column, 10);
  diagnostics.clear();
  const std::string line((size_t{1} << 20) + 1, 'a');
  EXPECT_EQ(Lex("f", line + "\nb c\n", &TakesRegex, &diagnostics).size(), 1u);
  ASSERT_EQ(diagnostics.size(), 1u);
  EXPECT_LT(diagnostics[0].where.line_text.size(), 300u);
}

TEST(LexerTest, WhatIsNotUtf8IsRefusedOutsideOfComments) {
  for (const char* bad :
       {"a \xff", "a \"\xc3\"", "a \xc0\x80", "a \xed\xa0\x80", "a \xf4\x90\x80\x80",
        "\xe0\x80\x80 b", "a \xf5\x80\x80\x80", "reply /\xff/ x"}) {
    std::vector<Diagnostic> diagnostics;
    EXPECT_TRUE(Lex("f", bad, &TakesRegex, &diagnostics).empty()) << bad;
    ASSERT_EQ(diagnostics.size(), 1u) << bad;
    EXPECT_EQ(diagnostics[0].message, "this is not UTF-8");
  }
  std::vector<Diagnostic> diagnostics;
  EXPECT_EQ(
      Lex("f", "a b # \xff\na \xc3\xbc \xe2\x82\xac \xf0\x9f\x93\xa7\n", &TakesRegex, &diagnostics)
          .size(),
      2u);
  EXPECT_TRUE(diagnostics.empty());
}

TEST(LexerTest, AListThatNeverEndsIsCutAndTold) {
  std::string text = "domain-macro m a,\n";
  for (int i = 0; i < 200'000; ++i) text += "domain.example,\n";
  std::vector<Diagnostic> diagnostics;
  const auto got = Lex("f", text + "\nx y\n", &TakesRegex, &diagnostics);
  ASSERT_EQ(diagnostics.size(), 1u);
  EXPECT_NE(diagnostics[0].message.find("1048576 bytes"), std::string::npos);
  ASSERT_EQ(got.size(), 1u);  // "x y" is the list's last line
  EXPECT_LT(got[0].arguments.size(), 100'000u);
}

}  // namespace
}  // namespace sluice::config
