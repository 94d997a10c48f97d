// Files of any length, and with anything in them: what they may use has bounds, what loads goes on
// loading however many warnings there are, and nothing that may be a secret is shown.
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::MemoryFiles;

Compiled CompileOne(const std::string& text, CompileCache* cache = nullptr) {
  MemoryFiles files;
  CompileOptions options;
  options.cache = cache;
  return CompileText("f", text, files, options);
}

std::string FirstError(const Compiled& compiled) {
  for (const Diagnostic& diagnostic : compiled.diagnostics) {
    if (diagnostic.severity == Diagnostic::Severity::kError) return diagnostic.message;
  }
  return "";
}

const policy::v1::SectionContent* Find(const Compiled& compiled, const std::string& name) {
  for (const auto& section : compiled.snapshot.sections()) {
    if (section.name() == name) return &section.content();
  }
  return nullptr;
}

std::string ManyDomains(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&text, "<domain d", i, ".test>\ndkim-sign yes\nmax-smtp-out 5\n</domain>\n");
  }
  return text;
}

// Each line that is planned is warned of; a file with many of them is no worse than one with few.
TEST(CompilerBoundsTest, NoNumberOfWarningsRefusesTheLoad) {
  const Compiled compiled = CompileOne(ManyDomains(3'000));
  EXPECT_TRUE(compiled.ok());
  EXPECT_EQ(compiled.diagnostics.size(), 1'001u);
  EXPECT_EQ(compiled.diagnostics.back().message, "and 2000 more warnings");
  EXPECT_EQ(compiled.tally.planned, 3'000u);
  EXPECT_NE(Find(compiled, "domain/d2999.test"), nullptr);
  // What is wrong behind them is found, also what the lexer finds.
  const Compiled wrong =
      CompileOne(ManyDomains(3'000) + "max-smtp-out \"5\nmax-smpt-out 5\nmax-smtp-out 6\n");
  EXPECT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.diagnostics.size(), 1'003u);
}

TEST(CompilerBoundsTest, TheSameWarningsComeWithACacheOfTheCompilationBefore) {
  CompileCache cache;
  const std::string expected = Render(CompileOne(ManyDomains(1'500)).diagnostics);
  for (int i = 0; i < 3; ++i) {
    const Compiled compiled = CompileOne(ManyDomains(1'500), &cache);
    EXPECT_EQ(Render(compiled.diagnostics), expected);
    EXPECT_EQ(compiled.tally.planned, 1'500u);
  }
}

TEST(CompilerBoundsTest, ErrorsAreToldUpToANumber) {
  std::string text;
  for (int i = 0; i < 5'000; ++i) text += "no-such-directive-at-all 1\n";
  const Compiled compiled = CompileOne(text);
  EXPECT_FALSE(compiled.ok());
  EXPECT_EQ(compiled.diagnostics.size(), 1'001u);
  EXPECT_EQ(compiled.diagnostics.back().message, "and more");
}

// A short line that names a macro may stand for much.
TEST(CompilerBoundsTest, MacrosStandForABoundedNumberOfDomains) {
  std::string text = "domain-macro a d0.test";
  for (int i = 1; i < 10'000; ++i) absl::StrAppend(&text, ",d", i, ".test");
  text += "\n";
  std::string macros = text;
  for (int i = 0; i < 600; ++i) absl::StrAppend(&macros, "domain-macro m", i, " $a\n");
  EXPECT_EQ(FirstError(CompileOne(macros)), "the macros stand for more than 5,000,000 domains");
  std::string lines = text + "<domain $a>\n";
  for (int i = 0; i < 600; ++i) lines += "max-smtp-out 5\n";
  EXPECT_EQ(FirstError(CompileOne(lines + "</domain>\n")),
            "the macros stand for more than 5,000,000 domains");
  EXPECT_TRUE(CompileOne(text + "<domain $a>\nmax-smtp-out 5\n</domain>\n").ok());
}

TEST(CompilerBoundsTest, SourceAddresses) {
  const auto lines = [](int count, int step) {
    std::string text = "<virtual-mta v>\n";
    for (int i = 0; i < count; ++i) {
      absl::StrAppend(&text, "smtp-source-host 10.", i * step / 64, ".", i * step % 64 * 4,
                      ".0/22\n");
    }
    return text + "</virtual-mta>\n";
  };
  EXPECT_TRUE(CompileOne(lines(16, 1)).ok());
  EXPECT_EQ(FirstError(CompileOne(lines(17, 1))),
            "a virtual MTA has at most 16384 source addresses");
  EXPECT_EQ(FirstError(CompileOne(lines(1'000, 0))), "more than 1,000,000 source addresses in all");
  EXPECT_EQ(FirstError(CompileOne("<virtual-mta v>\nsource-pool 10.0.0.0/21\n</virtual-mta>\n")),
            "more than 1024 source addresses");
}

// One line of many names: what is kept of the line for messages does not grow with them.
TEST(CompilerBoundsTest, PoolsOfManyVirtualMtas) {
  std::string text = "<virtual-mta v>\nsmtp-source-host 192.0.2.1\n</virtual-mta>\n";
  std::string line = "virtual-mta v";
  for (int i = 1; i < 100'000; ++i) line += ",v";
  text += "<virtual-mta-pool p>\n";
  EXPECT_TRUE(CompileOne(text + line + "\n</virtual-mta-pool>\n").ok());
  for (int i = 0; i < 11; ++i) text += line + "\n";
  EXPECT_EQ(FirstError(CompileOne(text + "</virtual-mta-pool>\n")),
            "more than 1,000,000 virtual MTAs in pools");
}

TEST(CompilerBoundsTest, TheLastHostNameOfAnAddressHolds) {
  const Compiled compiled = CompileOne(
      "<virtual-mta v>\nsmtp-source-host 192.0.2.0/30 a.test\nsmtp-source-host 192.0.2.2 b.test\n"
      "smtp-source-host 192.0.2.3\n</virtual-mta>\n");
  const auto& hosts = Find(compiled, "vmta/v")->virtual_mta().source_hosts();
  ASSERT_EQ(hosts.size(), 4);
  EXPECT_EQ(hosts[2].host_name(), "b.test");
  EXPECT_EQ(hosts[3].host_name(), "a.test");
}

TEST(CompilerBoundsTest, ALongListHasEachOfItsItemsOnce) {
  std::string text;
  for (int i = 0; i < 700; ++i) absl::StrAppend(&text, "relay-domain d", i % 350, ".test\n");
  const Compiled compiled = CompileOne(text);
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  const auto& domains = Find(compiled, "global")->global().settings().relay_domains().values();
  ASSERT_EQ(domains.size(), 350);
  EXPECT_EQ(domains[0], "d0.test");
  EXPECT_EQ(domains[349], "d349.test");
}

TEST(CompilerBoundsTest, TheLaterAliasHolds) {
  const Compiled compiled =
      CompileOne("alias a@x.test b@y.test\nalias c@x.test d@y.test\nalias A@x.test e@y.test\n");
  const auto& aliases = Find(compiled, "global")->global().settings().aliases();
  ASSERT_EQ(aliases.size(), 2);
  EXPECT_EQ(aliases[0].target(), "e@y.test");
}

// Each sender domain of many has the virtual MTA that is made for it, or one that is there.
TEST(CompilerBoundsTest, ManySendersAddresses) {
  std::string text = "<virtual-mta mine>\nsmtp-source-host 10.0.7.7 mine.test\n</virtual-mta>\n";
  for (int i = 0; i < 2'000; ++i) {
    absl::StrAppend(&text, "ip 10.0.", i / 200, ".", i % 200, " domain = d", i, ".test;\n");
  }
  const Compiled compiled = CompileOne(text);
  ASSERT_TRUE(compiled.ok());
  std::string mine;
  for (const auto& sender : Find(compiled, "global")->global().settings().sender_sources()) {
    if (sender.virtual_mta() == "mine") mine += sender.domain();
  }
  EXPECT_EQ(mine, "d1407.test");
  EXPECT_EQ(Find(compiled, "vmta/ip-d5.test")->virtual_mta().source_hosts(0).ip(), "10.0.0.5");
}

TEST(CompilerBoundsTest, TheDefaultVirtualMtaInBraces) {
  const Compiled compiled = CompileOne(
      "<virtual-mta {default}>\nsmtp-source-host 192.0.2.1 d.test\n</virtual-mta>\n"
      "<virtual-mta-pool p>\nvirtual-mta {default}\n</virtual-mta-pool>\n"
      "default-virtual-mta {Default}\n"
      "<pattern-list l>\nmail-from /x/ virtual-mta={default}\n</pattern-list>\n"
      "<domain a.test>\nqueue-to b.test/{default}\n</domain>\n"
      "<bind source-vmta=\"{default}\" destination-domain=\"c.test\">\nmax-smtp-out 3\n</bind>\n");
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  EXPECT_EQ(Find(compiled, "pool/p")->pool().virtual_mtas(0), "default");
  EXPECT_EQ(Find(compiled, "pattern-list/l")->pattern_list().rules(0).virtual_mta(), "default");
  EXPECT_EQ(Find(compiled, "domain/a.test")->domain().settings().queue_to(), "b.test/default");
  EXPECT_EQ(Find(compiled, "global")->global().client_defaults().default_virtual_mta(), "default");
  EXPECT_EQ(Find(compiled, "vmta/default")->virtual_mta().domains(0).settings().max_smtp_out(), 3u);
}

TEST(CompilerBoundsTest, BouncesHaveADomainSectionThatIsPlanned) {
  const Compiled compiled =
      CompileOne("<domain {bounce}>\nmax-smtp-out 2\nretry-after 1h\n</domain>\n");
  EXPECT_TRUE(compiled.ok());
  ASSERT_EQ(compiled.diagnostics.size(), 1u);
  EXPECT_EQ(compiled.diagnostics[0].message,
            "<domain {bounce}> has no effect in this version (planned, with bounce and complaint "
            "processing)");
  EXPECT_EQ(compiled.tally.planned, 2u);
  EXPECT_FALSE(CompileOne("<domain {bounce}>\nmax-smpt-out 2\n</domain>\n").ok());
}

TEST(CompilerBoundsTest, WhatMayBeASecretIsNotShown) {
  for (const char* const text : {
           "<smtp-user u>\npassword a,\n\"hunter2\n</smtp-user>\n",
           "<smtp-user u>\npassword a,\nhunter2\xff\n</smtp-user>\n",
           "<smtp-user u>\npasswd hunter2\n</smtp-user>\n",
           "<smtp-user u>\npassword=hunter2\n</smtp-user>\n",
           "<smtp-user u>\n  Password:hunter2\xff\n</smtp-user>\n",
           "auth-token hunter2\n",
           "smtp-auth-secret \"hunter2\n",
           "password hunter2\n",
           "api-key=\"hunter2\n",
       }) {
    const Compiled compiled = CompileOne(text);
    EXPECT_FALSE(compiled.ok()) << text;
    EXPECT_EQ(Render(compiled.diagnostics).find("hunter2"), std::string::npos)
        << Render(compiled.diagnostics);
  }
}

}  // namespace
}  // namespace sluice::config
