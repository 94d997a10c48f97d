// What is said of directives that do not do what they say, and when the load is refused for it.
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/testing/compile.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::CompileOne;
using testing::MemoryFiles;

TEST(CompilerTest, WhatHasNoEffectIsAWarning) {
  const Compiled compiled = CompileOne(
      "run-as-root no\n<acct-file /var/log/a.csv>\n  records d,b\n  max-size 5M\n</acct-file>\n"
      "<domain *>\ndk-sign yes\ndkim-sign yes\n</domain>\n");
  EXPECT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  // The section is named once, not line by line.
  EXPECT_EQ(compiled.diagnostics.size(), 4u) << Render(compiled.diagnostics);
  EXPECT_EQ(compiled.tally.no_meaning, 1u);
  EXPECT_EQ(compiled.tally.unsupported, 1u);
  EXPECT_EQ(compiled.tally.planned, 3u);
  EXPECT_FALSE(CompileOne("<acct-file /var/log/a.csv>\nmax-size large\n</acct-file>").ok());
}

// A directive that does what it says, but for one value.
TEST(CompilerTest, AValueThatDoesNothingIsAWarning) {
  for (const char* value : {"system", "System"}) {
    const Compiled compiled = CompileOne(std::string("<smtp-user u>\nauthentication-method ") +
                                         value + "\n</smtp-user>\n");
    EXPECT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
    ASSERT_EQ(compiled.diagnostics.size(), 1u) << Render(compiled.diagnostics);
    EXPECT_EQ(compiled.diagnostics[0].where.line, 2);
    EXPECT_NE(compiled.diagnostics[0].message.find(
                  "authentication-method system is unsupported and has no effect: it lets nobody"),
              std::string::npos)
        << compiled.diagnostics[0].message;
    EXPECT_EQ(compiled.tally.unsupported, 1u);
    EXPECT_EQ(compiled.tally.effective, 0u);
  }
  const Compiled password =
      CompileOne("<smtp-user u>\nauthentication-method password\npassword x\n</smtp-user>\n");
  EXPECT_TRUE(password.diagnostics.empty()) << Render(password.diagnostics);
  EXPECT_EQ(password.tally.effective, 2u);
}

TEST(CompilerTest, WhatRestrictsMayBeGoneWithoutWhenSomebodySaysSo) {
  MemoryFiles files;
  const std::string text =
      "<domain a.test>\nmax-cold-virtual-mta-msg 50/day\n</domain>\n<source 192.0.2.1>\n"
      "<schedule warmup>\n</schedule>\n</source>\n";
  EXPECT_FALSE(CompileText("a.conf", text, files).ok());
  EXPECT_FALSE(CompileText("a.conf", text, files, {{"schedule"}}).ok());
  const Compiled compiled =
      CompileText("a.conf", text, files, {{"schedule", "max-cold-virtual-mta-msg"}});
  EXPECT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  EXPECT_EQ(compiled.diagnostics.size(), 2u);
}

TEST(CompilerTest, WhatRestrictsAndIsNotThereRefusesTheLoad) {
  for (const char* text : {
           "permanent-bounce-after 7d",
           "<domain a.test>\nmax-cold-virtual-mta-msg 50/day\n</domain>",
           "<source 192.0.2.1>\n<schedule warmup>\n</schedule>\n</source>",
           "<virtual-mta v>\ncold-virtual-mta w\n</virtual-mta>\n<virtual-mta w>\n</virtual-mta>",
       }) {
    const Compiled compiled = CompileOne(text);
    ASSERT_EQ(compiled.diagnostics.size(), 1u) << Render(compiled.diagnostics);
    EXPECT_FALSE(compiled.ok()) << text;
    EXPECT_NE(compiled.diagnostics[0].ToString().find("is not possible in this version"),
              std::string::npos)
        << compiled.diagnostics[0].ToString();
  }
}

TEST(CompilerTest, AValueThatAsksForNoRestrictionIsLetIn) {
  const Compiled compiled = CompileOne(
      "max-smtp-out unlimited\n<domain *>\nrequire-starttls no\ntype smtp\nuse-dane no\n"
      "max-errors-per-connection 0\nmax-connect-rate unlimited\n"
      "source-ip-max-msg-rate 0/0 unlimited\n</domain>\n");
  EXPECT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  // Nothing passes at a rate of 0: that restricts.
  EXPECT_FALSE(CompileOne("<domain *>\nmax-cold-virtual-mta-msg 0\n</domain>").ok());
}

}  // namespace
}  // namespace sluice::config
