// Which settings a reload does not bring into force, and which service has to be started again for
// them.
#include "services/config/fixed_settings.h"

#include "gtest/gtest.h"
#include "services/config/testing/compile.h"

namespace sluice::config {
namespace {

using Names = std::vector<std::string>;

policy::v1::GlobalSettings Of(const std::string& text) { return testing::ViewOf(text)->global(); }

TEST(FixedSettings, EachServiceHasItsOwn) {
  const auto one = Of("smtp-port 25\nhost-name a.test\nqueue-shards 4\n");
  const auto other = Of("smtp-port 26\nhost-name b.test\nname-server 192.0.2.1\nqueue-shards 4\n");
  EXPECT_EQ(NeedRestart("ingest", one, other), Names{"smtp-listener"});
  EXPECT_EQ(NeedRestart("delivery", one, other), Names{"name-server"});
  EXPECT_EQ(NeedRestart("queue", one, other), Names{});
  EXPECT_EQ(NeedRestart("ingest", one, one), Names{});
}

TEST(FixedSettings, TheOrderOfListenersIsNone) {
  const auto one = Of("smtp-listener 192.0.2.1:25\nsmtp-listener 192.0.2.2:25\n");
  const auto other = Of("smtp-listener 192.0.2.2:25\nsmtp-listener 192.0.2.1\n");
  EXPECT_EQ(NeedRestart("ingest", one, other), Names{});
  EXPECT_EQ(NeedRestart("ingest", Of(""), one), Names{"smtp-listener"});
  EXPECT_EQ(NeedRestart("delivery", Of("name-server 192.0.2.1\nname-server 192.0.2.2\n"),
                        Of("name-server 192.0.2.2\nname-server 192.0.2.1\n")),
            Names{"name-server"})
      << "they are asked in their order";
}

TEST(FixedSettings, NothingElseIsKept) {
  const auto all =
      Of("host-name a.test\nsmtp-listener 192.0.2.1:25\nedns-udp-length 1400\n"
         "alias a@a.test b@b.test\ndisk-queue /spool\n");
  const auto fixed = FixedSettings(all);
  EXPECT_EQ(fixed.ShortDebugString(),
            "smtp_listeners { values: \"192.0.2.1:25\" } disk_queue: \"/spool\" "
            "edns_udp_length: 1400");
  for (const char* service : {"ingest", "queue", "delivery"}) {
    EXPECT_EQ(NeedRestart(service, fixed, all), Names{}) << service;
  }
}

}  // namespace
}  // namespace sluice::config
