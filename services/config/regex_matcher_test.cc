// Proves that expressions run on RE2 or, bounded, on PCRE2.
#include "services/config/regex_matcher.h"

#include "gtest/gtest.h"

namespace sluice::config {
namespace {

TEST(RegexMatcherTest, Re2WhereItCan) {
  const auto regex = RegexMatcher::Compile("(?i)@example\\.com$");
  ASSERT_TRUE(regex.ok());
  EXPECT_FALSE(regex->uses_pcre());
  EXPECT_TRUE(regex->Matches("a@EXAMPLE.com"));
  EXPECT_FALSE(regex->Matches("a@example.com.test"));
}

TEST(RegexMatcherTest, Pcre2WhereRe2Cannot) {
  const auto twice = RegexMatcher::Compile("(?i)(ab)\\1");
  ASSERT_TRUE(twice.ok());
  EXPECT_TRUE(twice->uses_pcre());
  EXPECT_TRUE(twice->Matches("xABaby"));
  EXPECT_FALSE(twice->Matches("ab-ab"));
  const auto ahead = RegexMatcher::Compile("^4(?!21)");
  ASSERT_TRUE(ahead.ok());
  EXPECT_TRUE(ahead->Matches("450 busy"));
  EXPECT_FALSE(ahead->Matches("421 bye"));
  const RegexMatcher copy = *ahead;
  EXPECT_TRUE(copy.Matches("450"));
}

TEST(RegexMatcherTest, WhatNeverEndsEndsWithoutAMatch) {
  const auto regex = RegexMatcher::Compile("(?=x)(x+x+)+y");
  ASSERT_TRUE(regex.ok());
  EXPECT_FALSE(regex->Matches(std::string(5'000, 'x')));
  const auto nested = RegexMatcher::Compile("^(?:(?=(a+))\\1)*b");
  ASSERT_TRUE(nested.ok());
  EXPECT_FALSE(nested->Matches(std::string(100'000, 'a')));
}

// Replies and headers of old senders are Latin-1.
TEST(RegexMatcherTest, TextThatIsNotUtf8) {
  const auto regex = RegexMatcher::Compile("(?i)user .*unknown$");
  ASSERT_TRUE(regex.ok());
  EXPECT_TRUE(regex->Matches("550 User M\xfcller UNKNOWN"));
  EXPECT_TRUE(regex->Matches("550 user M\xc3\xbcller unknown"));
  EXPECT_FALSE(regex->Matches("550 user M\xfcller is known"));
  const RegexMatcher copy = *regex;
  EXPECT_TRUE(copy.Matches("user \xa4 unknown"));
  const auto umlaut = RegexMatcher::Compile("M\xc3\xbcller");
  ASSERT_TRUE(umlaut.ok());
  EXPECT_TRUE(umlaut->Matches("\xff M\xc3\xbcller"));
}

TEST(RegexMatcherTest, WhatNeitherCan) {
  for (const char* bad :
       {"(", "[", "(?i", "a**b\\", "(((((a{1000}){1000}){1000}){1000}){1000})", "\\C(?=a)"}) {
    EXPECT_FALSE(RegexMatcher::Compile(bad).ok()) << bad;
  }
  EXPECT_TRUE(RegexMatcher::Compile("").ok());
  EXPECT_FALSE(RegexMatcher::Compile(std::string("a\0(", 3)).ok());
}

}  // namespace
}  // namespace sluice::config
