// Proves what files say of clients: named sources, listeners, pattern lists, groups, aliases.
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/testing/compile.h"

namespace sluice::config {
namespace {

using testing::CompileOne;
using testing::ViewOf;

TEST(CompilerIngressTest, NamedSourcesLieOverNetworksInTheirOrder) {
  const auto view = ViewOf(
      "smtp-listener 192.0.2.1:587 source={submission}\n"
      "<source 0/0>\nmax-message-hops 10\nmax-smtp-in 5\n</source>\n"
      "<source 192.0.2.0/24>\nmax-message-hops 20\nprocess-x-job yes\n</source>\n"
      "<source 192.0.2.7>\nmax-message-hops 25\nmax-smtp-in 2\n</source>\n"
      "<source {submission}>\nmax-message-hops 30\nrequire-auth yes\nmax-smtp-in 9\n</source>\n"
      "<source {auth}>\nmax-message-hops 40\nallow-relay yes\n</source>\n"
      "<source Partners>\nmax-message-hops 50\n</source>\n"
      "<smtp-listener [::]:25>\nsource partners\n</smtp-listener>\n");
  EXPECT_EQ(view->ForClient("192.0.2.9")->max_message_hops(), 20u);
  EXPECT_EQ(view->ForClient("192.0.2.9")->max_smtp_in_scope(), "0.0.0.0/0");
  EXPECT_EQ(view->ForClient("192.0.2.7")->max_smtp_in_scope(), "192.0.2.7/32");
  EXPECT_EQ(view->ForClientOf("192.0.2.9", {})->max_message_hops(), 20u);
  const auto listener = view->ForClientOf("192.0.2.9", {"{submission}"});
  EXPECT_EQ(listener->max_message_hops(), 30u);
  EXPECT_EQ(listener->max_smtp_in_scope(), "{submission}");
  EXPECT_TRUE(listener->process_x_job());
  EXPECT_TRUE(listener->require_auth());
  EXPECT_FALSE(listener->allow_relay());
  const auto user = view->ForClientOf("198.51.100.1", {"{submission}", "{auth}", "partners"});
  EXPECT_EQ(user->max_message_hops(), 50u);
  EXPECT_TRUE(user->allow_relay());
  EXPECT_FALSE(user->process_x_job());
  EXPECT_EQ(view->ForClientOf("192.0.2.9", {"nobody"})->max_message_hops(), 20u);

  ASSERT_EQ(view->global().smtp_listeners().values_size(), 2);
  EXPECT_EQ(view->global().smtp_listeners().values(0), "192.0.2.1:587");
  ASSERT_NE(view->FindListener("192.0.2.1:587"), nullptr);
  EXPECT_EQ(view->FindListener("192.0.2.1:587")->source(), "{submission}");
  EXPECT_EQ(view->FindListener("192.0.2.2:587"), nullptr);
  EXPECT_EQ(view->FindListener("[2001:db8::1]:25")->source(), "partners");
  EXPECT_EQ(view->FindListener("192.0.2.2:25")->source(), "partners");
}

TEST(CompilerIngressTest, AListenerOnAllOfIpv4HoldsForEachOfItsAddresses) {
  const auto view = ViewOf(
      "<source {a}>\n</source>\n<source {b}>\n</source>\n"
      "smtp-listener 0/0:25 source={a}\n<smtp-listener 127.0.0.1:25>\nsource {b}\n"
      "</smtp-listener>\n");
  EXPECT_EQ(view->FindListener("192.0.2.2:25")->source(), "{a}");
  EXPECT_EQ(view->FindListener("127.0.0.1:25")->source(), "{b}");
  EXPECT_EQ(view->FindListener("[::1]:25"), nullptr);
  EXPECT_EQ(view->FindListener(""), nullptr);
}

TEST(CompilerIngressTest, PatternListsGroupsAliasesAndRelayAddresses) {
  const auto view = ViewOf(
      "<virtual-mta v>\n</virtual-mta>\n<virtual-mta-pool p>\nvirtual-mta v\n</virtual-mta-pool>\n"
      "<pattern-list Mine>\n"
      "mail-from /^news [ab]@/ virtual-mta=v\n"
      "RCPT-TO /@slow\\.test$/I Virtual-MTA=p;\n"
      "header X-Kind: /a\\/b/ virtual-mta=default\n"
      "</pattern-list>\n"
      "<source 10/8>\npattern-list mine\nsource-group G\n</source>\n"
      "<source-group g>\nmax-smtp-in 10\nreserved-smtp-in 3\n</source-group>\n"
      "alias Root admin@Example.com\nalias a@B.test b\nalias root other@example.com\n"
      "relay-address one@a.test, Two@A.test\nrelay-address /^x.*@b\\.test$/\n"
      "bcc archive@c.test\n");
  const auto* const list = view->FindPatternList("MINE");
  ASSERT_NE(list, nullptr);
  ASSERT_EQ(list->rules_size(), 3);
  EXPECT_EQ(list->rules(0).regex(), "(?i)^news [ab]@");
  EXPECT_EQ(list->rules(0).virtual_mta(), "v");
  EXPECT_EQ(list->rules(1).subject(), policy::v1::PatternRule::SUBJECT_RCPT_TO);
  EXPECT_EQ(list->rules(1).regex(), "@slow\\.test$");
  EXPECT_EQ(list->rules(1).virtual_mta(), "p");
  EXPECT_EQ(list->rules(2).header(), "X-Kind");
  EXPECT_EQ(list->rules(2).regex(), "(?i)a/b");
  EXPECT_EQ(view->ForClient("10.1.1.1")->pattern_list(), "mine");
  EXPECT_EQ(view->ForClient("10.1.1.1")->bcc(), "archive@c.test");
  ASSERT_EQ(view->source_groups().size(), 1u);
  EXPECT_EQ(view->source_groups()[0]->reserved_smtp_in(), 3u);
  ASSERT_EQ(view->global().aliases_size(), 2);
  EXPECT_EQ(view->global().aliases(0).source(), "root");
  EXPECT_EQ(view->global().aliases(0).target(), "other@example.com");
  EXPECT_EQ(view->global().aliases(1).source(), "a@b.test");
  const auto& relay = view->global().relay_addresses();
  ASSERT_EQ(relay.values_size(), 3);
  EXPECT_EQ(relay.values(1), "two@a.test");
  EXPECT_EQ(relay.values(2), "/(?i)^x.*@b\\.test$");
}

TEST(CompilerIngressTest, WhatIsWrongIsSaid) {
  for (const auto& [text, words] : std::vector<std::pair<std::string, std::string>>{
           {"<source nowhere>\n</source>", "\"nowhere\" is no network"},
           {"<source {a b}>\n</source>", "needs one name"},
           {"<accepted-connect {auth}>\n</accepted-connect>", "is no network"},
           {"<source {auth}>\nmax-msg-rate 5/s\n</source>", "one outbound address"},
           {"smtp-listener 127.0.0.1:25 source={x}", "there is no <source {x}>"},
           {"smtp-listener source={auth}", "it is written"},
           {"smtp-listener 10/8:25", "not a network"},
           {"<smtp-listener nowhere>\n</smtp-listener>", "is no address"},
           {"<source 10/8>\npattern-list x\n</source>", "there is no <pattern-list x>"},
           {"<source 10/8>\nsource-group x\n</source>", "there is no <source-group x>"},
           {"<pattern-list a b>\n</pattern-list>", "needs one name"},
           {"<pattern-list a/b>\n</pattern-list>", "is no name"},
           {"<pattern-list a>\nmail-from x virtual-mta=default\n</pattern-list>", "written /"},
           {"<pattern-list a>\nmail-from /x/ default\n</pattern-list>", "it is written"},
           {"<pattern-list a>\nmail-from /(?=x/ virtual-mta=default\n</pattern-list>", "cannot"},
           {"<pattern-list a>\nmail-from /x/ virtual-mta=y\n</pattern-list>", "there is no"},
           {"<pattern-list a>\nheader /x/ virtual-mta=default\n</pattern-list>", "it is written"},
           {"<pattern-list a>\nmax-smtp-in 5\n</pattern-list>", "may not be"},
           {"alias one", "it is written"},
           {"alias @x y@z.test", "it is written"},
           {"alias x y@", "it is written"},
           {"relay-address here", "it is written"},
           {"relay-address /(/", "cannot be used"},
       }) {
    const Compiled compiled = CompileOne(text);
    ASSERT_EQ(compiled.diagnostics.size(), 1u) << text << "\n" << Render(compiled.diagnostics);
    EXPECT_FALSE(compiled.ok()) << text;
    EXPECT_NE(compiled.diagnostics[0].ToString().find(words), std::string::npos)
        << compiled.diagnostics[0].ToString();
  }
}

}  // namespace
}  // namespace sluice::config
