// How the day's counters outlive a restart: as JSON.
#include <nlohmann/json.hpp>
#include <utility>

#include "services/delivery/tls_policy/tls_report_day.h"

namespace sluice::delivery {
namespace {

using Json = nlohmann::ordered_json;
using PolicyCount = TlsReportCounters::PolicyCount;

// Rises with changes that an older one would misread.
constexpr int kFormat = 1;

Json ToJson(const PolicyCount& count) {
  Json json = {{"type", static_cast<int>(count.policy.type)},
               {"text", count.policy.text},
               {"mx", count.policy.mx_hosts},
               {"good", count.successes},
               {"bad", count.failures},
               {"details", Json::array()}};
  for (const auto& [failure, sessions] : count.details) {
    json["details"].push_back({failure.result_type, failure.sending_ip, failure.mx_host,
                               failure.receiving_ip, failure.reason, sessions});
  }
  return json;
}

// Throws what the library throws.
PolicyCount FromJson(const Json& json) {
  PolicyCount count;
  const int type = json.at("type").get<int>();
  if (type == static_cast<int>(TlsReportPolicy::Type::kSts)) {
    count.policy.type = TlsReportPolicy::Type::kSts;
  } else if (type == static_cast<int>(TlsReportPolicy::Type::kTlsa)) {
    count.policy.type = TlsReportPolicy::Type::kTlsa;
  }
  json.at("text").get_to(count.policy.text);
  json.at("mx").get_to(count.policy.mx_hosts);
  json.at("good").get_to(count.successes);
  json.at("bad").get_to(count.failures);
  for (const Json& each : json.at("details")) {
    const TlsFailure failure{each.at(0).get<std::string>(), each.at(1).get<std::string>(),
                             each.at(2).get<std::string>(), each.at(3).get<std::string>(),
                             each.at(4).get<std::string>()};
    count.details[failure] = each.at(5).get<uint64_t>();
  }
  return count;
}

}  // namespace

std::string TlsReportDay::Save() const {
  if (counters_.domains() == 0) return "";
  Json json = {
      {"format", kFormat}, {"begin_us", ToUnixMicros(begin_)}, {"domains", Json::object()}};
  for (const auto& [domain, counts] : counters_.day()) {
    Json& list = json["domains"][domain] = Json::array();
    for (const PolicyCount& count : counts) list.push_back(ToJson(count));
  }
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void TlsReportDay::Load(std::string_view saved) {
  TlsReportCounters::Day day;
  WallTime begin{};
  try {
    const Json json = Json::parse(saved);
    if (json.at("format").get<int>() != kFormat) return;
    begin = FromUnixMicros(json.at("begin_us").get<int64_t>());
    for (const auto& [domain, counts] : json.at("domains").items()) {
      for (const Json& each : counts) day[domain].push_back(FromJson(each));
    }
  } catch (const nlohmann::json::exception&) {
    return;
  }
  const WallTime now = executor_.clock().WallNow();
  if (begin < WallTime{} || begin > now || now - begin > kMostLate) return;
  counters_.Restore(std::move(day));
  begin_ = begin;
  if (StartOf(begin) >= StartOf(now)) return;
  late_ = executor_.After(Duration(0), [this] {
    late_ = 0;
    EndDay();
  });
}

}  // namespace sluice::delivery
