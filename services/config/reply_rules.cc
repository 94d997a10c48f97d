#include "services/config/reply_rules.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/config/regex.h"

namespace sluice::config {
namespace {

using Mode = ReplyActions::Mode;

constexpr int64_t kPenaltyUs = int64_t{60} * 1'000'000;
constexpr int64_t kPenaltyMostUs = int64_t{3600} * 1'000'000;

ReplyActions ActionsOf(const policy::v1::ReplyRule& rule) {
  ReplyActions actions;
  if (rule.mode() == "backoff") actions.mode = Mode::kBackoff;
  if (rule.mode() == "normal") actions.mode = Mode::kNormal;
  actions.backoff_to_normal_after_us = rule.backoff_to_normal_after_us();
  actions.bounce_queue = rule.bounce_queue();
  actions.defer_queue = rule.defer_queue() && !rule.bounce_queue();
  actions.bounce_recipient = rule.bounce_rcpt();
  actions.skip_mx = rule.skip_mx() && !rule.bounce_rcpt();
  actions.disable_source = rule.disable_source_ip();
  actions.reenable_after_us = rule.reenable_after_us();
  actions.bounce_category = rule.bounce_category();
  return actions;
}

// For people. Expressions may be long.
std::string NameOf(std::string_view regex, std::string_view where) {
  constexpr size_t kMostBytes = 120;
  std::string name(regex.substr(0, kMostBytes));
  if (regex.size() > kMostBytes) name.append("...");
  return name.append(" of ").append(where);
}

// Of a directive's value, where the compiler keeps it as it is written.
std::optional<RegexMatcher> MatcherOf(const std::string& written) {
  const std::string literal =
      written.size() > 1 && written.starts_with('/')
          ? written
          : absl::StrCat("/", absl::StrReplaceAll(written, {{"/", "\\/"}}), "/");
  std::string_view rest = literal;
  bool needs_pcre = false;
  const auto expression = ConsumeRegex(rest, &needs_pcre);
  if (!expression.ok()) return std::nullopt;
  auto matcher = RegexMatcher::Compile(*expression);
  if (!matcher.ok()) return std::nullopt;
  return *std::move(matcher);
}

}  // namespace

ReplyRules::ReplyRules(const policy::v1::SmtpPatternListSection* list,
                       const policy::v1::StringList& backoff_patterns,
                       const policy::v1::Penalties& penalties) {
  if (list != nullptr) {
    for (const policy::v1::ReplyRule& rule : list->rules()) {
      auto matcher = RegexMatcher::Compile(rule.regex());
      if (!matcher.ok()) continue;
      rules_.push_back({*std::move(matcher), ActionsOf(rule)});
      ReplyActions& actions = rules_.back().actions;
      actions.mode_rule = actions.source_rule = NameOf(rule.regex(), list->name());
      may_end_backoff_ |= rules_.back().actions.mode == Mode::kNormal;
    }
  }
  for (const std::string& written : backoff_patterns.values()) {
    auto matcher = MatcherOf(written);
    if (!matcher) continue;
    ReplyActions actions;
    actions.mode = Mode::kBackoff;
    actions.mode_rule = NameOf(written, "backoff-trigger-pattern");
    rules_.push_back({*std::move(matcher), actions});
  }
  for (const policy::v1::Penalty& penalty : penalties.entries()) {
    ReplyActions actions;
    actions.defer_queue = true;
    actions.penalty_us = penalty.initial_us() > 0 ? penalty.initial_us() : kPenaltyUs;
    actions.penalty_most_us = penalty.max_us() > 0 ? penalty.max_us() : kPenaltyMostUs;
    for (const std::string& written : penalty.patterns()) {
      if (auto matcher = MatcherOf(written)) rules_.push_back({*std::move(matcher), actions});
    }
  }
}

void ReplyActions::Add(const ReplyActions& other) {
  if (mode == Mode::kAsItIs && other.mode != Mode::kAsItIs) {
    mode = other.mode;
    backoff_to_normal_after_us = other.backoff_to_normal_after_us;
    mode_rule = other.mode_rule;
  }
  // The fate of the queue, and that of the recipient: one each.
  if (!bounce_queue && !defer_queue) {
    bounce_queue = other.bounce_queue;
    defer_queue = other.defer_queue;
    penalty_us = other.penalty_us;
    penalty_most_us = other.penalty_most_us;
  }
  if (!bounce_recipient && !skip_mx) {
    bounce_recipient = other.bounce_recipient;
    skip_mx = other.skip_mx;
  }
  if (!disable_source && other.disable_source) {
    disable_source = true;
    reenable_after_us = other.reenable_after_us;
    source_rule = other.source_rule;
  }
  if (bounce_category.empty()) bounce_category = other.bounce_category;
}

ReplyActions ReplyRules::Match(std::string_view reply) const {
  ReplyActions all;
  for (const Rule& rule : rules_) {
    if (rule.regex.Matches(reply)) all.Add(rule.actions);
  }
  return all;
}

std::string ReplyLine(uint32_t code, std::string_view enhanced, std::string_view text) {
  std::string line = absl::StrCat(code);
  for (std::string_view part : {enhanced, text}) {
    if (part.empty()) continue;
    line.push_back(' ');
    line.append(part);
  }
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

}  // namespace sluice::config
