#include "services/config/regex.h"

#include "absl/strings/str_cat.h"
#include "re2/re2.h"

namespace sluice::config {
namespace {

// A longer one is a mistake, or wants to cost time.
constexpr size_t kMaxRegexBytes = 4096;
// Of a compiled expression.
constexpr int64_t kMaxRegexMemory = int64_t{1} << 20;

}  // namespace

absl::StatusOr<std::string> ConsumeRegex(std::string_view& text) {
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
  RE2::Options options(RE2::Quiet);
  options.set_max_mem(kMaxRegexMemory);
  const RE2 compiled(whole, options);
  if (!compiled.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the regular expression cannot be used: ", compiled.error()));
  }
  return whole;
}

}  // namespace sluice::config
