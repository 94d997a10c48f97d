#include "services/config/compiler_ingress.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/config/compiler_patterns.h"
#include "services/config/regex.h"
#include "services/config/setter.h"
#include "services/config/text_grammar.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxNameBytes = 200;
constexpr size_t kMaxRules = 10'000;
constexpr size_t kMaxListeners = 1'000;

LineError Wrong(const Statement& statement, size_t argument) {
  const Directive* directive = nullptr;
  for (const Scope scope : kAllScopes) {
    if (directive == nullptr) directive = FindDirective(scope, statement.name);
  }
  return {directive == nullptr ? "is not understood" : SyntaxMessage(*directive), argument};
}

std::string Lower(std::string_view text) {
  return absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
}

// "a@b" in lower case, with `bare` also "a" alone.
std::optional<std::string> ParseAddress(std::string_view text, bool bare) {
  if (bare && IsLocalPart(text)) return Lower(text);
  const auto address = ParseEmail(text);
  return address ? std::optional(Lower(*address)) : std::nullopt;
}

}  // namespace

std::optional<std::string> ParseSourceName(std::string_view text) {
  std::string_view name = text;
  if (name.starts_with('{')) {
    if (!name.ends_with('}') || name.size() < 3) return std::nullopt;
    name = name.substr(1, name.size() - 2);
  } else if (name.empty() || !absl::ascii_isalpha(static_cast<unsigned char>(name[0]))) {
    return std::nullopt;
  }
  const bool good =
      name.size() <= kMaxNameBytes && std::all_of(name.begin(), name.end(), [](char c) {
        return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' ||
               c == '.' || c == '@';
      });
  if (!good) return std::nullopt;
  return Lower(text);
}

namespace {

// NETWORK:PORT, as "0/0:25", "[::/0]:25" and "::/0:25": every address of that family. One of
// another length cannot be listened on, but for that of a whole address.
std::string WithoutLength(std::string_view text) {
  const size_t slash = text.find('/');
  const size_t colon = text.rfind(':');
  if (slash == text.npos || colon == text.npos || colon < slash) return std::string(text);
  std::string network(text.substr(0, colon));
  std::erase_if(network, [](char c) { return c == '[' || c == ']'; });
  const auto parsed = ParseNetwork(network);
  if (!parsed) return std::string(text);
  const bool v6 = parsed->find(':') != parsed->npos;
  const std::string ip = parsed->substr(0, parsed->find('/'));
  if (!parsed->ends_with("/0") && !parsed->ends_with(v6 ? "/128" : "/32")) return std::string(text);
  return absl::StrCat(v6 ? "[" : "", ip, v6 ? "]" : "", std::string(text.substr(colon)));
}

}  // namespace

ListenerDraft* EnterListener(std::string_view address, const Location& where, Draft* draft) {
  const auto parsed = ParseIpPort(WithoutLength(address), 25);
  if (!parsed) return nullptr;
  if (draft->listeners.size() >= kMaxListeners && !draft->listeners.contains(*parsed)) {
    return nullptr;
  }
  ListenerDraft& listener = draft->listeners[*parsed];
  listener.where = where;
  auto* const values = draft->global.mutable_settings()->mutable_smtp_listeners()->mutable_values();
  if (std::find(values->begin(), values->end(), *parsed) == values->end())
    values->Add()->assign(*parsed);
  return &listener;
}

std::optional<LineError> AddListenerLine(const Statement& statement, Draft* draft) {
  if (statement.arguments.empty()) return Wrong(statement, 0);
  ListenerDraft* listener = nullptr;
  for (size_t i = 0; i < statement.arguments.size(); ++i) {
    const std::string& text = statement.arguments[i].text;
    if (!text.starts_with("source=")) {
      listener = EnterListener(text, statement.where, draft);
      if (listener == nullptr && text.find('/') != text.npos &&
          ParseNetwork(text.substr(0, text.rfind(':')))) {
        return LineError{"every address, as in 0/0:25, or one can be listened on, not a network",
                         i};
      }
      if (listener == nullptr) return Wrong(statement, i);
      continue;
    }
    const std::string name = text.substr(7);
    if (listener == nullptr || !ParseSourceName(name)) return Wrong(statement, i);
    listener->settings.set_source(name);
    draft->section_uses.push_back({"source", name, statement.At(statement.arguments[i])});
  }
  return std::nullopt;
}

std::optional<LineError> AddPatternRule(const Statement& statement, Draft* draft,
                                        policy::v1::PatternListSection* list) {
  using Rule = policy::v1::PatternRule;
  const size_t line = statement.arguments.size();
  Rule rule;
  std::string_view rest = statement.rest;
  const auto skip_blanks = [&rest] {
    while (!rest.empty() && (rest.front() == ' ' || rest.front() == '\t')) rest.remove_prefix(1);
  };
  skip_blanks();
  if (statement.name == "header") {
    const size_t end = std::min(rest.find_first_of(" \t"), rest.size());
    rule.set_subject(Rule::SUBJECT_HEADER);
    std::string_view name = rest.substr(0, end);
    if (name.ends_with(':')) name.remove_suffix(1);
    // With a slash it is the regex, and the name was forgotten.
    if (!ParseHeaderName(name) || name.find('/') != name.npos) return Wrong(statement, 0);
    rule.set_header(std::string(name));
    rest.remove_prefix(end);
    skip_blanks();
  } else {
    rule.set_subject(statement.name == "mail-from" ? Rule::SUBJECT_MAIL_FROM
                                                   : Rule::SUBJECT_RCPT_TO);
  }
  bool needs_pcre = false;
  auto regex = ConsumeRegex(rest, &needs_pcre);
  if (!regex.ok()) return LineError{std::string(regex.status().message()), line};
  rule.set_regex(*std::move(regex));
  skip_blanks();
  while (rest.ends_with(' ') || rest.ends_with('\t') || rest.ends_with(';')) rest.remove_suffix(1);
  constexpr std::string_view kResult = "virtual-mta=";
  const std::string name = Lower(rest.substr(0, kResult.size())) == kResult
                               ? std::string(rest.substr(kResult.size()))
                               : "";
  if (name.empty() || name.find_first_of(" \t,\"") != name.npos) return Wrong(statement, line);
  rule.set_virtual_mta(PlainTargetName(name));
  if (list->rules_size() >= static_cast<int>(kMaxRules)) {
    return LineError{"a pattern-list has at most 10000 lines", line};
  }
  draft->references.emplace_back(rule.virtual_mta(), statement.where);
  const bool reached = !draft->full_lists.contains(list);
  // Every message has a sender and a recipient, and not every one a header field.
  if (rule.subject() != Rule::SUBJECT_HEADER && MatchesEverything(rule.regex())) {
    draft->full_lists.insert(list);
  }
  *list->add_rules() = std::move(rule);
  if (needs_pcre) return LineError{kPcreWarning, line, true};
  if (!reached) {
    return LineError{"this line does nothing: one before it matches everything", line, true};
  }
  return std::nullopt;
}

std::optional<LineError> AddAlias(const Statement& statement, Draft* draft) {
  if (statement.arguments.size() != 2) return Wrong(statement, 0);
  const auto source = ParseAddress(statement.arguments[0].text, true);
  if (!source) return Wrong(statement, 0);
  // The target's local part may depend on case, so it stays as written.
  if (!ParseAddress(statement.arguments[1].text, true)) return Wrong(statement, 1);
  policy::v1::Alias alias;
  alias.set_source(*source);
  alias.set_target(statement.arguments[1].text);
  auto* const aliases = draft->global.mutable_settings()->mutable_aliases();
  const auto [place, is_new] = draft->alias_places.emplace(*source, aliases->size());
  (is_new ? *aliases->Add() : (*aliases)[place->second]) = std::move(alias);
  return std::nullopt;
}

std::optional<LineError> AddRelayAddress(const Statement& statement, Draft* draft) {
  if (statement.arguments.empty()) return Wrong(statement, 0);
  auto* const values =
      draft->global.mutable_settings()->mutable_relay_addresses()->mutable_values();
  std::string_view rest = statement.rest;
  while (rest.starts_with(' ') || rest.starts_with('\t')) rest.remove_prefix(1);
  if (rest.starts_with('/')) {
    bool needs_pcre = false;
    auto regex = ConsumeRegex(rest, &needs_pcre);
    if (!regex.ok()) {
      return LineError{std::string(regex.status().message()), statement.arguments.size()};
    }
    // A slash in front tells it from an address.
    values->Add(absl::StrCat("/", *regex));
    if (needs_pcre) return LineError{kPcreWarning, statement.arguments.size(), true};
    return std::nullopt;
  }
  for (size_t i = 0; i < statement.arguments.size(); ++i) {
    for (const std::string& item : SplitList(statement.arguments[i].text)) {
      auto address = ParseAddress(item, false);
      if (!address) return Wrong(statement, i);
      values->Add(*std::move(address));
    }
  }
  return std::nullopt;
}

std::optional<LineError> AddPickup(const Statement& statement, Draft* draft) {
  if (statement.arguments.size() != 2) return Wrong(statement, 0);
  for (size_t i = 0; i < 2; ++i) {
    const std::string& text = statement.arguments[i].text;
    if (text.empty() || HasControls(text)) return Wrong(statement, i);
  }
  if (statement.arguments[0].text == statement.arguments[1].text) {
    return LineError{"the folder for bad files is another one", 1};
  }
  for (auto& pickup : *draft->global.mutable_settings()->mutable_pickups()) {
    if (pickup.folder() != statement.arguments[0].text) continue;
    pickup.set_bad_folder(statement.arguments[1].text);  // the later line wins
    return std::nullopt;
  }
  auto* const pickup = draft->global.mutable_settings()->add_pickups();
  pickup->set_folder(statement.arguments[0].text);
  pickup->set_bad_folder(statement.arguments[1].text);
  return std::nullopt;
}

}  // namespace sluice::config
