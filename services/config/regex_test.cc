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

}  // namespace
}  // namespace sluice::config
