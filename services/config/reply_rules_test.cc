// Proves what lines of an <smtp-pattern-list> say together of one reply.
#include "services/config/reply_rules.h"

#include "gtest/gtest.h"

namespace sluice::config {
namespace {

using Mode = ReplyActions::Mode;

policy::v1::ReplyRule* Add(policy::v1::SmtpPatternListSection* list, const std::string& regex) {
  policy::v1::ReplyRule* rule = list->add_rules();
  rule->set_regex(regex);
  return rule;
}

TEST(ReplyRules, AllLinesThatMatchCountAndOfContradictionsTheFirst) {
  policy::v1::SmtpPatternListSection list;
  list.set_name("isp");
  Add(&list, "(?i)^421 .*too many")->set_mode("backoff");
  auto* second = Add(&list, "^4");
  second->set_mode("normal");
  second->set_skip_mx(true);
  auto* third = Add(&list, "connections");
  third->set_bounce_rcpt(true);  // the recipient goes on elsewhere already
  third->set_defer_queue(true);
  third->set_disable_source_ip(true);
  third->set_reenable_after_us(7);
  const ReplyRules rules(&list, {});
  EXPECT_TRUE(rules.may_end_backoff());
  ReplyActions said = rules.Match("421 4.7.0 TOO MANY connections");
  EXPECT_EQ(said.mode, Mode::kBackoff);
  EXPECT_TRUE(said.skip_mx);
  EXPECT_TRUE(said.defer_queue);
  EXPECT_TRUE(said.disable_source);
  EXPECT_EQ(said.reenable_after_us, 7);
  EXPECT_EQ(said.mode_rule, "(?i)^421 .*too many of isp");
  EXPECT_EQ(said.source_rule, "connections of isp");
  EXPECT_FALSE(said.bounce_recipient);
  EXPECT_FALSE(said.bounce_queue);
  said = rules.Match("450 later");
  EXPECT_EQ(said.mode, Mode::kNormal);
  EXPECT_FALSE(said.disable_source);
  EXPECT_FALSE(rules.Match("550 no").any());
}

TEST(ReplyRules, BackoffPatternsAreBareOrBetweenSlashes) {
  policy::v1::StringList patterns;
  patterns.add_values("/Too many connections/");
  patterns.add_values("421");
  patterns.add_values("/Quota/I");
  const ReplyRules rules(nullptr, patterns);
  EXPECT_FALSE(rules.may_end_backoff());
  EXPECT_EQ(rules.Match("450 too MANY connections").mode, Mode::kBackoff);
  EXPECT_EQ(rules.Match("421 bye").mode, Mode::kBackoff);
  EXPECT_EQ(rules.Match("452 Quota").mode, Mode::kBackoff);
  EXPECT_EQ(rules.Match("452 quota").mode, Mode::kAsItIs) << "flag I: case matters";
}

TEST(ReplyRules, AReplyIsOneLine) {
  EXPECT_EQ(ReplyLine(421, "4.7.0", "Too many\nconnections"), "421 4.7.0 Too many connections");
  EXPECT_EQ(ReplyLine(550, "", ""), "550");
}

}  // namespace
}  // namespace sluice::config
