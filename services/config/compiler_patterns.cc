#include "services/config/compiler_patterns.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/config/regex.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

constexpr int kMaxRules = 10'000;
constexpr std::string_view kCategories[] = {"bad-configuration",   "bad-connection",
                                            "bad-domain",          "bad-mailbox",
                                            "content-related",     "inactive-mailbox",
                                            "invalid-sender",      "message-expired",
                                            "no-answer-from-host", "other",
                                            "policy-related",      "protocol-errors",
                                            "quota-issues",        "relaying-issues",
                                            "routing-errors",      "spam-related",
                                            "virus-related"};

struct Regex {
  std::string expression;
  std::optional<LineError> warning;
};

// The regex that stands at `argument`; bare where it is not between slashes.
absl::StatusOr<Regex> ReadRegex(const Statement& statement, size_t argument) {
  const Token& token = statement.arguments[argument];
  std::string literal = token.text;
  if (!literal.starts_with('/') || (!token.regex && literal.size() < 2)) {
    literal = absl::StrCat("/", absl::StrReplaceAll(token.text, {{"/", "\\/"}}), "/");
  }
  std::string_view rest = literal;
  bool needs_pcre = false;
  auto expression = ConsumeRegex(rest, &needs_pcre);
  if (!expression.ok()) return expression.status();
  Regex regex{*std::move(expression), std::nullopt};
  if (!rest.empty()) return absl::InvalidArgumentError("the regular expression has no end");
  if (needs_pcre) regex.warning = LineError{kPcreWarning, argument, true};
  if (auto doubt = DoubtAbout(regex.expression)) {
    regex.warning = LineError{*std::move(doubt), argument, true};
  }
  return regex;
}

// After a line that matches everything, none is looked at.
template <class Rules>
bool Unreachable(const Rules& rules) {
  return std::any_of(rules.begin(), rules.end(),
                     [](const auto& rule) { return MatchesEverything(rule.regex()); });
}

// Of lines with replies all that match count; of two that contradict each other the first. So a
// line does nothing where what it says was said for every reply.
bool DoesNothing(const std::vector<policy::v1::ReplyRule>& every_reply,
                 const policy::v1::ReplyRule& rule) {
  const auto queue = [](const auto& r) { return r.bounce_queue() || r.defer_queue(); };
  const auto recipient = [](const auto& r) { return r.bounce_rcpt() || r.skip_mx(); };
  policy::v1::ReplyRule left = rule;
  for (const policy::v1::ReplyRule& earlier : every_reply) {
    if (!earlier.mode().empty()) left.clear_mode();
    if (queue(earlier)) {
      left.clear_bounce_queue();
      left.clear_defer_queue();
    }
    if (recipient(earlier)) {
      left.clear_bounce_rcpt();
      left.clear_skip_mx();
    }
    if (earlier.disable_source_ip()) left.clear_disable_source_ip();
    if (!earlier.bounce_category().empty()) left.clear_bounce_category();
  }
  return !every_reply.empty() && left.mode().empty() && !queue(left) && !recipient(left) &&
         !left.disable_source_ip() && left.bounce_category().empty();
}

LineError NeverReached(const Statement& statement) {
  return {"this line does nothing: one before it matches everything", statement.arguments.size(),
          true};
}

bool IsCategory(std::string_view text) {
  return !text.empty() && text.size() <= 100 && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
  });
}

std::optional<int64_t> TimeOf(std::string_view value) {
  if (value == "never") return 0;
  return ParseDurationUs(value);
}

// One action of a reply line; what is wrong with it.
std::optional<std::string> AddAction(const std::string& action, policy::v1::ReplyRule* rule) {
  const size_t equals = action.find('=');
  const std::string name = absl::AsciiStrToLower(action.substr(0, equals));
  const std::string value =
      equals == action.npos ? "" : absl::AsciiStrToLower(action.substr(equals + 1));
  if (name == "mode") {
    if (value != "backoff" && value != "normal") return "mode is backoff or normal";
    rule->set_mode(value);
    return std::nullopt;
  }
  if (name == "backoff-to-normal-after" || name == "reenable-after") {
    const auto us = TimeOf(value);
    if (!us) return absl::StrCat("\"", value, "\" is no TIME (10m, 1h30m, never)");
    name == "reenable-after" ? rule->set_reenable_after_us(*us)
                             : rule->set_backoff_to_normal_after_us(*us);
    return std::nullopt;
  }
  if (name == "category") {
    if (!IsCategory(value)) return absl::StrCat("\"", value, "\" is no category of bounces");
    rule->set_bounce_category(value);
    return std::nullopt;
  }
  const auto on = value.empty() ? std::optional(true) : ParseBool(value);
  if (!on) return absl::StrCat("\"", value, "\" is neither yes nor no");
  if (name == "skip-mx") {
    rule->set_skip_mx(*on);
  } else if (name == "bounce-queue") {
    rule->set_bounce_queue(*on);
  } else if (name == "bounce-rcpt") {
    rule->set_bounce_rcpt(*on);
  } else if (name == "disable-source-ip") {
    rule->set_disable_source_ip(*on);
  } else if (name == "defer-queue") {
    rule->set_defer_queue(*on);
  } else {
    const auto closest = ClosestName(
        name, {"mode", "backoff-to-normal-after", "skip-mx", "bounce-queue", "bounce-rcpt",
               "disable-source-ip", "reenable-after", "defer-queue", "category"});
    return absl::StrCat("\"", name, "\" is no action",
                        closest ? absl::StrCat("; did you mean \"", *closest, "\"?") : "");
  }
  return std::nullopt;
}

}  // namespace

std::optional<LineError> AddReplyRule(const Statement& statement,
                                      policy::v1::SmtpPatternListSection* list,
                                      std::vector<policy::v1::ReplyRule>* every_reply) {
  const size_t line = statement.arguments.size();
  if (line < 2 || !statement.arguments[0].regex) {
    return LineError{"it is written reply /REGEX/ ACTION [ACTION ...]", line};
  }
  const auto regex = ReadRegex(statement, 0);
  if (!regex.ok()) return LineError{std::string(regex.status().message()), 0};
  policy::v1::ReplyRule rule;
  rule.set_regex(regex->expression);
  for (size_t i = 1; i < line; ++i) {
    for (const std::string& action : SplitList(statement.arguments[i].text)) {
      if (auto error = AddAction(action, &rule)) return LineError{*std::move(error), i};
    }
  }
  if (list->rules_size() >= kMaxRules) return LineError{"a list has at most 10000 lines", line};
  const bool unreachable = DoesNothing(*every_reply, rule);
  // One that does nothing leaves to the next what those before it leave.
  if (!unreachable && MatchesEverything(rule.regex())) every_reply->push_back(rule);
  *list->add_rules() = std::move(rule);
  if (unreachable) return NeverReached(statement);
  return regex->warning;
}

std::optional<LineError> AddBounceCategory(const Statement& statement,
                                           policy::v1::BounceCategorySection* section) {
  const size_t line = statement.arguments.size();
  if (line != 2) return LineError{"it is written /REGEX/ CATEGORY", line};
  const auto regex = ReadRegex(statement, 0);
  if (!regex.ok()) return LineError{std::string(regex.status().message()), 0};
  const std::string category = absl::AsciiStrToLower(statement.arguments[1].text);
  if (!IsCategory(category)) {
    return LineError{"a category is written in letters, digits, \"-\", \"_\" and \".\"", 1};
  }
  if (section->rules_size() >= kMaxRules) return LineError{"a list has at most 10000 lines", line};
  const bool unreachable = Unreachable(section->rules());
  auto* const rule = section->add_rules();
  rule->set_regex(regex->expression);
  rule->set_category(category);
  if (unreachable) return NeverReached(statement);
  if (regex->warning) return regex->warning;
  const std::vector<std::string_view> known(std::begin(kCategories), std::end(kCategories));
  const auto closest = ClosestName(category, known);
  if (closest && *closest != category) {
    return LineError{absl::StrCat("\"", category, "\" is a category of your own; \"", *closest,
                                  "\" may be meant"),
                     1, true};
  }
  return std::nullopt;
}

std::optional<LineError> AddMxRollup(const Statement& statement,
                                     policy::v1::MxRollupSection* section) {
  if (statement.arguments.size() != 2) {
    return LineError{"it is written mx MX-PATTERN QUEUE-NAME", statement.arguments.size()};
  }
  const auto pattern = ParseDomainPattern(statement.arguments[0].text);
  if (!pattern) return LineError{"this is no host; mx.example.com, *.example.com are", 0};
  const auto queue = ParseHostName(statement.arguments[1].text);
  if (!queue) return LineError{"this is no name of a queue, such as example.rollup", 1};
  if (section->entries_size() >= kMaxRules) return LineError{"at most 10000 lines", 0};
  const bool unreachable =
      std::any_of(section->entries().begin(), section->entries().end(),
                  [&](const auto& e) { return e.mx() == "*" || e.mx() == *pattern; });
  auto* const entry = section->add_entries();
  entry->set_mx(*pattern);
  entry->set_queue(*queue);
  if (unreachable) {
    return LineError{"this line does nothing: one before it matches the same hosts", 0, true};
  }
  return std::nullopt;
}

std::optional<LineError> AddPenaltyLine(const Directive& directive, const Statement& statement,
                                        const std::vector<policy::v1::Penalty*>& penalties) {
  if (directive.name == "pattern") {
    const auto error = CheckRegex(statement);
    if (error && !error->warning) return error;
    for (policy::v1::Penalty* const penalty : penalties) {
      if (penalty->patterns_size() >= kMaxRules) return LineError{"at most 10000 lines", 0};
      penalty->add_patterns(statement.arguments[0].text);
    }
    return error;
  }
  const auto us =
      statement.arguments.size() == 1 ? ParseDurationUs(statement.arguments[0].text) : std::nullopt;
  constexpr int64_t kMostUs = int64_t{366} * 86'400 * 1'000'000;
  if (!us || *us < 1'000'000 || *us > kMostUs) {
    return LineError{absl::StrCat(std::string(directive.name), " is a TIME of a second or more"),
                     0};
  }
  for (policy::v1::Penalty* const penalty : penalties) {
    directive.name == "max-pts" ? penalty->set_max_us(*us) : penalty->set_initial_us(*us);
  }
  return std::nullopt;
}

std::optional<LineError> CheckRegex(const Statement& statement) {
  if (statement.arguments.size() != 1) {
    return LineError{"one regular expression is needed, /.../", statement.arguments.size()};
  }
  const auto regex = ReadRegex(statement, 0);
  if (!regex.ok()) return LineError{std::string(regex.status().message()), 0};
  return regex->warning;
}

}  // namespace sluice::config
