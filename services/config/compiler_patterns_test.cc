// Proves that pattern lists, categories, rollups and penalties compile, and that mistakes in
// them have their place.
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/policy_view.h"
#include "services/config/testing/memory_files.h"

namespace sluice::config {
namespace {

using testing::MemoryFiles;

Compiled CompileOne(const std::string& text) {
  MemoryFiles files;
  return CompileText("a.conf", text, files);
}

// What is said of the lines, but for the sections' being planned.
std::string Said(const std::string& text) {
  Compiled compiled = CompileOne(text);
  std::string said;
  for (const Diagnostic& diagnostic : compiled.diagnostics) {
    if (diagnostic.message.find("(planned") != std::string::npos) continue;
    const std::string line = diagnostic.ToString();
    said += line.substr(0, line.find('\n')) + "\n";
  }
  return said;
}

TEST(CompilerPatternsTest, RepliesCategoriesAndRollups) {
  const Compiled compiled = CompileOne(
      "<smtp-pattern-list common>\n"
      "reply /too many \"sessions\"/ mode=backoff backoff-to-normal-after=1h30m\n"
      "reply /^5.*spam/I disable-source-ip reenable-after=2h, skip-mx category=Spam-Related\n"
      "</smtp-pattern-list>\n"
      "<domain *>\nsmtp-pattern-list Common\n</domain>\n"
      "<bounce-category-patterns>\n/5\\.1\\.1/ bad-mailbox\n/mailbox full/ quota-issues\n"
      "</bounce-category-patterns>\n"
      "<mx-rollup-list>\nmx *.Google.com google.rollup\n</mx-rollup-list>\n");
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  const auto view = *PolicyView::Build(compiled.snapshot);
  const auto* const list = view->FindSmtpPatternList("COMMON");
  ASSERT_NE(list, nullptr);
  ASSERT_EQ(list->rules_size(), 2);
  EXPECT_EQ(list->rules(0).regex(), "(?i)too many \"sessions\"");
  EXPECT_EQ(list->rules(0).mode(), "backoff");
  EXPECT_EQ(list->rules(0).backoff_to_normal_after_us(), int64_t{5400} * 1'000'000);
  EXPECT_EQ(list->rules(1).regex(), "^5.*spam");
  EXPECT_TRUE(list->rules(1).disable_source_ip() && list->rules(1).skip_mx());
  EXPECT_EQ(list->rules(1).bounce_category(), "spam-related");
  ASSERT_EQ(view->bounce_categories().rules_size(), 2);
  EXPECT_EQ(view->bounce_categories().rules(1).category(), "quota-issues");
  ASSERT_EQ(view->mx_rollup().entries_size(), 1);
  EXPECT_EQ(view->mx_rollup().entries(0).mx(), "*.google.com");
}

TEST(CompilerPatternsTest, MistakesHaveTheirPlace) {
  const std::string open = "<smtp-pattern-list s>\n";
  const std::string close = "\n</smtp-pattern-list>\n";
  EXPECT_EQ(Said(open + "reply /x/ mode=bakoff" + close),
            "a.conf:2:11: error: mode is backoff or normal\n");
  EXPECT_EQ(Said(open + "reply /x/ skpi-mx" + close),
            "a.conf:2:11: error: \"skpi-mx\" is no action; did you mean \"skip-mx\"?\n");
  EXPECT_EQ(Said(open + "reply /x/" + close),
            "a.conf:2:1: error: it is written reply /REGEX/ ACTION [ACTION ...]\n");
  EXPECT_EQ(Said(open + "reply /x/ category=no!good" + close),
            "a.conf:2:11: error: \"no!good\" is no category of bounces\n");
  EXPECT_NE(Said(open + "reply /(/ skip-mx" + close).find("a.conf:2:7: error: "),
            std::string::npos);
  EXPECT_EQ(Said("<domain *>\nsmtp-pattern-list none\n</domain>\n"),
            "a.conf:2:19: error: there is no <smtp-pattern-list none>\n");
  EXPECT_EQ(Said("<bounce-category-patterns>\n/x/\n</bounce-category-patterns>\n"),
            "a.conf:2:1: error: it is written /REGEX/ CATEGORY\n");
}

TEST(CompilerPatternsTest, DoubtsAreWarnings) {
  EXPECT_EQ(Said("<smtp-pattern-list s>\nreply // skip-mx\nreply /x/ skip-mx\n"
                 "</smtp-pattern-list>\n"),
            "a.conf:3:1: warning: this line does nothing: one before it matches everything\n");
  // Beside a line for every reply another one may still say something else.
  EXPECT_EQ(Said("<smtp-pattern-list s>\nreply // mode=normal\nreply /x/ mode=backoff skip-mx\n"
                 "reply /y/ mode=backoff\n</smtp-pattern-list>\n"),
            "a.conf:4:1: warning: this line does nothing: one before it matches everything\n");
  EXPECT_EQ(Said("<bounce-category-patterns>\n/x/ spam-related\n// other\n/y/ spam-related\n"
                 "/z/ spam-related\n</bounce-category-patterns>\n"),
            "a.conf:4:1: warning: this line does nothing: one before it matches everything\n"
            "a.conf:5:1: warning: this line does nothing: one before it matches everything\n");
  EXPECT_EQ(Said("<smtp-pattern-list s>\nreply // category=other\nreply /x/ category=spam-related\n"
                 "</smtp-pattern-list>\n"),
            "a.conf:3:1: warning: this line does nothing: one before it matches everything\n");
  EXPECT_EQ(Said("<mx-rollup-list>\nmx *.a.test x\nmx *.A.test y\nmx * z\nmx b.test y\n"
                 "</mx-rollup-list>\n"),
            "a.conf:3:4: warning: this line does nothing: one before it matches the same hosts\n"
            "a.conf:5:4: warning: this line does nothing: one before it matches the same hosts\n");
  EXPECT_EQ(Said("<pattern-list p>\nheader X: // virtual-mta=default\n"
                 "mail-from // virtual-mta=default\nrcpt-to /x/ virtual-mta=default\n"
                 "</pattern-list>\n"),
            "a.conf:4:1: warning: this line does nothing: one before it matches everything\n");
  EXPECT_EQ(
      Said("<smtp-pattern-list s>\nreply /(a)\\1/ skip-mx\n</smtp-pattern-list>\n"),
      "a.conf:2:7: warning: RE2 cannot do this regular expression; PCRE2 does, with bounds on "
      "its time\n");
  EXPECT_EQ(
      Said("<domain *>\nbackoff-trigger-pattern ^4[0-9]2\n</domain>\n"),
      "a.conf:2:25: warning: it matches only codes that end in 2; ^4[0-9]{2} is likely meant\n");
  EXPECT_EQ(
      Said("<bounce-category-patterns>\n/x/ bad-malibox\n</bounce-category-patterns>\n"),
      "a.conf:2:5: warning: \"bad-malibox\" is a category of your own; \"bad-mailbox\" may be "
      "meant\n");
  EXPECT_EQ(Said("<bounce-category-patterns>\n/x/ our-own\n</bounce-category-patterns>\n"), "");
}

TEST(CompilerPatternsTest, PenaltiesOfADomainOrOfAll) {
  const Compiled compiled = CompileOne(
      "<smtp-pattern 4xx>\npattern ^4[0-9]{2}\n</smtp-pattern>\n"
      "domain-macro m a.test, b.test\n<domain $m>\n<smtp-pattern slow>\npattern /too fast/\n"
      "pattern /slow down/I\ninitial-pts 30\nmax-pts 10m\n</smtp-pattern>\n</domain>\n");
  ASSERT_TRUE(compiled.ok()) << Render(compiled.diagnostics);
  EXPECT_TRUE(compiled.diagnostics.empty()) << Render(compiled.diagnostics);
  const auto view = *PolicyView::Build(compiled.snapshot);
  const auto other = view->ForQueue("c.test", "default", "");
  ASSERT_EQ(other->penalties().entries_size(), 1);
  EXPECT_EQ(other->penalties().entries(0).name(), "4xx");
  EXPECT_EQ(other->penalties().entries(0).patterns(0), "^4[0-9]{2}");
  const auto b = view->ForQueue("b.test", "default", "");
  ASSERT_EQ(b->penalties().entries_size(), 1);
  EXPECT_EQ(b->penalties().entries(0).patterns_size(), 2);
  EXPECT_EQ(b->penalties().entries(0).initial_us(), 30'000'000);
  EXPECT_EQ(b->penalties().entries(0).max_us(), 600'000'000);
  EXPECT_EQ(Said("<smtp-pattern x>\npattern /(/\n</smtp-pattern>\n").substr(0, 18),
            "a.conf:2:9: error:");
  EXPECT_EQ(Said("<smtp-pattern x>\npattern /x/\nmax-pts soon\n</smtp-pattern>\n"),
            "a.conf:3:9: error: max-pts is a TIME of a second or more\n");
}

}  // namespace
}  // namespace sluice::config
