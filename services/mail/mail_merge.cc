#include "services/mail/mail_merge.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace sluice::mail {
namespace {

bool IsNameChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
}

// A leading "*" marks what is predefined. A name does not begin with a digit: addresses stand in
// brackets in Received fields.
bool IsName(std::string_view name) {
  if (name.starts_with('*')) name.remove_prefix(1);
  return !name.empty() && !absl::ascii_isdigit(static_cast<unsigned char>(name[0])) &&
         name.size() <= kMaxMergeNameBytes && std::all_of(name.begin(), name.end(), IsNameChar);
}

std::string Lower(std::string_view text) {
  return absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
}

bool IsControl(char c) { return (static_cast<unsigned char>(c) < ' ' && c != '\t') || c == 127; }

bool IsBlank(char c) { return c == ' ' || c == '\t'; }

std::optional<ServerReply> Refuse(std::string text) {
  return ServerReply{501, {5, 5, 4}, std::move(text)};
}

std::optional<uint32_t> TakeNumber(std::string_view& text) {
  uint32_t number = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number == 0 || number > kMaxMergeParts) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(rest - text.data()));
  return number;
}

// "1-3,5".
std::optional<std::vector<uint32_t>> ParseParts(std::string_view text) {
  std::vector<uint32_t> parts;
  while (true) {
    const std::optional<uint32_t> first = TakeNumber(text);
    if (!first) return std::nullopt;
    std::optional<uint32_t> last = first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      last = TakeNumber(text);
      if (!last || *last < *first) return std::nullopt;
    }
    for (uint32_t part = *first; part <= *last; ++part) parts.push_back(part);
    if (parts.size() > kMaxMergeParts) return std::nullopt;
    if (text.empty()) return parts;
    if (text[0] != ',') return std::nullopt;
    text.remove_prefix(1);
  }
}

// One name="value" from the front.
bool TakeDefinition(std::string_view& text, std::string& name, std::string& value) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || !IsName(text.substr(0, equals))) return false;
  name = Lower(text.substr(0, equals));
  value.clear();
  text.remove_prefix(equals + 1);
  if (!text.starts_with('"')) {
    size_t end = 0;
    while (end < text.size() && !IsBlank(text[end])) ++end;
    value = text.substr(0, end);
    text.remove_prefix(end);
    return value.find('"') == std::string::npos;
  }
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] != '"') {
      value += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == '"') {
      value += text[++i];
    } else {
      text.remove_prefix(i + 1);
      return text.empty() || IsBlank(text[0]);
    }
  }
  return false;  // not closed
}

}  // namespace

size_t MergeDefinitions::bytes() const {
  size_t sum = parts.size() * sizeof(parts[0]);
  for (const auto& [name, value] : variables) sum += name.size() + value.size();
  for (const auto* each : {&vmta, &job_id, &envid}) {
    if (*each) sum += (*each)->size();
  }
  return sum;
}

std::optional<ServerReply> ParseMergeDefinitions(std::string_view argument, MergeDefinitions& out) {
  MergeDefinitions made = out;
  std::string name;
  std::string value;
  bool any = false;
  while (true) {
    while (!argument.empty() && IsBlank(argument.front())) argument.remove_prefix(1);
    if (argument.empty()) break;
    any = true;
    if (!TakeDefinition(argument, name, value)) return Refuse("Write XDFN name=\"value\" ...");
    if (std::any_of(value.begin(), value.end(), IsControl)) {
      return Refuse("A value may not have control characters");
    }
    if (name == "*parts") {
      std::optional<std::vector<uint32_t>> parts = ParseParts(value);
      if (!parts) return Refuse("*parts wants numbers of parts, as in 1-3,5");
      made.parts = *std::move(parts);
    } else if (name == "*vmta") {
      made.vmta = value;
    } else if (name == "*jobid") {
      made.job_id = value;
    } else if (name == "*envid") {
      made.envid = value;
    } else if (name[0] == '*') {
      return Refuse(name + " cannot be defined");
    } else {
      const auto same = std::find_if(made.variables.begin(), made.variables.end(),
                                     [&](const auto& v) { return v.first == name; });
      if (same != made.variables.end()) {
        same->second = value;
      } else {
        made.variables.emplace_back(name, value);
      }
    }
  }
  if (!any) return Refuse("Write XDFN name=\"value\" ...");
  if (made.bytes() > kMaxMergeBytes) {
    return ServerReply{552, {5, 3, 4}, "Too many values for one recipient"};
  }
  out = std::move(made);
  return std::nullopt;
}

std::optional<PartCommand> ParsePartCommand(std::string_view argument) {
  PartCommand part;
  const std::optional<uint32_t> number = TakeNumber(argument);
  if (!number) return std::nullopt;
  part.number = *number;
  if (argument.empty()) return part;
  if (!IsBlank(argument[0])) return std::nullopt;
  while (!argument.empty() && IsBlank(argument.front())) argument.remove_prefix(1);
  if (!absl::EqualsIgnoreCase(absl::string_view(argument.data(), argument.size()), "LAST")) {
    return std::nullopt;
  }
  part.last = true;
  return part;
}

void ExpandMerge(std::string_view text,
                 absl::FunctionRef<std::optional<std::string_view>(std::string_view)> lookup,
                 bool expands_undefined, std::string& out) {
  while (true) {
    const size_t open = text.find('[');
    out += text.substr(0, open);
    if (open == std::string_view::npos) return;
    text.remove_prefix(open);
    if (text.starts_with("[[]")) {
      out += '[';
      text.remove_prefix(3);
      continue;
    }
    const size_t close = text.substr(0, kMaxMergeNameBytes + 3).find(']');
    if (close == std::string_view::npos || !IsName(text.substr(1, close - 1))) {
      out += '[';
      text.remove_prefix(1);
      continue;
    }
    const std::string name = Lower(text.substr(1, close - 1));
    const std::optional<std::string_view> value = lookup(name);
    if (value) {
      std::copy_if(value->begin(), value->end(), std::back_inserter(out),
                   [](char c) { return !IsControl(c); });
    } else if (!expands_undefined) {
      out += text.substr(0, close + 1);
    }
    text.remove_prefix(close + 1);
  }
}

}  // namespace sluice::mail
