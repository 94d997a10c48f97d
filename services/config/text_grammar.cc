#include "services/config/text_grammar.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"
#include "services/config/value.h"
#include "services/config/value_lines.h"

namespace sluice::config {
namespace {

// An SMTP reply has 512 bytes (RFC 5321 4.5.3.1.5), of which host name, code and more are some.
constexpr size_t kMaxReplyText = 200;

using Text = std::optional<std::string>;

Text If(bool good, std::string_view text) { return good ? Text(std::string(text)) : std::nullopt; }

bool Has(std::string_view list, const std::string& word) {
  const std::vector<std::string> words = SplitList(list);
  return std::find(words.begin(), words.end(), word) != words.end();
}

Text ReadIp(std::string_view text) {
  const auto ip = IpAddress::Parse(text);
  return ip ? Text(ip->ToString()) : std::nullopt;
}

// Names of domains, not every domain and no address: what clients may send to.
Text ReadNamePattern(std::string_view text) {
  auto pattern = ParseDomainPattern(text);
  const bool names =
      pattern && *pattern != "*" && (!pattern->starts_with('[') || pattern->starts_with("[*.]"));
  return names ? std::move(pattern) : std::nullopt;
}

// DOMAIN[/VIRTUAL-MTA]
Text ReadQueueName(std::string_view text) {
  const size_t slash = text.find('/');
  const auto domain = ParseHostName(text.substr(0, slash));
  if (!domain || slash == text.npos) return domain;
  const std::string_view vmta = text.substr(slash + 1);
  const bool good = !vmta.empty() && vmta.find_first_of("/ \t") == vmta.npos;
  return If(good, absl::StrCat(*domain, "/", PlainTargetName(vmta)));
}

// RFC 6376 3.5, i=: an address, or the domain alone.
Text ReadIdentity(std::string_view text) {
  if (text.starts_with('@')) return If(ParseHostName(text.substr(1)).has_value(), text);
  return text.find('@') == text.npos ? ParseHostName(text) : ParseEmail(text);
}

bool IsHeaderLine(std::string_view text) {
  const size_t colon = text.find(':');
  return colon != text.npos && ParseHeaderName(text.substr(0, colon)).has_value();
}

bool IsReplyText(std::string_view text) {
  return text.size() <= kMaxReplyText &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

}  // namespace

bool HasControls(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

bool StandsForValue(const Directive& directive, std::string_view word) {
  if (directive.choices.empty()) return false;
  switch (directive.grammar) {
    case Grammar::kChoice:  // of which it is one
    case Grammar::kWords:
    case Grammar::kSectionName:  // of such a kind
      return false;
    default:
      return Has(directive.choices, std::string(word));
  }
}

std::optional<std::string> ReadTextValue(const Directive& directive, std::string_view text) {
  const auto chosen = [&]() -> Text {
    std::string word = absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
    return Has(directive.choices, word) ? Text(std::move(word)) : std::nullopt;
  };
  switch (directive.grammar) {
    case Grammar::kChoice:
      return chosen();
    case Grammar::kWords:
      return directive.choices.empty() ? Text(std::string(text)) : chosen();
    case Grammar::kHostName:
    case Grammar::kDomains:
      return ParseHostName(text);
    case Grammar::kDomainPatterns:
      return ReadNamePattern(text);
    case Grammar::kSelector:
      return ParseSelector(text);
    case Grammar::kIp:
    case Grammar::kIps:
      return ReadIp(text);
    case Grammar::kNetworks:
      return ParseNetwork(text);
    case Grammar::kIpPorts:
      return ParseIpPort(text, directive.default_port);
    case Grammar::kHostPorts:
      return ParseHostPort(text);
    case Grammar::kEmail:
    case Grammar::kEmails:
      return ParseEmail(text);
    case Grammar::kMailOrRegex:
      return text.starts_with('/') ? Text(std::string(text)) : ParseEmail(text);
    case Grammar::kIdentity:
      return ReadIdentity(text);
    case Grammar::kHeader:
    case Grammar::kHeaders:
      return ParseHeaderName(text);
    case Grammar::kHeaderLines:
      return If(IsHeaderLine(text), text);
    case Grammar::kReplyText:
      return If(IsReplyText(text), text);
    case Grammar::kUrl:
      return If(IsUrl(text), text);
    case Grammar::kDomainKey:
      return If(ParseDomainKey(text).has_value(), text);
    case Grammar::kSchedule:
      return If(ParseScheduleLine(text).has_value(), text);
    case Grammar::kGrowth:
      return If(ParseGrowth(text).has_value(), text);
    case Grammar::kThrottleOn:
      return If(ParseThrottleOn(text).has_value(), text);
    case Grammar::kIpDomain:
      return If(ParseIpDomain(text).has_value(), text);
    case Grammar::kQueueName:
      return ReadQueueName(text);
    case Grammar::kTargetName:
      return PlainTargetName(text);
    default:
      return std::string(text);
  }
}

}  // namespace sluice::config
