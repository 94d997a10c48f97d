// What operators of fifteen years write, as they write it: it is read as they mean it, or they are
// told.
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/testing/compile.h"

namespace sluice::config {
namespace {

using testing::CompileOne;
using testing::Complaint;
using testing::ViewOf;

TEST(CompilerHabitsTest, ListenersOnEveryAddress) {
  for (const auto& [said, kept] :
       std::vector<std::pair<std::string, std::string>>{{"0/0:25", "0.0.0.0:25"},
                                                        {"0.0.0.0/0:25", "0.0.0.0:25"},
                                                        {"[::]:25", "[::]:25"},
                                                        {"[::/0]:25", "[::]:25"},
                                                        {"[::]/0:25", "[::]:25"},
                                                        {"0::0/0:2525", "[::]:2525"},
                                                        {"192.0.2.1/32:587", "192.0.2.1:587"},
                                                        {"192.0.2.1", "192.0.2.1:25"}}) {
    const auto view = ViewOf("smtp-listener " + said + "\n");
    ASSERT_EQ(view->global().smtp_listeners().values_size(), 1) << said;
    EXPECT_EQ(view->global().smtp_listeners().values(0), kept);
  }
  EXPECT_EQ(Complaint("smtp-listener 192.0.2.0/24:25\n"),
            "a.conf:1:15: error: every address, as in 0/0:25, or one can be listened on, not a "
            "network\n  smtp-listener 192.0.2.0/24:25\n                ^");
}

TEST(CompilerHabitsTest, ValuesThatOldFilesHave) {
  const auto view = ViewOf(
      "<source 10/8>\nmax-rcpt-per-message 0\nmax-message-size 0\n</source>\n"
      "<domain *>\nmax-rcpt-per-message 0\n"
      "smtp-hosts [192.0.2.5]:26, mail.a.test\n</domain>\n"
      "<domain [IPv6:2001:DB8::1]>\nmax-smtp-out 1\n</domain>\n");
  EXPECT_EQ(view->ForClient("10.0.0.1")->max_rcpt_per_message(), 50'000u);
  EXPECT_EQ(view->ForQueue("a.test", "v", "")->max_rcpt_per_transaction(), 100'000u);
  EXPECT_EQ(view->ForQueue("a.test", "v", "")->smtp_hosts().values(0), "192.0.2.5:26");
  // Every file of the manual's has these.
  EXPECT_TRUE(CompileOne("<domain *>\nlog-connections no\nlog-commands no\n</domain>\n").ok());
  EXPECT_EQ(view->ForQueue("[ipv6:2001:db8:0::1]", "v", "")->max_smtp_out(), 1u);
}

TEST(CompilerHabitsTest, TheBouncesDomainIsKnown) {
  const std::string said = Complaint("<domain {Bounce}>\nmax-smtp-out 5\n</domain>\n");
  EXPECT_NE(said.find("warning: <domain {bounce}> has no effect in this version (planned, with "
                      "bounce and complaint processing)"),
            std::string::npos)
      << said;
  EXPECT_FALSE(CompileOne("<domain {bounce}>\nmax-smtp-out five\n</domain>\n").ok());
}

// Nobody would see from the effect that these are not what was meant.
TEST(CompilerHabitsTest, WhatWouldBeMisreadInSilence) {
  EXPECT_FALSE(CompileOne("retry-after 10m 30m 1h\n").ok()) << "no time of 1 h 40 min";
  EXPECT_FALSE(CompileOne("smtp-ip 192.0.2.1:25\n").ok());
  EXPECT_EQ(Complaint("domain-macro a x.test\nDomain-Macro A y.test\n"),
            "a.conf:2:14: warning: domain-macro A is written again: from here on only these are "
            "its domains\n  Domain-Macro A y.test\n               ^");
  EXPECT_NE(Complaint("<source 10.1.2.3/8>\n</source>\n").find("its network is 10.0.0.0/8"),
            std::string::npos);
}

}  // namespace
}  // namespace sluice::config
