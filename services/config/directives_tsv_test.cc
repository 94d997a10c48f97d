// Every directive of PowerMTA's manual, as testdata/directives.tsv lists them, is read in its
// section, and its value is checked.
#include "services/config/directives_tsv.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "services/config/compiler.h"
#include "services/config/registry.h"
#include "services/config/snapshot_hash.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

class OneFile final : public FileSource {
 public:
  absl::StatusOr<std::string> Read(const std::string& path) override {
    if (path == "inc.conf") return "";
    if (path == "header") return "X-A: b\n";
    if (path == "domains") return "a.test\n";
    return absl::NotFoundError("cannot open it");
  }
  absl::StatusOr<std::vector<std::string>> Glob(const std::string&, size_t*) override {
    return std::vector<std::string>();
  }
};

struct Row {
  std::string section, name, syntax;
};

std::vector<Row> Rows() {
  std::vector<Row> rows;
  for (const std::vector<std::string>& cells : DirectivesTsv()) {
    for (const auto separator : {", ", " & "}) {
      if (cells[1].find(separator) == std::string::npos) continue;
      for (const auto part : absl::StrSplit(cells[1], separator)) {
        rows.push_back({cells[0], std::string(part), ""});
      }
    }
    if (cells[1].find_first_of(",&") != std::string::npos) continue;
    rows.push_back({cells[0], cells[1].substr(0, cells[1].find(' ')), cells[2]});
  }
  return rows;
}

Scope ScopeOf(const std::string& section) {
  if (section == "Global") return kGlobal;
  const SectionKind* const kind = FindSection(section.substr(1, section.size() - 2));
  EXPECT_NE(kind, nullptr) << section;
  return kind == nullptr ? kGlobal : kind->scope;
}

// Good values, and one that is none; empty where any text will do.
std::pair<std::string, std::string> Values(const Directive& directive) {
  const std::string choice(directive.choices.substr(0, directive.choices.find(',')));
  if (directive.name == "use-proxy") return {"none", "nosuch"};
  if (directive.name == "source-interface") return {"192.0.2.9", "192.0.2.8"};
  if (directive.name == "smtp-proxy-source-host") {
    return {"10/8 10.0.0.1:5000 192.0.2.1 a.test", "10/8 somewhere 192.0.2.1"};
  }
  if (directive.scopes == kProxy && directive.name == "server") return {"192.0.2.1:1080", "a"};
  if (directive.scopes == kProxy && directive.name == "client") return {"192.0.2.1 a.test", "a"};
  if (directive.name == "custom-dsn-from-header" || directive.name == "dsn-failed-from-template") {
    return {"\"Mail <mailer-daemon@${host}>\"", "\"Mail <mailer-daemon>\""};
  }
  if (directive.scopes == kRewriteList) {
    return directive.name == "mail-from"
               ? std::pair<std::string, std::string>("a@b.test c@d.test", "a@b.test nobody")
               : std::pair<std::string, std::string>("b.test d.test", "b.test");
  }
  switch (directive.grammar) {
    case Grammar::kBool:
      return {"yes", "maybe"};
    case Grammar::kCount:
      return {absl::StrCat(std::min<uint64_t>(std::max<uint64_t>(directive.min, 1), directive.max)),
              "five"};
    case Grammar::kDuration:
      return {directive.max < 3'600'000'000 ? "2s" : "1h", "soon"};
    case Grammar::kDurationList:
      return {"10m,30m,1h", "10m,soon"};
    case Grammar::kRate:
      return {"100/10min", "fast"};
    case Grammar::kSize:
      return {"50M", "large"};
    case Grammar::kText:
      return {directive.name == "include"       ? "inc.conf"
              : directive.name == "source-pool" ? "192.0.2.0/30"
                                                : "v",
              directive.name == "source-pool" ? "192.0.2.0/30 192.0.2.8" : ""};
    case Grammar::kChoice:
      return {choice, "no-such-choice"};
    case Grammar::kHostName:
      return {"a.test", "a..b"};
    case Grammar::kIp:
    case Grammar::kIps:
      return {"192.0.2.1", "192.0.2"};
    case Grammar::kIpPorts:
      return {"192.0.2.1:25", "somewhere"};
    case Grammar::kHostPorts:
      return {"a.test:25", "a..b"};
    case Grammar::kDomains:
      return {directive.name == "domain-macro" ? "m a.test,b.test" : "a.test",
              directive.name == "domain-macro" ? "m a..b" : "a..b"};
    case Grammar::kWords:
      return {directive.name == "virtual-mta" ? "v"
              : choice.empty()                ? "word"
                                              : choice,
              choice.empty() ? "" : "no-such-word"};
    case Grammar::kEmail:
    case Grammar::kEmails:
      return {"a@b.test", "nobody"};
    case Grammar::kQueueName:
      return {"a.test/v", "a..b"};
    case Grammar::kTargetName:
      return {"default", "nobody-has-this-name"};
    case Grammar::kSourceHost:
      return {"192.0.2.1 a.test", "somewhere"};
    case Grammar::kVolume:
      return {"10M/2h", "fast"};
    case Grammar::kRateList:
      return {"50/day,100/day", "many"};
    case Grammar::kHeaders:
      return {"From:Subject", "Sch\xc3\xb6n"};
    case Grammar::kFile:
      return {directive.name == "auth-plain"                             ? "inc.conf"
              : directive.name.find("headers") != std::string_view::npos ? "header"
              : directive.name == "precached-domains-file" ||
                      directive.name == "dsn-failed-body-template-from"
                  ? "domains"
                  : "/etc/x",
              "/etc/x /etc/y"};
    case Grammar::kTlsCertificate:
      return {"/etc/x secret", "/etc/x secret more"};
    case Grammar::kUrl:
      return {"https://a.test:8080/x", "a.test"};
    case Grammar::kRegex:
      return {"/^4/", "/(/"};
    case Grammar::kMailOrRegex:
      return {"a@b.test", "nobody"};
    case Grammar::kDomainKey:
      return {"sel,*,/etc/key", "sel"};
    case Grammar::kBoolOrTime:
      return {"4h", "soon"};
    case Grammar::kArguments: {
      std::string words;
      for (uint64_t i = 0; i < directive.min; ++i) absl::StrAppend(&words, i == 0 ? "" : " ", "a");
      return {words, ""};
    }
    case Grammar::kSchedule:
      return {"00:00 to 23:59 for 1d max-msg-rate 100/h", "at night"};
    case Grammar::kGrowth:
      return {"10%/day", "much"};
    case Grammar::kThrottleOn:
      return {"10/h on 421,4xx", "10/h on monday"};
    case Grammar::kIpDomain:
      return {"192.0.2.1 domain = a.test;", "192.0.2.1"};
    case Grammar::kHeaderLines:
      return {"\"X-A: b\"", "\"X A: b\""};
    case Grammar::kReplyText:
      return {"\"a word\"", "\"caf\xc3\xa9\""};
    case Grammar::kHeader:
      return {"X-Campaign", "\"X Campaign\""};
    case Grammar::kSelector:
      return {"2026.mx_1", "-a"};
    case Grammar::kIdentity:
      return {"@a.test", "a@b@c.test"};
    case Grammar::kDomainPatterns:
      return {"[*.]a.test, b.test", "*"};
    case Grammar::kNetworks:
      return {"10/8", "somewhere"};
    case Grammar::kSectionName:
      return {directive.choices == "source" ? "named" : "v", "nobody-has-this-name"};
    case Grammar::kAddressPair:
      return {"a@b.test c@d.test", "a@b.test"};
    case Grammar::kFolderPair:
      return {"/in /bad", "/in"};
    case Grammar::kAddressRule:
      return {"a@b.test", "nobody"};
    case Grammar::kPattern:
      return {directive.name == "header" ? "Subject /x/ virtual-mta=v" : "/x/ virtual-mta=v",
              directive.name == "header" ? "Subject /(/ virtual-mta=v" : "/(/ virtual-mta=v"};
    case Grammar::kPatternLine:
      if (directive.name == "mx") return {"*.mx.test all.rollup", "a..b x"};
      return {directive.name == "/" ? "x/ bad-mailbox" : "/x/ mode=backoff,skip-mx",
              directive.name == "/" ? "(/ bad-mailbox" : "/x/ mode=sleep"};
  }
  return {};
}

// A file with `line` in such a section.
std::string In(Scope scope, const std::string& line) {
  const std::string vmta =
      "<virtual-mta v>\nsmtp-source-host 192.0.2.9 v.test\n</virtual-mta>\n"
      "<source named>\n</source>\nsmtp-listener 192.0.2.9:25 source=named\n"
      "<pattern-list v>\n</pattern-list>\n<source-group v>\n</source-group>\n"
      "<smtp-pattern-list v>\n</smtp-pattern-list>\n<rewrite-list v>\n</rewrite-list>\n";
  if (scope == kGlobal) return vmta + line + "\n";
  for (const SectionKind& kind : AllSections()) {
    if (kind.scope != scope) continue;
    const std::string name(kind.name);
    std::string argument;
    if (kind.argument.starts_with("NETWORK") || kind.argument == "IP:PORT") argument = " 192.0.2.1";
    if (kind.argument == "NAME" || kind.argument == "FOLDER" || kind.argument == "FILE") {
      argument = " x";
    }
    if (kind.argument == "PATTERN") argument = " *";
    if (kind.argument == "NAME=VALUE ...") argument = " source-vmta=v";
    std::string text =
        absl::StrCat("<", name, argument, ">\n", scope == kPool ? "virtual-mta v\n" : "", line,
                     "\n</", name, ">\n");
    if ((kind.parents & kGlobal) != 0) return vmta + text;
    for (const Scope parent : kAllScopes) {
      if ((kind.parents & parent) != 0) return In(parent, text);
    }
  }
  return "";
}

CompileOptions EverythingAccepted() {
  CompileOptions options;
  for (const Directive& directive : AllDirectives()) {
    options.accept_unsupported.emplace(directive.name);
    for (const auto alias : directive.aliases) options.accept_unsupported.emplace(alias);
  }
  for (const SectionKind& kind : AllSections()) options.accept_unsupported.emplace(kind.name);
  return options;
}

Compiled CompileIn(Scope scope, const std::string& line) {
  static const CompileOptions options = EverythingAccepted();
  OneFile files;
  return CompileText("a.conf", In(scope, line), files, options);
}

void ExpectGoodAndBad(Scope scope, const Directive& directive, const std::string& name) {
  std::string key;
  if (directive.key == Key::kNetwork) key = "10/8 ";
  if (directive.key == Key::kHost) key = "*.mx.test ";
  if (directive.key == Key::kWord) key = "word ";
  const std::string space = name == "/" ? "" : " ";
  const auto [good, bad] = Values(directive);
  const std::string line = absl::StrCat(name, space, key, good);
  const Compiled compiled = CompileIn(scope, line);
  EXPECT_TRUE(compiled.ok()) << line << "\n" << Render(compiled.diagnostics);
  if (bad.empty()) return;
  const std::string wrong = absl::StrCat(name, space, key, bad);
  EXPECT_FALSE(CompileIn(scope, wrong).ok()) << ScopeName(scope) << " " << wrong;
}

TEST(DirectivesTsvTest, EveryDirectiveIsReadInItsSectionAndItsValueChecked) {
  size_t rows = 0;
  for (const Row& row : Rows()) {
    ++rows;
    const Scope scope = ScopeOf(row.section);
    if (scope == kPool && row.name == "domain") continue;  // the nested section
    const Directive* const directive = FindDirective(scope, row.name);
    EXPECT_NE(directive, nullptr) << row.section << " " << row.name;
    if (directive != nullptr) ExpectGoodAndBad(scope, *directive, row.name);
  }
  EXPECT_GE(rows, 392u);
}

// "{ unlimited | 0 | N/[M]{d|h} }": unlimited and 0.
std::vector<std::string> WordsOf(const std::string& syntax) {
  std::vector<std::string> words;
  const size_t from = syntax.find_first_of("{(");
  if (from == std::string::npos || from == 0 || syntax[from - 1] != ' ') return words;
  for (const auto part : absl::StrSplit(syntax.substr(from + 1), '|')) {
    std::string word(part);
    std::erase_if(word, [](char c) { return c == ' ' || c == '}'; });
    const bool plain =
        word.size() > 2 &&
        word.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
    if (plain && word != "day" && word != "min" && word != "sec") words.push_back(word);
  }
  return words;
}

TEST(DirectivesTsvTest, EveryWordOfTheManualsSyntaxIsTaken) {
  size_t words = 0;
  for (const Row& row : Rows()) {
    for (const std::string& word : WordsOf(row.syntax)) {
      ++words;
      const Scope scope = ScopeOf(row.section);
      const Directive* const directive = FindDirective(scope, row.name);
      ASSERT_NE(directive, nullptr) << row.name;
      const std::string key = directive->key == Key::kNetwork ? "10/8 " : "";
      const Compiled compiled = CompileIn(scope, absl::StrCat(row.name, " ", key, word));
      EXPECT_TRUE(compiled.ok()) << row.syntax << "\n" << Render(compiled.diagnostics);
    }
  }
  EXPECT_GE(words, 40u);
}

TEST(DirectivesTsvTest, WhatTheManualLacksAndOperatorsUse) {
  for (const auto& [scope, name] :
       std::vector<std::pair<Scope, std::string>>{{kSmtpPatternList, "reply"},
                                                  {kBounceCategories, "/"},
                                                  {kMxRollupList, "mx"},
                                                  {kDomain, "mx-connection-attempts"},
                                                  {kSource, "remove-received-headers"},
                                                  {kGlobal, "sync-msg-create"},
                                                  {kGlobal, "sync-msg-update"},
                                                  {kDomain, "dk-sign"},
                                                  {kVirtualMta, "auto-cold-virtual-mta"}}) {
    const Directive* const directive = FindDirective(scope, name);
    ASSERT_NE(directive, nullptr) << name;
    ExpectGoodAndBad(scope, *directive, name);
  }
}

// Also of those that are only ours or the seeds'.
TEST(DirectivesTsvTest, EveryDeclarationChecksItsValue) {
  for (const Directive& directive : AllDirectives()) {
    for (const Scope scope : kAllScopes) {
      if ((directive.scopes & scope) == 0) continue;
      // Only where the domain is a virtual MTA's.
      if (directive.name == "source-interface" && scope == kDomain) continue;
      ExpectGoodAndBad(scope, directive, std::string(directive.name));
    }
  }
}

// What a directive that says it is effective makes of a value, whatever it makes of it, is in the
// snapshot: each of its words too.
TEST(DirectivesTsvTest, EveryEffectiveValueReachesTheSnapshot) {
  // They say something of other lines.
  const std::set<std::string_view> without_trace = {"include", "domain-macro", "protocol-version",
                                                    "proxy-protocol", "use-proxy"};
  size_t values = 0;
  for (const Directive& directive : AllDirectives()) {
    if (directive.status != Status::kActive || without_trace.contains(directive.name)) continue;
    std::vector<std::string> written = {Values(directive).first};
    for (const std::string& word : SplitList(directive.choices)) {
      const bool kind = directive.grammar == Grammar::kSectionName;
      if (!kind && word != directive.unsupported_choice) written.push_back(word);
    }
    if (directive.unlimited) {
      written.emplace_back(directive.grammar == Grammar::kDuration ? "never" : "unlimited");
    }
    for (const Scope scope : kAllScopes) {
      if ((directive.scopes & scope) == 0) continue;
      if (directive.name == "source-interface" && scope == kDomain) continue;
      if (directive.name == "virtual-mta" && scope == kPool) continue;  // it has one already
      // Their sections are of no use to anybody here.
      if (scope == kProxy || scope == kSourcePool) continue;
      const uint64_t before = SectionsHash(CompileIn(scope, "").snapshot);
      for (const std::string& value : written) {
        const std::string line =
            absl::StrCat(std::string(directive.name), directive.name == "/" ? "" : " ",
                         directive.key == Key::kNetwork ? "10/8 "
                         : directive.key == Key::kHost  ? "*.mx.test "
                                                        : "",
                         value);
        const Compiled compiled = CompileIn(scope, line);
        EXPECT_NE(SectionsHash(compiled.snapshot), before)
            << ScopeName(scope) << " " << line << "\n"
            << Render(compiled.diagnostics);
        ++values;
      }
    }
  }
  EXPECT_GE(values, 600u);
}

// A name alone says nothing, and is not taken in silence.
TEST(DirectivesTsvTest, EveryDeclarationNeedsAValue) {
  for (const Directive& directive : AllDirectives()) {
    for (const Scope scope : kAllScopes) {
      if ((directive.scopes & scope) == 0) continue;
      EXPECT_FALSE(CompileIn(scope, std::string(directive.name)).ok())
          << directive.name << " in " << ScopeName(scope);
    }
  }
}

TEST(DirectivesTsvTest, FewAreWithoutAMeaningHere) {
  std::set<std::string_view> names;
  for (const Directive& directive : AllDirectives()) {
    if (directive.status != Status::kNoEffect && directive.status != Status::kUnsupported) continue;
    names.insert(directive.name);
    EXPECT_TRUE(!directive.reason.empty() || directive.help.starts_with("Nothing: "))
        << directive.name << " needs its reason";
  }
  EXPECT_LE(names.size(), 40u);
}

}  // namespace
}  // namespace sluice::config
