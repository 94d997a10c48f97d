#include "services/config/config_diff.h"

#include "gtest/gtest.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::MemoryFiles;

constexpr char kBefore[] =
    "host-name a.test\n"                        // 1
    "<virtual-mta news>\n"                      // 2
    "smtp-source-host 192.0.2.1 news.test\n"    // 3
    "</virtual-mta>\n"                          // 4
    "<virtual-mta offers>\n"                    // 5
    "smtp-source-host 192.0.2.2 offers.test\n"  // 6
    "<domain gmail.com>\nmax-smtp-out 3\n</domain>\n</virtual-mta>\n"
    "<domain *>\nretry-after 10m\n</domain>\n"
    "<domain gmail.com>\nmax-smtp-out 20\nmax-msg-rate 10/s\n</domain>\n";

std::string Diff(const std::string& before, const std::string& after) {
  MemoryFiles files;
  CompileOptions options;
  options.keep_origins = true;
  const Compiled old_config = CompileText("old", before, files, options);
  const Compiled new_config = CompileText("new", after, files, options);
  EXPECT_TRUE(old_config.ok()) << Render(old_config.diagnostics);
  EXPECT_TRUE(new_config.ok()) << Render(new_config.diagnostics);
  const auto changes = DiffConfigs(old_config, new_config);
  EXPECT_TRUE(changes.ok());
  return changes.ok() ? RenderChanges(*changes) : "";
}

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, text.npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(ConfigDiffTest, TheSameInOtherWordsIsNoChange) {
  EXPECT_EQ(Diff(kBefore, Replaced(kBefore, "retry-after 10m", "# shorter?\nretry-after 600s")),
            "nothing changes\n");
}

TEST(ConfigDiffTest, ADomainsSettingChangesTheQueuesThatItHoldsFor) {
  // offers says its own max-smtp-out.
  EXPECT_EQ(Diff(kBefore, Replaced(kBefore, "max-smtp-out 20", "max-smtp-out 30")),
            "queue gmail.com/default,news\n  max-smtp-out  20 -> 30  new:15\n");
  EXPECT_EQ(Diff(kBefore, Replaced(kBefore, "max-msg-rate 10/s", "max-msg-rate 20/s")),
            "queue gmail.com/*\n  max-msg-rate  10/s -> 20/s  new:16\n");
}

TEST(ConfigDiffTest, WhatHoldsForAllShowsForEachPattern) {
  EXPECT_EQ(Diff(kBefore, Replaced(kBefore, "retry-after 10m", "retry-after 1h")),
            "queue */*\n  retry-after  10m -> 1h  new:12\n"
            "queue gmail.com/*\n  retry-after  10m -> 1h  new:12\n");
}

TEST(ConfigDiffTest, VirtualMtasClientsAndGlobals) {
  std::string after = Replaced(kBefore, "host-name a.test", "host-name b.test");
  after = Replaced(after, "smtp-source-host 192.0.2.2 offers.test", "smtp-source-host 192.0.2.3");
  after += "<source 10/8>\nalways-allow-relaying yes\n</source>\n";
  EXPECT_EQ(Diff(kBefore, after),
            "outside of sections\n  host-name  a.test -> b.test  new:1\n"
            "client 10.0.0.0/8\n  always-allow-relaying  no -> yes  new:19\n"
            "virtual-mta offers\n"
            "  smtp-source-host  192.0.2.2 offers.test -> 192.0.2.3 b.test\n");
}

TEST(ConfigDiffTest, ALineThatGoesFallsBackToTheDefault) {
  EXPECT_EQ(Diff(kBefore, Replaced(kBefore, "max-msg-rate 10/s\n", "")),
            "queue gmail.com/*\n  max-msg-rate  10/s -> unlimited  default\n");
}

// That a secret changed is said, and neither it nor anything made of it.
TEST(ConfigDiffTest, ASecretThatChangesIsToldAndNotShown) {
  const std::string before = std::string(kBefore) +
                             "smtp-server-tls-certificate /a.pem one\n<smtp-user bob>\n"
                             "password two\n</smtp-user>\n";
  EXPECT_EQ(Diff(before, before + "# no change\n"), "nothing changes\n");
  EXPECT_EQ(Diff(before, Replaced(before, "a.pem one", "a.pem three")),
            "outside of sections\n"
            "  smtp-server-tls-certificate  (secret) -> (changed secret)  new:18\n");
  EXPECT_EQ(Diff(before, Replaced(before, "password two", "password four")),
            "smtp-user bob\n  section  there -> changed\n");
}

}  // namespace
}  // namespace sluice::config
