// Proves that the difference of two configurations is what changes in effect, and shows no
// secret.
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
            "smtp-user bob\n  password  (secret) -> (changed secret)  new:20\n");
}

TEST(ConfigDiffTest, LimitsOfPoolsListenersAndNamedSources) {
  const std::string before = std::string(kBefore) +
                             "<virtual-mta-pool p>\nvirtual-mta news\nmax-smtp-out 50\n"
                             "</virtual-mta-pool>\n"
                             "<smtp-listener 192.0.2.9:587>\nsource partners\n"
                             "</smtp-listener>\n"
                             "<source {auth}>\nmax-message-size 5M\n</source>\n"
                             "<source partners>\nrequire-auth yes\n</source>\n";
  EXPECT_EQ(Diff(before, Replaced(before, "max-smtp-out 50", "max-smtp-out 60")),
            "virtual-mta-pool p\n  max-smtp-out  50 -> 60  new:20\n");
  EXPECT_EQ(Diff(before, Replaced(before, "source partners\n</smtp",
                                  "immediate-tls yes\n"
                                  "source partners\n</smtp")),
            "listener 192.0.2.9:587\n  immediate-tls  (none) -> yes  new:23\n");
  EXPECT_EQ(Diff(before, Replaced(before, "require-auth yes", "require-auth no")),
            "named-source partners\n  require-auth  yes -> no  new:29\n");
}

TEST(ConfigDiffTest, WhatTakesARestartSaysSo) {
  EXPECT_EQ(Diff(kBefore, std::string(kBefore) + "smtp-listener 192.0.2.9:25\n"),
            "outside of sections\n  smtp-listener  (none) -> 192.0.2.9:25  new:18  (takes a "
            "restart)\n");
}

TEST(ConfigDiffTest, ARenamedVirtualMtaGoesAndComes) {
  EXPECT_EQ(Diff(kBefore, Replaced(kBefore, "virtual-mta news", "virtual-mta letters")),
            "virtual-mta letters\n  section  (none) -> there\n"
            "  smtp-source-host  (none) -> 192.0.2.1 news.test\n"
            "virtual-mta news\n  section  there -> (none)\n"
            "  smtp-source-host  192.0.2.1 news.test -> (none)\n");
  // Also one that says nothing of itself.
  EXPECT_EQ(Diff(kBefore, std::string(kBefore) + "<virtual-mta bare>\n<domain x.test>\n"
                                                 "max-smtp-out 1\n</domain>\n</virtual-mta>\n"),
            "virtual-mta bare\n  section  (none) -> there\n");
}

// What stands in files, and whole lists.
TEST(ConfigDiffTest, TextsProxiesAndLists) {
  MemoryFiles files;
  CompileOptions options;
  options.keep_origins = true;
  const std::string text =
      "include-headers-from /h\ndsn-failed-body-template-from /b\n"
      "custom-dsn-from-header \"A <a@b.test>\"\n<dns>\nprecached-domains-file /d\n</dns>\n"
      "<proxy p>\ntype socks5\nserver 192.0.2.9:1080\nclient 192.0.2.7\nusername u\n"
      "password one\n</proxy>\n<virtual-mta v>\nuse-proxy p\ninclude-headers-from /h\n"
      "</virtual-mta>\n<mx-rollup-list>\nmx *.x.test r.test\n</mx-rollup-list>\n"
      "<bounce-category-patterns>\n/x/ other\n</bounce-category-patterns>\n";
  files.files = {{"/h", "X-A: 1\n"}, {"/b", std::string(400, 'b')}, {"/d", "a.test\n"}};
  const Compiled before = CompileText("f", text, files, options);
  ASSERT_TRUE(before.ok()) << Render(before.diagnostics);
  const auto diff = [&](const std::string& other) {
    return RenderChanges(*DiffConfigs(before, CompileText("f", other, files, options)));
  };
  EXPECT_EQ(diff(text), "nothing changes\n");
  EXPECT_EQ(diff(Replaced(text, "password one", "password two")),
            "virtual-mta v\n  smtp-source-host  192.0.2.7  by socks5 192.0.2.9:1080 as u -> "
            "(changed secret)\n");
  EXPECT_NE(diff(Replaced(text, "192.0.2.9", "192.0.2.8")).find("by socks5 192.0.2.8:1080"),
            std::string::npos);
  EXPECT_EQ(diff(Replaced(text, "A <a@", "B <a@")),
            "outside of sections\n"
            "  custom-dsn-from-header  A <a@b.test> -> B <a@b.test>  f:3\n");
  EXPECT_EQ(diff(Replaced(text, "r.test", "s.test")), "mx-rollup\n  section  there -> changed\n");
  EXPECT_EQ(diff(Replaced(text, "/ other", "/ bad-mailbox")),
            "bounce-categories\n  section  there -> changed\n");
  files.files = {{"/h", "X-A: 2\n"}, {"/b", std::string(400, 'c')}, {"/d", "a.test\nb.test\n"}};
  const std::string changes = diff(text);
  EXPECT_NE(changes.find("include-headers-from  X-A: 1 -> X-A: 2  f:1\n"), std::string::npos);
  EXPECT_NE(changes.find("include-headers-from  X-A: 1 -> X-A: 2  f:16\n"), std::string::npos);
  EXPECT_NE(changes.find("precached-domains-file  a.test -> a.test b.test  f:5\n"),
            std::string::npos);
  EXPECT_NE(changes.find("bbb... (400 bytes, "), std::string::npos) << changes;
}

// Of many queues each change is one line, and past a number they are counted.
TEST(ConfigDiffTest, ManyQueuesChange) {
  std::string many;
  for (int i = 0; i < 12'000; ++i) {
    many += "<domain d" + std::to_string(i) + ".test>\nmax-msg-rate 5/s\n</domain>\n";
  }
  const std::string text = Diff(many + "<domain *>\nretry-after 1h\n</domain>\n",
                                many +
                                    "<virtual-mta v>\nsmtp-source-host 192.0.2.1\n</virtual-mta>\n"
                                    "<domain *>\nretry-after 2h\n</domain>\n");
  EXPECT_NE(text.find("queue d77.test/default\n  retry-after  1h -> 2h"), text.npos)
      << text.substr(0, 500);
  EXPECT_NE(text.find("and 2002 more\n"), text.npos) << text.substr(text.size() - 200);
}

TEST(ConfigDiffTest, ClientsThatNoSectionNamesAndLists) {
  EXPECT_EQ(Diff(kBefore, std::string(kBefore) + "max-message-hops 50\n"),
            "clients that no <source> names\n  max-message-hops  100 -> 50  new:18\n");
  EXPECT_EQ(Diff(kBefore, std::string(kBefore) + "alias a@a.test b@b.test\n"),
            "outside of sections\n  alias  (none) -> a@a.test b@b.test  new:18\n");
}

}  // namespace
}  // namespace sluice::config
