#include "tools/sink/rules.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace sluice::sink {
namespace {

const Rule& DefaultRule() {
  static const Rule* const rule = new Rule;
  return *rule;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return lower;
}

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == text.npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::optional<double> ParseShare(std::string_view text) {
  double scale = 1;
  if (!text.empty() && text.back() == '%') {
    text.remove_suffix(1);
    scale = 0.01;
  }
  double value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  value *= scale;
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 0 && value <= 1)) {
    return std::nullopt;
  }
  return value;
}

template <typename T>
bool ParseCount(std::string_view text, T* value) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

constexpr std::pair<std::string_view, Stage> kStages[] = {
    {"connect", Stage::kConnect}, {"ehlo", Stage::kEhlo}, {"mail", Stage::kMail},
    {"rcpt", Stage::kRcpt},       {"data", Stage::kData}, {"text", Stage::kText},
    {"dot", Stage::kDot}};

constexpr std::pair<std::string_view, DnsMode> kDnsModes[] = {{"mx", DnsMode::kMx},
                                                              {"no-mx", DnsMode::kNoMx},
                                                              {"null-mx", DnsMode::kNullMx},
                                                              {"nxdomain", DnsMode::kNxdomain},
                                                              {"servfail", DnsMode::kServfail},
                                                              {"timeout", DnsMode::kTimeout},
                                                              {"truncate", DnsMode::kTruncate}};

template <typename Table, typename T>
bool Choose(const Table& table, std::string_view text, T* value) {
  for (const auto& [name, choice] : table) {
    if (name != text) continue;
    *value = choice;
    return true;
  }
  return false;
}

bool SetReply(std::string_view value, char first, std::string* reply) {
  if (value.size() < 3 || value[0] != first) return false;
  *reply = std::string(value);
  std::replace(reply->begin(), reply->end(), '_', ' ');
  return true;
}

// "50/s", "600/m", "50/250ms".
bool SetRate(std::string_view value, Rule* rule) {
  size_t slash = value.find('/');
  if (slash == value.npos || !ParseCount(value.substr(0, slash), &rule->rate_max)) return false;
  std::string_view unit = value.substr(slash + 1);
  std::string period = unit.empty() || unit[0] < '0' || unit[0] > '9' ? "1" : "";
  auto parsed = ParseDuration(period + std::string(unit));
  if (!parsed || *parsed <= Duration(0)) return false;
  rule->rate_period = *parsed;
  return true;
}

bool SetDuration(std::string_view value, Duration* duration) {
  auto parsed = ParseDuration(value);
  if (parsed) *duration = *parsed;
  return parsed.has_value();
}

bool SetShare(std::string_view value, double* share) {
  auto parsed = ParseShare(value);
  if (parsed) *share = *parsed;
  return parsed.has_value();
}

bool SetAddresses(std::string_view value, std::vector<IpAddress>* addresses) {
  for (std::string_view part : Split(value, ',')) {
    auto ip = IpAddress::Parse(part);
    if (!ip) return false;
    addresses->push_back(*ip);
  }
  return true;
}

bool SetClose(std::string_view value, Rule* rule) {
  Stage stage;
  if (!Choose(kStages, value, &stage)) return false;
  rule->close_at = stage;
  return true;
}

bool SetField(std::string_view key, std::string_view value, Rule* rule) {
  if (key == "defer") return SetShare(value, &rule->defer_share);
  if (key == "reject") return SetShare(value, &rule->reject_share);
  if (key == "fail-at") {
    return Choose(kStages, value, &rule->fail_at) && rule->fail_at >= Stage::kRcpt &&
           rule->fail_at != Stage::kText;
  }
  if (key == "defer-reply") return SetReply(value, '4', &rule->defer_reply);
  if (key == "reject-reply") return SetReply(value, '5', &rule->reject_reply);
  if (key == "delay") return SetDuration(value, &rule->delay);
  if (key == "delay-at") {
    return Choose(kStages, value, &rule->delay_at) && rule->delay_at != Stage::kText;
  }
  if (key == "close") return SetClose(value, rule);
  if (key == "close-share") return SetShare(value, &rule->close_share);
  if (key == "connections") return ParseCount(value, &rule->connections_max);
  if (key == "rate") return SetRate(value, rule);
  if (key == "greylist") return SetDuration(value, &rule->greylist);
  if (key == "dns") return Choose(kDnsModes, value, &rule->dns);
  if (key == "mx-count") {
    return ParseCount(value, &rule->mx_count) && rule->mx_count >= 1 && rule->mx_count <= 100;
  }
  if (key == "mx") {
    for (std::string_view host : Split(value, ',')) rule->mx.push_back(Lower(host));
    return true;
  }
  if (key == "address") return SetAddresses(value, &rule->addresses);
  if (key == "cname") {
    rule->cname = Lower(value);
    return true;
  }
  return false;
}

}  // namespace

std::optional<Duration> ParseDuration(std::string_view text) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || value < 0) return std::nullopt;
  std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  int64_t us = 0;
  constexpr std::pair<std::string_view, int64_t> kUnits[] = {
      {"us", 1}, {"ms", 1000}, {"s", 1'000'000}, {"m", 60'000'000}, {"h", 3'600'000'000}};
  if (!Choose(kUnits, unit, &us) || value > INT64_MAX / us / 1000) return std::nullopt;
  return Duration(value * us);
}

std::string_view RuleTable::Help() {
  return R"(Rules: "PATTERN key=value ...", by --rule, by --rules FILE (a rule a line, # comments), or POSTed
to /rules while running. PATTERN is a domain, *.DOMAIN (all below it), * (all the rest), or @IP
(connections to that address of the sink; connect, ehlo and mail only know that one and *).
STAGE is connect, ehlo, mail, rcpt, data, text or dot.
  defer=SHARE reject=SHARE    part of recipients with a 4xx or 5xx: 0.05 or 5%
  fail-at=STAGE               where they get it: rcpt (default), data or dot
  defer-reply=451_4.3.0_text  the replies themselves, _ for a blank
  reject-reply=550_5.1.1_text
  delay=TIME delay-at=STAGE   wait before the reply at STAGE (default dot): 250ms, 2s, 5m
  close=STAGE close-share=P   close the connection there instead of a reply (share default 1)
  connections=N               at one time from one client IP; more get a 421
  rate=N/s                    recipients a period (s, m, h, 250ms); more get a 451
  greylist=TIME               first (client IP, sender, recipient) gets a 451 for TIME
  dns=MODE                    mx (default), no-mx, null-mx, nxdomain, servfail, timeout, truncate
  mx-count=N                  hosts mx1.DOMAIN ... mxN.DOMAIN, each preferred to the next
  mx=HOST,HOST                these hosts instead, best first
  address=IP,IP               addresses behind the name (mx1 has the first, mx2 the second, ...)
  cname=NAME                  the name is an alias
)";
}

absl::Status RuleTable::Add(std::string_view line) {
  std::optional<std::string> pattern;
  Rule rule;
  for (std::string_view word : Split(line, ' ')) {
    while (!word.empty() && (word.back() == '\r' || word.back() == '\t')) word.remove_suffix(1);
    if (word.empty()) continue;
    if (!pattern) {
      pattern = Lower(word);
      if (pattern->front() == '@' && !IpAddress::Parse(pattern->substr(1))) {
        return absl::InvalidArgumentError("rule '" + *pattern + "': not an IP address");
      }
      continue;
    }
    size_t equals = word.find('=');
    if (equals == word.npos || !SetField(word.substr(0, equals), word.substr(equals + 1), &rule)) {
      return absl::InvalidArgumentError("rule '" + *pattern + "': cannot use '" +
                                        std::string(word) + "'");
    }
  }
  if (!pattern) return absl::InvalidArgumentError("a rule needs a domain");
  rules_.insert_or_assign(*pattern, std::move(rule));
  ++generation_;
  return absl::OkStatus();
}

absl::Status RuleTable::AddAll(std::string_view lines) {
  RuleTable changed = *this;
  for (std::string_view line : Split(lines, '\n')) {
    size_t start = line.find_first_not_of(" \t\r");
    if (start == line.npos || line[start] == '#') continue;
    absl::Status status = changed.Add(line.substr(start));
    if (!status.ok()) return status;
  }
  *this = std::move(changed);
  return absl::OkStatus();
}

const Rule& RuleTable::ForDomain(std::string_view domain) const {
  if (rules_.empty()) return DefaultRule();
  if (auto it = rules_.find(domain); it != rules_.end()) return it->second;
  for (size_t dot = domain.find('.'); dot != domain.npos; dot = domain.find('.', dot + 1)) {
    auto it = rules_.find("*" + std::string(domain.substr(dot)));
    if (it != rules_.end()) return it->second;
  }
  auto it = rules_.find("*");
  return it != rules_.end() ? it->second : DefaultRule();
}

const Rule& RuleTable::ForAddress(const IpAddress& local) const {
  if (rules_.empty()) return DefaultRule();
  auto it = rules_.find("@" + local.ToString());
  if (it == rules_.end()) it = rules_.find("*");
  return it != rules_.end() ? it->second : DefaultRule();
}

bool RuleTable::HasExact(std::string_view domain) const { return rules_.contains(domain); }

}  // namespace sluice::sink
