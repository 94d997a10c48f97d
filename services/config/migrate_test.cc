// Proves that a PowerMTA tree is rewritten with the same meaning.
#include "services/config/migrate.h"

#include <algorithm>
#include <map>

#include "gtest/gtest.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::MemoryFiles;

TEST(MigrateTest, ATreeIsTidiedAndMeansTheSame) {
  MemoryFiles files;
  files.files["/etc/pmta/config"] =
      "# main\r\n\r\nrun-as-root no\r\nhostname mx.test   # our name\r\n"
      "domain-macro big gmail.com,\r\nyahoo.com\r\n"
      "<domain $big>\r\n      max-smtp-out 5\r\n# slower\r\nidle-timeout 9\r\n"
      "dkim-sign yes\r\n</domain>\r\ninclude vmtas/*.conf\r\n";
  files.files["/etc/pmta/vmtas/a.conf"] =
      "<virtual-mta a>\nsource 192.0.2.1\ninclude rules\n</virtual-mta>\n";
  files.files["/etc/pmta/vmtas/rules"] = "throttle 100/h\n";
  const Migration migration = Migrate("/etc/pmta/config", files);
  ASSERT_EQ(migration.files.size(), 3u);
  EXPECT_EQ(migration.files[0].text,
            "# main\n"
            "\n"
            "# no meaning here: the daemon never needs root; the port is handed to it\n"
            "# run-as-root no\n"
            "host-name mx.test   # our name\n"
            "domain-macro big gmail.com,\n"
            "  yahoo.com\n"
            "<domain $big>\n"
            "  max-smtp-out 5\n"
            "  # slower\n"
            "  connection-idle-timeout 9\n"
            "  # planned: no effect yet\n"
            "  dkim-sign yes\n"
            "</domain>\n"
            "include vmtas/*.conf\n");
  EXPECT_EQ(migration.files[1].text,
            "<virtual-mta a>\n  smtp-source-host 192.0.2.1\n  include rules\n</virtual-mta>\n");
  EXPECT_EQ(migration.files[2].text, "max-msg-rate 100/h\n");
  EXPECT_TRUE(migration.equivalent);
  ASSERT_EQ(migration.report.size(), 6u);
  EXPECT_EQ(migration.report[1], "/etc/pmta/config:4: hostname is written host-name");
  EXPECT_EQ(migration.report[5], "/etc/pmta/vmtas/rules:1: throttle is written max-msg-rate");
}

TEST(MigrateTest, FoldersAndFilesOfOtherKinds) {
  MemoryFiles files;
  files.files["/etc/pmta/config"] = "include config.d\ninclude more/\n";
  files.files["/etc/pmta/config.d/a.conf"] =
      "hostname a.test\n<domain x.test>\ndkim-key keys/x.pem\n</domain>\n";
  files.files["/etc/pmta/more/b.conf"] = "max-smtp-in 5\n";
  const Migration migration = Migrate("/etc/pmta/config", files);
  ASSERT_EQ(migration.files.size(), 3u);
  EXPECT_EQ(migration.files[2].text, "total-max-smtp-in 5\n");
  EXPECT_TRUE(migration.equivalent);
  ASSERT_EQ(migration.report.size(), 4u);
  EXPECT_EQ(migration.report[2],
            "/etc/pmta/config.d/a.conf:3: the file \"keys/x.pem\" is not copied: put it beside "
            "this one");
}

// Whole paths of PowerMTA's own folder: the new files do not go on reading the old ones.
TEST(MigrateTest, IncludesByTheirWholePathStayInTheNewFolder) {
  MemoryFiles files;
  files.files["/etc/pmta/config"] =
      "include /etc/pmta/isps/*.conf  # all\ninclude \"/etc/pmta/one\"\n"
      "include /opt/shared.conf\ninclude-headers-from /etc/pmta/h.txt\n"
      "smtp-client-certificate /opt/c.pem\n";
  files.files["/etc/pmta/isps/a.conf"] = "include /etc/pmta/one\ninclude /etc/pmta/isps/b\n";
  files.files["/etc/pmta/isps/b"] = "hostname b.test\n";
  files.files["/etc/pmta/one"] = "max-smtp-in 5\n";
  files.files["/etc/pmta/h.txt"] = "X-A: b\n";
  files.files["/opt/shared.conf"] = "retry-after 5m\n";
  const Migration migration = Migrate("/etc/pmta/config", files);
  EXPECT_TRUE(migration.equivalent);
  ASSERT_GE(migration.files.size(), 2u);
  EXPECT_EQ(migration.files[0].text,
            "include isps/*.conf  # all\ninclude \"one\"\ninclude /opt/shared.conf\n"
            "include-headers-from /etc/pmta/h.txt\nsmtp-client-certificate /opt/c.pem\n");
  EXPECT_EQ(migration.files[1].text, "include ../one\ninclude b\n");
  EXPECT_EQ(migration.report[0],
            "/etc/pmta/config:1: include /etc/pmta/isps/*.conf is written isps/*.conf");
  EXPECT_NE(std::find(migration.report.begin(), migration.report.end(),
                      "/etc/pmta/config:4: the file \"/etc/pmta/h.txt\" stays where it is: not "
                      "copied"),
            migration.report.end());
}

// Of the guides: what is left out or planned does not change what holds.
TEST(MigrateTest, TheGuidesStayTheSame) {
  DiskFiles files;
  for (const char* name : {"guide_one", "guide_two", "guide_three"}) {
    const Migration migration =
        Migrate(std::string("services/config/testdata/") + name + ".conf", files);
    EXPECT_TRUE(migration.equivalent) << name;
    EXPECT_FALSE(migration.report.empty());
  }
}

TEST(MigrateTest, WhatCannotBeReadStays) {
  MemoryFiles files;
  files.files["/c"] = "no-such-thing 5\n<domain x>\nhost-name \"open\n</domain>\ninclude /c\n";
  const Migration migration = Migrate("/c", files);
  ASSERT_EQ(migration.files.size(), 1u);
  EXPECT_EQ(migration.files[0].text,
            "no-such-thing 5\n<domain x>\n    host-name \"open\n</domain>\ninclude /c\n");
  EXPECT_FALSE(migration.equivalent);
  EXPECT_FALSE(migration.diagnostics.empty());
  EXPECT_TRUE(Migrate("/nowhere", files).files.empty());
}

}  // namespace
}  // namespace sluice::config
