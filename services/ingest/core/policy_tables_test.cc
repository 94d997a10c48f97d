// Proves who may be sent to by everybody (relay-domain, relay-address, alias), and where aliases
// lead.
#include "services/ingest/core/policy_tables.h"

#include "gtest/gtest.h"
#include "services/ingest/testing/fake_policy.h"

namespace sluice::ingest {
namespace {

using testing::FakePolicy;

void AddAlias(FakePolicy& policy, const char* source, const char* target) {
  auto* const alias = policy.global_settings.add_aliases();
  alias->set_source(source);
  alias->set_target(target);
}

TEST(PolicyTables, EverybodyMaySendToRelayDomainsAddressesAndAliases) {
  FakePolicy policy;
  auto& global = policy.global_settings;
  global.mutable_relay_domains()->add_values("Relay.test");
  global.mutable_relay_addresses()->add_values("one@a.test");
  global.mutable_relay_addresses()->add_values("/(?i)^list-[a-z]+@b\\.test$");
  AddAlias(policy, "help@c.test", "x@elsewhere.test");
  const PolicyTables tables(policy, "mx.test");
  EXPECT_TRUE(tables.RelaysTo("any@relay.test"));
  EXPECT_FALSE(tables.RelaysTo("any@sub.relay.test"));
  EXPECT_FALSE(tables.RelaysTo("\"x@relay.test\"@other.test"));
  EXPECT_TRUE(tables.RelaysTo("One@a.test"));
  EXPECT_FALSE(tables.RelaysTo("two@a.test"));
  EXPECT_TRUE(tables.RelaysTo("List-Owner@b.test"));
  EXPECT_FALSE(tables.RelaysTo("list-owner@b.test.evil"));
  EXPECT_TRUE(tables.RelaysTo("HELP@c.test"));
  EXPECT_FALSE(tables.RelaysTo("x@elsewhere.test"));
}

TEST(PolicyTables, PatternsOfRelayDomains) {
  FakePolicy policy;
  auto& domains = *policy.global_settings.mutable_relay_domains();
  domains.add_values("[*.]both.test");
  domains.add_values("*.below.test");
  const PolicyTables tables(policy, "mx.test");
  for (const char* yes : {"a@both.test", "a@B.Both.test", "a@c.b.both.test", "a@x.below.test"}) {
    EXPECT_TRUE(tables.RelaysTo(yes)) << yes;
  }
  for (const char* no : {"a@below.test", "a@xboth.test", "a@both.test.evil", "a@test", "both.test",
                         "a@other.test"}) {
    EXPECT_FALSE(tables.RelaysTo(no)) << no;
  }
}

// A domain beyond ASCII is the same domain in either form, on either side.
TEST(PolicyTables, DomainsBeyondAsciiAreComparedAsDnsHasThem) {
  for (const char* configured : {"B\u00fccher.test", "xn--bcher-kva.test"}) {
    FakePolicy policy;
    policy.global_settings.mutable_relay_domains()->add_values(configured);
    const PolicyTables tables(policy, "mx.test");
    for (const char* said : {"u@b\u00fccher.test", "u@B\u00dcCHER.test", "u@XN--BCHER-KVA.test",
                             "\u00fc@b\u00fccher.test"}) {
      EXPECT_TRUE(tables.RelaysTo(said)) << configured << " " << said;
    }
    EXPECT_FALSE(tables.RelaysTo("u@bucher.test"));
    EXPECT_FALSE(tables.RelaysTo("b\u00fccher.test@other.test"));
    EXPECT_FALSE(tables.RelaysTo("u@\xff\xfe.test"));
  }
  FakePolicy policy;
  policy.global_settings.mutable_relay_addresses()->add_values("j\u00f6rg@b\u00fccher.test");
  AddAlias(policy, "help@b\u00fccher.test", "x@far.test");
  const PolicyTables tables(policy, "mx.test");
  EXPECT_TRUE(tables.RelaysTo("j\u00f6rg@xn--bcher-kva.test"));
  EXPECT_FALSE(tables.RelaysTo("jorg@xn--bcher-kva.test"));
  EXPECT_EQ(tables.Resolve("Help@xn--bcher-kva.test"), "x@far.test");
  EXPECT_EQ(tables.Resolve("help@b\u00fccher.test"), "x@far.test");
  // Who is no alias stays as it was given.
  EXPECT_EQ(tables.Resolve("J@B\u00fccher.test"), "J@B\u00fccher.test");
}

TEST(PolicyTables, AliasesLeadOnUntilOneLeadsNowhere) {
  FakePolicy policy;
  AddAlias(policy, "a", "b");
  AddAlias(policy, "b@mx.test", "C@Far.TEST");
  AddAlias(policy, "postmaster", "postmaster");
  AddAlias(policy, "x@a.test", "y@a.test");
  AddAlias(policy, "y@a.test", "x@a.test");
  const PolicyTables tables(policy, "MX.test");
  EXPECT_EQ(tables.Resolve("a@mx.test"), "C@far.test");
  EXPECT_EQ(tables.Resolve("A"), "C@far.test");
  EXPECT_EQ(tables.Resolve("a@other.test"), "a@other.test");
  EXPECT_EQ(tables.Resolve("Postmaster"), "postmaster@mx.test");
  EXPECT_EQ(tables.Resolve("postmaster@mx.test"), "postmaster@mx.test");
  EXPECT_EQ(tables.Resolve("x@a.test"), std::nullopt);
  EXPECT_EQ(tables.Resolve("plain@z.test"), "plain@z.test");
}

TEST(PolicyTables, AListIsCompiledOnceAndLeavesOutWhatItCannotRead) {
  FakePolicy policy;
  policy.pattern_list.set_name("l");
  auto* rule = policy.pattern_list.add_rules();
  rule->set_subject(policy::v1::PatternRule::SUBJECT_MAIL_FROM);
  rule->set_regex("(");
  rule->set_virtual_mta("default");
  PolicyTables tables(policy, "mx.test");
  const auto list = tables.FindPatternList("l");
  ASSERT_NE(list, nullptr);
  EXPECT_EQ(list, tables.FindPatternList("L"));
  EXPECT_EQ(list->MatchSender("("), PatternList::kNone);
  EXPECT_EQ(tables.FindPatternList("none"), nullptr);
}

}  // namespace
}  // namespace sluice::ingest
