#include "services/config/lexer.h"

#include "gtest/gtest.h"

namespace sluice::config {
namespace {

TEST(LexerTest, DirectivesSectionsCommentsAndLineEnds) {
  std::vector<Diagnostic> diagnostics;
  const auto got = Lex("f.conf",
                       "\xEF\xBB\xBFHost-Name mx.test # ours\r\n"
                       "\r\n"
                       "  <domain *.Example>  #x\n"
                       "\tsmtp-greeting \"a \\\"b\\\" # c\"\n"
                       "</domain>",
                       &diagnostics);
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
  const auto got = Lex("f", "domain-macro m a,b, # first\n# between\n  c\nx y\n", &diagnostics);
  EXPECT_TRUE(diagnostics.empty());
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].rest, "m a,b,c");
  EXPECT_EQ(got[1].name, "x");
  EXPECT_EQ(got[1].where.line, 4);
}

TEST(LexerTest, BadLinesAreNamedAndLeftOut) {
  std::vector<Diagnostic> diagnostics;
  const auto got = Lex("f.conf", "a \"b\n<domain x\n</domain y>\n< x>\ngood 1\n", &diagnostics);
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

}  // namespace
}  // namespace sluice::config
