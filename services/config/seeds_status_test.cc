// Every directive of the operators' guides is effective, or it is planned and belongs to a
// capability that is not built: warm-up, adaptive throttling, DKIM, bounces, accounting,
// management. The list below may only get shorter.
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "services/config/lexer.h"
#include "services/config/registry.h"

namespace sluice::config {
namespace {

using Planned = std::map<std::string, std::string>;  // by name: the capability

void Note(const std::string& name, Status status, std::string_view reason, Planned* planned) {
  if (status == Status::kActive) return;
  EXPECT_TRUE(status == Status::kNotYet || status == Status::kRefused)
      << name << " is " << StatusName(status);
  planned->emplace(name, reason);
}

void Walk(const std::string& text, Planned* planned) {
  std::vector<Diagnostic> diagnostics;
  std::vector<Scope> scopes = {kGlobal};
  for (const Statement& statement : Lex("seed", text, &TakesRegex, &diagnostics)) {
    if (statement.kind == Statement::Kind::kClose) {
      ASSERT_GT(scopes.size(), 1u);
      scopes.pop_back();
      continue;
    }
    if (statement.kind == Statement::Kind::kOpen) {
      const SectionKind* const kind = FindSection(statement.name);
      ASSERT_NE(kind, nullptr) << statement.name;
      Note("<" + statement.name + ">", kind->status, kind->reason, planned);
      scopes.push_back(kind->scope);
      continue;
    }
    const Directive* directive = FindDirective(scopes.back(), statement.name);
    if (directive == nullptr && scopes.back() == kBind) {
      directive = FindDirective(kDomain, statement.name);
    }
    ASSERT_NE(directive, nullptr) << statement.name << " in " << ScopeName(scopes.back());
    Note(statement.name, directive->status, directive->reason, planned);
  }
  EXPECT_TRUE(diagnostics.empty()) << Render(diagnostics);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(SeedsStatusTest, WhatIsPlannedBelongsToACapabilityThatIsNotBuilt) {
  Planned planned;
  for (const char* guide : {"guide_one", "guide_two", "guide_three", "guide_four"}) {
    const std::string text = ReadFile(std::string("services/config/testdata/") + guide + ".conf");
    ASSERT_FALSE(text.empty());
    Walk(text, &planned);
  }
  const auto all = [](std::string_view capability, const std::vector<std::string>& names) {
    Planned of;
    for (const std::string& name : names) of.emplace(name, capability);
    return of;
  };
  Planned expected;
  for (const Planned& part : {
           all(kWarmUp, {"<schedule>", "from", "start", "increase", "until"}),
           all(kAdaptive, {"adaptive-max-smtp-out", "adaptive-soft-bounce-limit",
                           "adaptive-backoff-interval"}),
           all(kDkim,
               {"dkim-sign", "dkim-selector", "dkim-key", "dkim-headers", "spf-identity", "sign"}),
           all(kBounces, {"bounce-log", "bounce-category-log", "permanent-bounce-after",
                          "bounce-domain", "bounce-pattern-file"}),
           all(kAccounting, {"log-format-extended", "<acct-file>", "record", "max-size", "rotate"}),
           all(kManagement,
               {"http-mgmt-port", "http-mgmt-interface", "http-mgmt-auth", "snmp-port",
                "snmp-community", "statistics-interval", "<statistics>", "host", "port", "prefix"}),
       }) {
    expected.insert(part.begin(), part.end());
  }
  EXPECT_EQ(planned, expected);
}

// Whatever is planned says what it comes with, so that an operator knows what to wait for.
TEST(SeedsStatusTest, WhatIsPlannedNamesItsCapability) {
  for (const Directive& directive : AllDirectives()) {
    if (directive.status != Status::kNotYet && directive.status != Status::kRefused) continue;
    EXPECT_FALSE(directive.reason.empty()) << directive.name;
  }
  for (const SectionKind& kind : AllSections()) {
    if (kind.status == Status::kActive) continue;
    EXPECT_FALSE(kind.reason.empty()) << kind.name;
  }
}

}  // namespace
}  // namespace sluice::config
