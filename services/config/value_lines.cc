#include "services/config/value_lines.h"

#include "absl/strings/ascii.h"
#include "services/base/net/ip_address.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

constexpr uint32_t kDayMinutes = 24 * 60;

std::vector<std::string> Words(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == ' ' || c == '\t') {
      if (!words.back().empty()) words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::string Lower(std::string_view text) {
  return absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
}

// "HH:MM"; 24:00 is the end of the day.
std::optional<uint32_t> ParseMinute(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == text.npos || colon == 0 || colon > 2 || text.size() != colon + 3) {
    return std::nullopt;
  }
  const auto hour = ParseCount(text.substr(0, colon));
  const auto minute = ParseCount(text.substr(colon + 1));
  if (!hour || !minute || *minute > 59) return std::nullopt;
  const uint64_t all = *hour * 60 + *minute;
  return *hour > 24 || all > kDayMinutes ? std::nullopt : std::optional(static_cast<uint32_t>(all));
}

// "421", "4xx", "45x".
bool IsCode(std::string_view code) {
  if (code.size() != 3 || (code[0] != '4' && code[0] != '5')) return false;
  for (const char c : code.substr(1)) {
    if (!absl::ascii_isdigit(c) && c != 'x') return false;
  }
  return true;
}

}  // namespace

std::optional<ScheduleLine> ParseScheduleLine(std::string_view text) {
  const std::vector<std::string> words = Words(text);
  if (words.size() != 7 || Lower(words[1]) != "to" || Lower(words[3]) != "for" ||
      Lower(words[5]) != "max-msg-rate") {
    return std::nullopt;
  }
  const auto from = ParseMinute(words[0]);
  const auto to = ParseMinute(words[2]);
  const auto until = ParseDurationUs(words[4]);
  const auto rate = ParseRate(words[6]);
  if (!from || !to || *from >= *to || !until || *until == 0 || !rate) return std::nullopt;
  ScheduleLine line;
  line.from_minute = *from;
  line.to_minute = *to;
  line.until_us = *until;
  line.rate = *rate;
  return line;
}

std::optional<Growth> ParseGrowth(std::string_view text) {
  std::string lower = Lower(text);
  const size_t sign = lower.find('%');
  if (sign == lower.npos) return std::nullopt;
  const auto percent = ParseCount(std::string_view(lower).substr(0, sign));
  if (!percent || *percent == 0 || *percent > 10'000) return std::nullopt;
  std::string period = lower.substr(sign + 1);
  if (const auto words = Words(period); words.size() == 1 && words[0] == "daily") period = "/d";
  const auto rate = ParseRate("1" + period);
  if (!rate || rate->unlimited()) return std::nullopt;
  return Growth{*percent, static_cast<int64_t>(rate->period_us())};
}

std::optional<ThrottleOn> ParseThrottleOn(std::string_view text) {
  const std::string lower = Lower(text);
  const size_t on = lower.find(" on ");
  if (on == lower.npos) return std::nullopt;
  const auto rate = ParseRate(std::string_view(lower).substr(0, on));
  if (!rate) return std::nullopt;
  ThrottleOn result{*rate, SplitList(std::string_view(lower).substr(on + 4))};
  if (result.codes.empty()) return std::nullopt;
  for (const std::string& code : result.codes) {
    if (!IsCode(code)) return std::nullopt;
  }
  return result;
}

std::optional<IpDomain> ParseIpDomain(std::string_view text) {
  std::string spaced;
  for (const char c : text) {
    if (c == '=') {
      spaced += " = ";
    } else if (c != ';') {
      spaced += c;
    }
  }
  const std::vector<std::string> words = Words(spaced);
  if (words.size() != 4 || Lower(words[1]) != "domain" || words[2] != "=") return std::nullopt;
  const auto ip = IpAddress::Parse(words[0]);
  const auto domain = ParseHostName(words[3]);
  if (!ip || !domain) return std::nullopt;
  return IpDomain{ip->ToString(), *domain};
}

std::optional<DomainKey> ParseDomainKey(std::string_view text) {
  const size_t first = text.find(',');
  if (first == text.npos) return std::nullopt;
  const size_t second = text.find(',', first + 1);
  if (second == text.npos) return std::nullopt;
  const auto strip = [](std::string_view part) {
    const auto words = Words(part);
    return words.size() == 1 ? words[0] : std::string();
  };
  DomainKey key{strip(text.substr(0, first)), strip(text.substr(first + 1, second - first - 1)),
                strip(text.substr(second + 1))};
  const auto selector = ParseSelector(key.selector);
  const auto domain = key.domain == "*" ? std::optional(key.domain) : ParseHostName(key.domain);
  if (!selector || !domain || key.file.empty()) return std::nullopt;
  key.selector = *selector;
  key.domain = *domain;
  return key;
}

}  // namespace sluice::config
