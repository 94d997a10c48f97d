// What holds where no file says anything is what PowerMTA's manual says (testdata/directives.tsv),
// save for the differences below, each with its reason.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "services/config/directives_tsv.h"
#include "services/config/registry.h"

namespace sluice::config {
namespace {

struct Difference {
  std::string ours;
  std::string reason;
};

constexpr char kSlots[] = "a limit of a licence; ours bounds memory";
constexpr char kBeside[] = "the setting of normal mode holds beside it, which is the same";
constexpr char kCiphers[] = "empty is OpenSSL's HIGH without anonymous ciphers (HIGH:!aNULL)";
constexpr char kSuites[] = "empty is OpenSSL's own list, which begins with the same three";
constexpr char kGlobalOne[] = "what holds for every listener, and its default is the same";

// By section and name.
const std::map<std::string, Difference>& Differences() {
  static const auto* const all = new std::map<std::string, Difference>{
      {"Global total-max-smtp-in", {"10000", kSlots}},
      {"Global total-max-smtp-out", {"10000", kSlots}},
      {"Global smtp-server-tls-ciphers", {"", kCiphers}},
      {"Global smtp-server-tls-v1.3-ciphersuites", {"", kSuites}},
      {"Global max-memory-usage-percent",
       {"100",
        "what the services hold is bounded in bytes; of the machine's memory the rest is "
        "other programs' matter"}},
      {"Global edns-udp-length",
       {"1232", "answers over 512 bytes are common; this size fits one fragment everywhere"}},
      {"Global relay-domain", {"", "a domain of this host's is one whose type is file or pipe"}},
      {"<source> dsn-return-default", {"headers", "what system means"}},
      {"<source> max-rcpt-per-message",
       {"50000", "a message's recipients are held in memory until its end"}},
      {"<source-group> reserved-smtp-in", {"0", "what cannot be meant: all would be reserved"}},
      {"<domain> backoff-max-msg-rate", {"unlimited", kBeside}},
      {"<domain> backoff-max-connect-rate", {"unlimited", kBeside}},
      {"<domain> backoff-max-data-volume-rate", {"unlimited", kBeside}},
      {"<domain> max-rcpt-per-message",
       {"1000", "another name of max-rcpt-per-transaction; so says the operators' guide"}},
      {"<domain> connection-idle-timeout",
       {"5s", "mail that comes in meanwhile leaves with its own commit on the warm connection"}},
      {"<domain> smtp-tls-ciphers", {"", kCiphers}},
      {"<domain> smtp-tls-tlsv1.3-ciphersuites", {"", kSuites}},
      {"<smtp-listener> tls-ciphers", {"", kCiphers}},
      {"<smtp-listener> tls-tlsv1.3-ciphersuites", {"", kSuites}},
      {"<smtp-listener> tls-allow-tlsv1", {"smtp-server-tls-allow-tlsv1", kGlobalOne}},
      {"<smtp-listener> tls-allow-tlsv1.1", {"smtp-server-tls-allow-tlsv1.1", kGlobalOne}},
      {"<smtp-listener> tls-allow-tlsv1.2", {"smtp-server-tls-allow-tlsv1.2", kGlobalOne}},
      {"<smtp-listener> tls-allow-tlsv1.3", {"smtp-server-tls-allow-tlsv1.3", kGlobalOne}},
  };
  return *all;
}

struct Row {
  std::string section, name, value;
};

std::vector<Row> RowsWithDefault() {
  std::vector<Row> rows;
  for (const std::vector<std::string>& cells : DirectivesTsv()) {
    if (cells[3].empty()) continue;
    const std::string names = absl::StrReplaceAll(cells[1], {{" & ", ", "}});
    for (const auto part : absl::StrSplit(names, ", ")) {
      const std::vector<std::string> words = absl::StrSplit(part, ' ');
      rows.push_back({cells[0], words[0], cells[3]});
    }
  }
  return rows;
}

// The words of one value: true is yes, and where 0 is no limit, it is unlimited.
std::string Plain(const Directive& directive, std::string value) {
  absl::AsciiStrToLower(&value);
  std::erase(value, '"');
  if (value == "true") return "yes";
  if (value == "false" || (value == "0" && directive.grammar == Grammar::kBoolOrTime)) return "no";
  if (directive.unlimited && value == absl::StrCat(*directive.unlimited)) return "unlimited";
  if (value == "0" && directive.grammar == Grammar::kDuration) return "0s";
  return value;
}

TEST(DefaultsTsvTest, WhatNobodySaysIsWhatTheManualSays) {
  size_t same = 0;
  std::map<std::string, Difference> left = Differences();
  for (const Row& row : RowsWithDefault()) {
    const Scope scope = row.section == "Global"
                            ? kGlobal
                            : FindSection(row.section.substr(1, row.section.size() - 2))->scope;
    const Directive* const directive = FindDirective(scope, row.name);
    ASSERT_NE(directive, nullptr) << row.name;
    // What has no effect has no default that anybody could see.
    if (directive->status != Status::kActive) continue;
    const std::string ours = DefaultOf(*directive);
    const std::string key = absl::StrCat(row.section, " ", row.name);
    const auto difference = Differences().find(key);
    if (difference != Differences().end()) {
      EXPECT_EQ(ours, difference->second.ours) << key;
      EXPECT_NE(Plain(*directive, ours), Plain(*directive, row.value))
          << key << " is no difference";
      left.erase(key);
      continue;
    }
    EXPECT_EQ(Plain(*directive, ours), Plain(*directive, row.value)) << key;
    ++same;
  }
  EXPECT_GE(same, 120u);
  for (const auto& [key, difference] : left) ADD_FAILURE() << key << " is no row of the manual";
}

// The reference page says of every directive that takes one word of yes and no, or a bounded
// number, what holds without it.
TEST(DefaultsTsvTest, EveryEffectiveSwitchHasADefault) {
  for (const Directive& directive : AllDirectives()) {
    if (directive.status != Status::kActive || directive.grammar != Grammar::kBool) continue;
    EXPECT_FALSE(DefaultOf(directive).empty()) << directive.name;
  }
}

}  // namespace
}  // namespace sluice::config
