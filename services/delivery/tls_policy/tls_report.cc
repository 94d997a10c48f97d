#include "services/delivery/tls_policy/tls_report.h"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::delivery {
namespace {

constexpr size_t kMaxUris = 8;
constexpr size_t kMaxUriBytes = 1000;
constexpr size_t kMaxReasonBytes = 500;

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// A URI without characters that could end it where it is used: in a header, or a request.
bool IsUri(std::string_view text) {
  return text.size() <= kMaxUriBytes && std::all_of(text.begin(), text.end(), [](char c) {
           return c > 0x20 && c < 0x7f && c != '<' && c != '>' && c != '"' && c != '!';
         });
}

const char* TypeName(TlsReportPolicy::Type type) {
  switch (type) {
    case TlsReportPolicy::Type::kNone:
      return "no-policy-found";
    case TlsReportPolicy::Type::kSts:
      return "sts";
    case TlsReportPolicy::Type::kTlsa:
      return "tlsa";
  }
  return "no-policy-found";
}

}  // namespace

std::vector<std::string> FindTlsReportUris(std::span<const std::string> records) {
  constexpr std::string_view kVersion = "v=TLSRPTv1";
  std::string_view only;
  int found = 0;
  for (const std::string& record : records) {
    const std::string_view text(record);
    if (!text.starts_with(kVersion)) continue;
    const std::string_view rest = Trim(text.substr(kVersion.size()));
    if (rest.empty() || rest[0] != ';') continue;
    only = rest.substr(1);
    ++found;
  }
  std::vector<std::string> uris;
  if (found != 1) return uris;
  while (!only.empty()) {
    const size_t end = std::min(only.find(';'), only.size());
    std::string_view field = Trim(only.substr(0, end));
    only.remove_prefix(std::min(only.size(), end + 1));
    if (!field.starts_with("rua=")) continue;
    field.remove_prefix(4);
    while (!field.empty() && uris.size() < kMaxUris) {
      const size_t comma = std::min(field.find(','), field.size());
      const std::string_view uri = Trim(field.substr(0, comma));
      field.remove_prefix(std::min(field.size(), comma + 1));
      const bool known = (uri.starts_with("mailto:") && uri.size() > 7) ||
                         (uri.starts_with("https://") && uri.size() > 8);
      if (known && IsUri(uri)) uris.emplace_back(uri);
    }
    break;
  }
  return uris;
}

TlsReportCounters::PolicyCount* TlsReportCounters::Find(std::string_view domain,
                                                        const TlsReportPolicy& policy) {
  const std::string name(domain);
  auto found = day_.find(name);
  if (found == day_.end()) {
    if (day_.size() >= options_.max_domains) {
      ++dropped_;
      return nullptr;
    }
    found = day_.try_emplace(name).first;
  }
  std::vector<PolicyCount>& counts = found->second;
  for (PolicyCount& each : counts) {
    if (each.policy == policy) return &each;
  }
  if (counts.size() >= options_.max_policies) return &counts.back();
  counts.push_back({policy, 0, 0, {}});
  return &counts.back();
}

void TlsReportCounters::Success(std::string_view domain, const TlsReportPolicy& policy) {
  if (PolicyCount* count = Find(domain, policy)) ++count->successes;
}

void TlsReportCounters::Failure(std::string_view domain, const TlsReportPolicy& policy,
                                const TlsFailure& failure) {
  PolicyCount* count = Find(domain, policy);
  if (count == nullptr) return;
  ++count->failures;
  TlsFailure key = failure;
  if (key.reason.size() > kMaxReasonBytes) key.reason.resize(kMaxReasonBytes);
  const auto found = count->details.find(key);
  if (found != count->details.end()) {
    ++found->second;
  } else if (count->details.size() < options_.max_failures) {
    count->details.emplace(std::move(key), 1);
  }
}

void TlsReportCounters::Restore(Day day) {
  for (auto& [domain, counts] : day) {
    if (day_.size() >= options_.max_domains) return;
    if (counts.size() > options_.max_policies) counts.resize(options_.max_policies);
    if (!counts.empty()) day_.try_emplace(domain, std::move(counts));
  }
}

TlsReportCounters::Day TlsReportCounters::Take() { return std::exchange(day_, {}); }

std::string Rfc3339(WallTime time) {
  const std::time_t seconds = ToUnixMicros(time) / 1'000'000;
  std::tm parts = {};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

std::string TlsReportJson(const TlsReportHead& head, std::string_view domain,
                          const std::vector<TlsReportCounters::PolicyCount>& policies) {
  using Json = nlohmann::ordered_json;
  Json report;
  report["organization-name"] = head.organization;
  report["date-range"] = {{"start-datetime", Rfc3339(head.begin)},
                          {"end-datetime", Rfc3339(head.end)}};
  report["contact-info"] = head.contact;
  report["report-id"] = head.report_id;
  report["policies"] = Json::array();
  for (const auto& count : policies) {
    Json entry;
    Json& policy = entry["policy"];
    policy["policy-type"] = TypeName(count.policy.type);
    if (!count.policy.text.empty()) policy["policy-string"] = count.policy.text;
    policy["policy-domain"] = std::string(domain);
    if (!count.policy.mx_hosts.empty()) policy["mx-host"] = count.policy.mx_hosts;
    entry["summary"] = {{"total-successful-session-count", count.successes},
                        {"total-failure-session-count", count.failures}};
    if (!count.details.empty()) {
      Json& details = entry["failure-details"] = Json::array();
      for (const auto& [failure, sessions] : count.details) {
        Json detail;
        detail["result-type"] = failure.result_type;
        if (!failure.sending_ip.empty()) detail["sending-mta-ip"] = failure.sending_ip;
        if (!failure.mx_host.empty()) detail["receiving-mx-hostname"] = failure.mx_host;
        if (!failure.receiving_ip.empty()) detail["receiving-ip"] = failure.receiving_ip;
        detail["failed-session-count"] = sessions;
        if (!failure.reason.empty()) detail["failure-reason-code"] = failure.reason;
        details.push_back(std::move(detail));
      }
    }
    report["policies"].push_back(std::move(entry));
  }
  return report.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace sluice::delivery
