// Proves that expressions are read with their flags, and that likely mistakes are told.
#include "services/config/regex.h"

#include "gtest/gtest.h"
#include "re2/re2.h"

namespace sluice::config {
namespace {

std::string Read(std::string_view text, std::string_view* rest = nullptr) {
  const auto regex = ConsumeRegex(text);
  if (rest != nullptr) *rest = text;
  return regex.ok() ? *regex : "error: " + std::string(regex.status().message());
}

TEST(RegexTest, IsReadWithItsFlagsAndLeavesTheRest) {
  std::string_view rest;
  EXPECT_EQ(Read("/^a.b$/ virtual-mta=x", &rest), "(?i)^a.b$");
  EXPECT_EQ(rest, " virtual-mta=x");
  EXPECT_EQ(Read("/a b/I"), "a b");
  EXPECT_EQ(Read("/a/is"), "(?si)a");
  EXPECT_EQ(Read("//"), "(?i)");
  EXPECT_EQ(Read(R"(/a\/b\d/)"), R"((?i)a/b\d)");
  EXPECT_TRUE(RE2::PartialMatch("News@Example.com", Read("/@example\\.com$/")));
  EXPECT_FALSE(RE2::PartialMatch("News@Example.com", Read("/@example\\.com$/I")));
}

TEST(RegexTest, WhatCannotBeUsedSaysWhy) {
  EXPECT_EQ(Read("abc"), "error: a regular expression is written /.../");
  EXPECT_EQ(Read(""), "error: a regular expression is written /.../");
  EXPECT_EQ(Read("/abc"), "error: the regular expression has no end");
  EXPECT_EQ(Read("/abc\\/"), "error: the regular expression has no end");
  EXPECT_EQ(Read("/abc/q"), "error: the flag \"q\" is not one of i, I, s, m");
  EXPECT_NE(Read("/(a)\\1/").find("cannot be used"), std::string::npos);
  EXPECT_NE(Read("/(?=a)b/").find("cannot be used"), std::string::npos);
  EXPECT_NE(Read("/(((((a{1000}){1000}){1000}){1000}){1000})/").find("cannot be used"),
            std::string::npos);
  EXPECT_NE(Read("/" + std::string(5000, 'a') + "/").find("4096"), std::string::npos);
}

TEST(RegexTest, WhatRe2LacksMayBePcres) {
  std::string_view text = "/(a)\\1/i x";
  bool needs_pcre = false;
  EXPECT_EQ(*ConsumeRegex(text, &needs_pcre), "(?i)(a)\\1");
  EXPECT_TRUE(needs_pcre);
  EXPECT_EQ(text, " x");
  text = "/a/";
  EXPECT_TRUE(ConsumeRegex(text, &needs_pcre).ok());
  EXPECT_FALSE(needs_pcre);
  text = "/(/";
  EXPECT_FALSE(ConsumeRegex(text, &needs_pcre).ok());
}

TEST(RegexTest, LikelyMistakes) {
  EXPECT_EQ(DoubtAbout("(?i)^4[0-9]2"),
            "it matches only codes that end in 2; ^4[0-9]{2} is likely meant");
  EXPECT_TRUE(DoubtAbout("5\\d2$"));
  for (const char* fine : {"^4[0-9]{2}", "^42[0-9]", "(?i)quota", "", "[0-9]2"}) {
    EXPECT_FALSE(DoubtAbout(fine)) << fine;
  }
  EXPECT_TRUE(MatchesEverything("(?i)"));
  EXPECT_TRUE(MatchesEverything("(?si).*"));
  EXPECT_FALSE(MatchesEverything("(?i)a.*"));
}

}  // namespace
}  // namespace sluice::config
