#include "services/config/regex.h"

#include "absl/strings/str_cat.h"
#include "services/config/regex_matcher.h"

namespace sluice::config {
namespace {

// A longer one is a mistake, or wants to cost time.
constexpr size_t kMaxRegexBytes = 4096;

}  // namespace

absl::StatusOr<std::string> ConsumeRegex(std::string_view& text, bool* needs_pcre) {
  if (!text.starts_with('/')) {
    return absl::InvalidArgumentError("a regular expression is written /.../");
  }
  std::string expression;
  size_t at = 1;
  while (at < text.size() && text[at] != '/') {
    if (text[at] == '\\' && at + 1 < text.size()) {
      // "\/" is how a slash is written; all else is the expression's own.
      if (text[at + 1] != '/') expression += '\\';
      ++at;
    }
    expression += text[at++];
  }
  if (at >= text.size()) return absl::InvalidArgumentError("the regular expression has no end");
  if (expression.size() > kMaxRegexBytes) {
    return absl::InvalidArgumentError("the regular expression is longer than 4096 bytes");
  }
  bool ignore_case = true;
  std::string flags;
  for (++at; at < text.size() && text[at] != ' ' && text[at] != '\t'; ++at) {
    switch (text[at]) {
      case 'i':
        ignore_case = true;
        break;
      case 'I':
        ignore_case = false;
        break;
      case 's':
      case 'm':
        flags += text[at];
        break;
      default:
        return absl::InvalidArgumentError(
            absl::StrCat("the flag \"", std::string(1, text[at]), "\" is not one of i, I, s, m"));
    }
  }
  if (ignore_case) flags += 'i';
  text.remove_prefix(at);
  const std::string whole = flags.empty() ? expression : absl::StrCat("(?", flags, ")", expression);
  const auto compiled = RegexMatcher::Compile(whole);
  if (!compiled.ok() || (needs_pcre == nullptr && compiled->uses_pcre())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the regular expression cannot be used: ",
                     compiled.ok() ? "RE2 has no back references and no look-around"
                                   : std::string(compiled.status().message())));
  }
  if (needs_pcre != nullptr) *needs_pcre = compiled->uses_pcre();
  return whole;
}

namespace {

std::string_view WithoutFlags(std::string_view expression) {
  if (!expression.starts_with("(?")) return expression;
  const size_t end = expression.find(')');
  const std::string_view flags = expression.substr(2, end == expression.npos ? 0 : end - 2);
  return flags.find_first_not_of("ims") == flags.npos && !flags.empty() ? expression.substr(end + 1)
                                                                        : expression;
}

}  // namespace

std::optional<std::string> DoubtAbout(std::string_view expression) {
  const std::string_view bare = WithoutFlags(expression);
  // A digit after a class of digits, at the end: a count was meant.
  for (const std::string_view digits : {std::string_view("[0-9]"), std::string_view("\\d")}) {
    const size_t at = bare.find(digits);
    if (at == bare.npos || at == 0) continue;
    const std::string_view before = bare.substr(0, at);
    const std::string_view after = bare.substr(at + digits.size());
    const std::string_view code = before.starts_with('^') ? before.substr(1) : before;
    if ((code == "4" || code == "5") && (after == "2" || after == "2$")) {
      return absl::StrCat("it matches only codes that end in 2; ", std::string(before),
                          std::string(digits), "{2} is likely meant");
    }
  }
  return std::nullopt;
}

bool MatchesEverything(std::string_view expression) {
  const std::string_view bare = WithoutFlags(expression);
  return bare.empty() || bare == ".*" || bare == "^" || bare == "$" || bare == "^.*" ||
         bare == ".*$" || bare == "^.*$";
}

}  // namespace sluice::config
