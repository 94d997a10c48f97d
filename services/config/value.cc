#include "services/config/value.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/base/idna.h"
#include "services/base/net/ip_address.h"

namespace sluice::config {
namespace {

constexpr int64_t kMaxDurationUs = int64_t{100} * 366 * 86400 * 1'000'000;  // a hundred years

std::string Lower(std::string_view text) {
  return absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
}

std::string_view Strip(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

int64_t UnitUs(std::string_view unit) {
  static constexpr std::pair<std::string_view, int64_t> kUnits[] = {
      {"ms", 1'000},
      {"s", 1'000'000},
      {"sec", 1'000'000},
      {"second", 1'000'000},
      {"seconds", 1'000'000},
      {"m", 60'000'000},
      {"min", 60'000'000},
      {"minute", 60'000'000},
      {"minutes", 60'000'000},
      {"h", 3'600'000'000},
      {"hr", 3'600'000'000},
      {"hour", 3'600'000'000},
      {"hours", 3'600'000'000},
      {"d", 86'400'000'000},
      {"day", 86'400'000'000},
      {"days", 86'400'000'000},
      {"w", 604'800'000'000},
      {"week", 604'800'000'000},
      {"weeks", 604'800'000'000},
  };
  for (const auto& [name, us] : kUnits) {
    if (name == unit) return us;
  }
  return 0;
}

// Digits at the start of *text, taken from it.
std::optional<uint64_t> TakeNumber(std::string_view* text) {
  uint64_t value = 0;
  size_t digits = 0;
  while (digits < text->size() && absl::ascii_isdigit((*text)[digits])) {
    const auto digit = static_cast<uint64_t>((*text)[digits] - '0');
    if (value > (std::numeric_limits<uint64_t>::max() - digit) / 10) return std::nullopt;
    value = value * 10 + digit;
    ++digits;
  }
  if (digits == 0) return std::nullopt;
  text->remove_prefix(digits);
  return value;
}

}  // namespace

std::optional<bool> ParseBool(std::string_view text) {
  const std::string word = Lower(text);
  if (word == "yes" || word == "true") return true;
  if (word == "no" || word == "false") return false;
  return std::nullopt;
}

std::optional<uint64_t> ParseCount(std::string_view text) {
  const auto value = TakeNumber(&text);
  return text.empty() ? value : std::nullopt;
}

std::optional<int64_t> ParseDurationUs(std::string_view text) {
  const std::string lower = Lower(Strip(text));
  std::string_view rest = lower;
  int64_t total = 0;
  int64_t last_unit = std::numeric_limits<int64_t>::max();
  if (rest.empty()) return std::nullopt;
  while (!rest.empty()) {
    const auto number = TakeNumber(&rest);
    if (!number) return std::nullopt;
    rest = Strip(rest);
    size_t letters = 0;
    while (letters < rest.size() && absl::ascii_isalpha(rest[letters])) ++letters;
    const bool bare = letters == 0 && rest.empty() && total == 0;
    const int64_t unit = bare ? 1'000'000 : UnitUs(rest.substr(0, letters));
    // "10m 30m 1h" is no time, but a list without its commas.
    if (unit >= std::exchange(last_unit, unit)) return std::nullopt;
    if (unit == 0 || *number > static_cast<uint64_t>((kMaxDurationUs - total) / unit)) {
      return std::nullopt;
    }
    total += static_cast<int64_t>(*number) * unit;
    rest = Strip(rest.substr(letters));
  }
  return total;
}

std::optional<std::vector<int64_t>> ParseDurationListUs(std::string_view text) {
  std::vector<int64_t> list;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view item = Strip(text.substr(0, comma));
    const auto duration = ParseDurationUs(item);
    // One number, or no blank: "1h 30m" may as well be two of them.
    const size_t unit = std::min(item.find_first_not_of("0123456789 \t"), item.size());
    const bool one = item.find_first_of("0123456789", unit) == item.npos;
    if (!duration || (!one && item.find_first_of(" \t") != item.npos)) return std::nullopt;
    list.push_back(*duration);
    if (comma == text.npos) return list;
    text.remove_prefix(comma + 1);
  }
}

std::optional<policy::v1::Rate> ParseRate(std::string_view text) {
  policy::v1::Rate rate;
  const std::string lower = Lower(Strip(text));
  if (lower == "unlimited") {
    rate.set_unlimited(true);
    return rate;
  }
  std::string_view rest = lower;
  const auto count = TakeNumber(&rest);
  if (!count) return std::nullopt;
  rate.set_count(*count);
  rate.set_period_us(1'000'000);
  rest = Strip(rest);
  if (rest.empty()) {
    // "0" is the only count that needs no period.
    if (*count != 0) return std::nullopt;
    return rate;
  }
  if (rest.front() != '/') return std::nullopt;
  rest = Strip(rest.substr(1));
  uint64_t periods = 1;
  if (!rest.empty() && absl::ascii_isdigit(rest.front())) {
    const auto number = TakeNumber(&rest);
    if (!number || *number == 0) return std::nullopt;
    periods = *number;
  }
  const int64_t unit = UnitUs(Strip(rest));
  if (unit == 0 || periods > static_cast<uint64_t>(kMaxDurationUs / unit)) return std::nullopt;
  rate.set_period_us(periods * static_cast<uint64_t>(unit));
  return rate;
}

std::optional<policy::v1::Rate> ParseVolumeRate(std::string_view text) {
  const size_t slash = text.find('/');
  if (slash == text.npos) return ParseRate(text);
  const auto bytes = ParseSizeBytes(text.substr(0, slash));
  if (!bytes) return std::nullopt;
  return ParseRate(absl::StrCat(*bytes, std::string(text.substr(slash))));
}

std::optional<uint64_t> ParseSizeBytes(std::string_view text) {
  text = Strip(text);
  const auto number = TakeNumber(&text);
  if (!number) return std::nullopt;
  std::string unit = Lower(Strip(text));
  if (unit.size() == 2 && unit[1] == 'b') unit.pop_back();  // "MB"
  int shift = 0;
  if (unit == "k") {
    shift = 10;
  } else if (unit == "m") {
    shift = 20;
  } else if (unit == "g") {
    shift = 30;
  } else if (unit == "t") {
    shift = 40;
  } else if (!unit.empty() && unit != "b") {
    return std::nullopt;
  }
  if (*number > (std::numeric_limits<uint64_t>::max() >> (shift + 1))) return std::nullopt;
  return *number << shift;
}

std::optional<std::string> ParseIpPort(std::string_view text, uint16_t default_port) {
  if (const auto endpoint = Endpoint::Parse(text)) {
    return endpoint->port == 0 ? std::nullopt : std::optional(endpoint->ToString());
  }
  if (default_port == 0) return std::nullopt;
  const auto ip = IpAddress::Parse(text);
  return ip ? std::optional((Endpoint{*ip, default_port}).ToString()) : std::nullopt;
}

std::optional<std::string> ParseNetwork(std::string_view text) {
  std::string full(text);
  const size_t slash = full.find('/');
  if (slash != full.npos && full.find(':') == full.npos) {
    std::string address = full.substr(0, slash);
    for (auto dots = std::count(address.begin(), address.end(), '.'); dots < 3; ++dots) {
      address += ".0";
    }
    full.replace(0, slash, address);
  }
  const auto cidr = Cidr::Parse(full);
  if (!cidr) return std::nullopt;
  const auto address = IpAddress::Parse(full.substr(0, full.find('/')));
  if (!address || *address != cidr->address()) return std::nullopt;
  return absl::StrCat(cidr->address().ToString(), "/", cidr->prefix_bits());
}

std::optional<std::string> ParseSelector(std::string_view text) {
  if (std::any_of(text.begin(), text.end(), [](char c) { return c < 0; })) {
    const auto ascii = HostNameToAscii(text);
    return ascii ? ParseSelector(*ascii) : std::nullopt;
  }
  if (text.ends_with('.')) text.remove_suffix(1);
  if (text.empty() || text.size() > 253) return std::nullopt;
  const std::string name = Lower(text);
  for (std::string_view rest = name;;) {
    const size_t dot = rest.find('.');
    const std::string_view label = rest.substr(0, dot);
    const bool good =
        !label.empty() && label.size() <= 63 && label.front() != '-' && label.back() != '-' &&
        std::all_of(label.begin(), label.end(), [](char c) {
          return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_';
        });
    if (!good) return std::nullopt;
    if (dot == rest.npos) return name;
    rest.remove_prefix(dot + 1);
  }
}

std::optional<std::string> ParseHostName(std::string_view text) {
  auto name = ParseSelector(text);
  if (!name) return std::nullopt;
  const std::string last = name->substr(name->rfind('.') + 1);
  return ParseCount(last) ? std::nullopt : std::move(name);
}

std::optional<std::string> ParseHostPort(std::string_view text) {
  if (const auto endpoint = Endpoint::Parse(text)) {
    return endpoint->port == 0 ? std::nullopt : std::optional(endpoint->ToString());
  }
  if (const auto ip = IpAddress::Parse(text)) return ip->ToString();
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    const auto ip = IpAddress::Parse(text.substr(1, std::min(end, text.size()) - 1));
    if (!ip || end == text.npos) return std::nullopt;
    if (end + 1 == text.size()) return ip->ToString();
    // [192.0.2.1]:25, as other programs have it.
    const auto port = text[end + 1] == ':' ? ParseCount(text.substr(end + 2)) : std::nullopt;
    if (!port || *port == 0 || *port > 65535) return std::nullopt;
    return (Endpoint{*ip, static_cast<uint16_t>(*port)}).ToString();
  }
  const size_t colon = text.find(':');
  const auto host = ParseHostName(text.substr(0, colon));
  if (!host || colon == text.npos) return host;
  const auto port = ParseCount(text.substr(colon + 1));
  if (!port || *port == 0 || *port > 65535) return std::nullopt;
  return absl::StrCat(*host, ":", *port);
}

bool IsLocalPart(std::string_view text) {
  constexpr std::string_view kAlso = "!#$%&'*+-/=?^_`{|}~.";
  return !text.empty() && text.size() <= 64 && text.front() != '.' && text.back() != '.' &&
         text.find("..") == text.npos && std::all_of(text.begin(), text.end(), [kAlso](char c) {
           return static_cast<unsigned char>(c) >= 0x80 ||
                  absl::ascii_isalnum(static_cast<unsigned char>(c)) || kAlso.find(c) != kAlso.npos;
         });
}

std::optional<std::string> ParseEmail(std::string_view text) {
  const size_t at = text.rfind('@');
  if (at == text.npos || !IsLocalPart(text.substr(0, at))) return std::nullopt;
  std::string_view domain = text.substr(at + 1);
  const std::string start(text.substr(0, at + 1));
  if (domain.starts_with('[') && domain.ends_with(']')) {
    domain = domain.substr(1, domain.size() - 2);
    if (Lower(domain.substr(0, 5)) == "ipv6:") domain.remove_prefix(5);
    const auto ip = IpAddress::Parse(domain);
    if (!ip) return std::nullopt;
    return absl::StrCat(start, ip->is_v4() ? "[" : "[IPv6:", ip->ToString(), "]");
  }
  const auto name = ParseHostName(domain);
  return name ? std::optional(start + *name) : std::nullopt;
}

std::optional<std::string> ParseHeaderName(std::string_view text) {
  if (text.ends_with(':')) text.remove_suffix(1);
  if (text.empty() || text.size() > 200) return std::nullopt;
  for (const char c : text) {
    if (c <= ' ' || c > '~' || c == ':') return std::nullopt;
  }
  return std::string(text);
}

bool IsUrl(std::string_view text) {
  const std::string lower = Lower(text);
  std::string_view rest = lower;
  if (rest.starts_with("https://")) {
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    return false;
  }
  if (rest.find_first_of(" \t\"<>") != rest.npos) return false;
  return ParseHostPort(rest.substr(0, rest.find_first_of("/?"))).has_value();
}

std::optional<std::string> ParseDomainPattern(std::string_view text) {
  std::string_view domain = text;
  std::string prefix;
  if (text == "*") return "*";
  for (const std::string_view start : {std::string_view("*."), std::string_view("[*.]")}) {
    if (domain.starts_with(start)) {
      prefix = std::string(start);
      domain.remove_prefix(start.size());
      break;
    }
  }
  if (prefix.empty() && domain.starts_with('[') && domain.ends_with(']')) {
    std::string_view literal = domain.substr(1, domain.size() - 2);
    if (Lower(literal.substr(0, 5)) == "ipv6:") literal.remove_prefix(5);  // as SMTP has it
    const auto network = ParseNetwork(literal);
    if (!network) return std::nullopt;
    const std::string_view whole = network->find(':') == network->npos ? "/32" : "/128";
    return absl::StrCat(
        "[",
        network->ends_with(whole) ? network->substr(0, network->size() - whole.size()) : *network,
        "]");
  }
  const auto name = ParseHostName(domain);
  return name ? std::optional(prefix + *name) : std::nullopt;
}

std::string PlainTargetName(std::string_view name) {
  return Lower(name) == "{default}" ? "default" : std::string(name);
}

std::string DurationText(uint64_t us) {
  if (us == 0) return "0";
  std::string text;
  for (const auto& [unit, size] : kTimeUnits) {
    if (us >= size) absl::StrAppend(&text, us / size, unit);
    us %= size;
  }
  return text;
}

std::string SizeText(uint64_t bytes, std::string_view unit) {
  const std::string_view units[] = {unit, "k", "M", "G", "T"};
  size_t at = 0;
  while (bytes != 0 && bytes % 1024 == 0 && at + 1 < std::size(units)) {
    bytes /= 1024;
    ++at;
  }
  return std::to_string(bytes).append(units[at]);
}

std::vector<std::string> SplitList(std::string_view text) {
  std::vector<std::string> items(1);
  for (const char c : text) {
    if (c == ',' || c == ';' || c == ' ' || c == '\t') {
      if (!items.back().empty()) items.emplace_back();
    } else {
      items.back() += c;
    }
  }
  if (items.back().empty()) items.pop_back();
  return items;
}

}  // namespace sluice::config
