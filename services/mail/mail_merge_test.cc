// Proves what XDFN and XPRT take, how text is expanded, and that no value can begin a header field.
#include "services/mail/mail_merge.h"

#include <map>
#include <string>

#include "gtest/gtest.h"

namespace sluice::mail {
namespace {

TEST(MailMerge, Definitions) {
  MergeDefinitions d;
  EXPECT_FALSE(
      ParseMergeDefinitions("name=\"Bob \"\"the\"\" B\" Age=7 *parts=1-3,5 *VMTA=news *jobid=\"j "
                            "1\" *envid=e x.y_z-1=\"\"",
                            d));
  ASSERT_EQ(d.variables.size(), 3u);
  EXPECT_EQ(d.variables[0].first, "name");
  EXPECT_EQ(d.variables[0].second, "Bob \"the\" B");
  EXPECT_EQ(d.variables[1].first, "age");
  EXPECT_EQ(d.variables[2].second, "");
  EXPECT_EQ(d.parts, (std::vector<uint32_t>{1, 2, 3, 5}));
  EXPECT_EQ(d.vmta, "news");
  EXPECT_EQ(d.job_id, "j 1");
  EXPECT_EQ(d.envid, "e");
  EXPECT_FALSE(ParseMergeDefinitions("AGE=8", d));
  EXPECT_EQ(d.variables[1].second, "8");
  EXPECT_EQ(d.variables.size(), 3u);
}

TEST(MailMerge, WrongDefinitionsChangeNothing) {
  MergeDefinitions d;
  ASSERT_FALSE(ParseMergeDefinitions("a=1", d));
  const std::string kCases[] = {"",
                                "a",
                                "=1",
                                "a =1",
                                "a=\"1",
                                "a=\"1\"b",
                                "a=1\"",
                                "a b=1",
                                "a=2 *parts=0",
                                "*parts=3-1",
                                "*parts=1,",
                                "*parts=1001",
                                "*parts=1-1000,1",
                                "*to=x",
                                "*=1",
                                "a[b=1",
                                "a=x\rBcc:y",
                                "a=\"x\nBcc:y\"",
                                "a=\"x\x01\"",
                                std::string(65, 'n') + "=1",
                                std::string("a=\"\0\"", 5),
                                "a=\x7f"};
  for (const std::string& text : kCases) {
    const auto refusal = ParseMergeDefinitions(text, d);
    ASSERT_TRUE(refusal) << text;
    EXPECT_EQ(refusal->code, 501);
    EXPECT_EQ(d.variables.size(), 1u);
    EXPECT_EQ(d.variables[0].second, "1") << text;
  }
  std::string many;
  for (int i = 0; i < 5; ++i) {
    many = "v" + std::to_string(i) + "=" + std::string(4000, 'x');
    const auto refusal = ParseMergeDefinitions(many, d);
    EXPECT_EQ(refusal.has_value(), i == 4);
  }
}

TEST(MailMerge, Parts) {
  EXPECT_EQ(ParsePartCommand("1")->number, 1u);
  EXPECT_FALSE(ParsePartCommand("1")->last);
  EXPECT_TRUE(ParsePartCommand("2 last")->last);
  for (const char* text : {"", "0", "x", "-1", "1x", "1LAST", "1 LAS", "1 LAST x", "1001"}) {
    EXPECT_FALSE(ParsePartCommand(text)) << text;
  }
}

std::string Expand(std::string_view text, bool expands_undefined = true) {
  const std::map<std::string, std::string, std::less<>> values = {
      {"a", "1"}, {"loop", "[a]"}, {"*to", "x@y.test"}, {"bad", "v\r\nBcc: evil@x.test\r\n\r\n"}};
  std::string out;
  ExpandMerge(
      text,
      [&](std::string_view name) -> std::optional<std::string_view> {
        const auto found = values.find(name);
        if (found == values.end()) return std::nullopt;
        return found->second;
      },
      expands_undefined, out);
  return out;
}

TEST(MailMerge, Expansion) {
  EXPECT_EQ(Expand("x[a]y[A][a"), "x1y1[a");
  EXPECT_EQ(Expand("[*to] [loop] [none]"), "x@y.test [a] ");
  EXPECT_EQ(Expand("[none][a]", false), "[none]1");
  EXPECT_EQ(Expand("[[]a] [[] [] [ ] [b c] [1.2.3]"), "[a] [ [] [ ] [b c] [1.2.3]");
  EXPECT_EQ(Expand("["), "[");
  EXPECT_EQ(Expand("[" + std::string(70, 'n') + "]"), "[" + std::string(70, 'n') + "]");
  EXPECT_EQ(Expand(""), "");
}

TEST(MailMerge, NoValueBeginsAHeaderField) {
  EXPECT_EQ(Expand("Subject: [bad]\r\n"), "Subject: vBcc: evil@x.test\r\n");
}

}  // namespace
}  // namespace sluice::mail
