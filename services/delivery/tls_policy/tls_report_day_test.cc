// Proves that a day's counts become a report at midnight and outlive a restart.
#include "services/delivery/tls_policy/tls_report_day.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/testing/manual_executor.h"

namespace sluice::delivery {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

class FakeTxt final : public DnsClient {
 public:
  void Query(const std::string& name, DnsType, Done done) override {
    held.emplace_back(name, std::move(done));
    most = std::max(most, held.size());
    if (!hold) Release();
  }
  void Release() {
    while (!held.empty()) {
      auto [name, done] = std::move(held.front());
      held.erase(held.begin());
      DnsAnswer answer;
      if (const auto found = table.find(name); found != table.end()) {
        answer.status = DnsStatus::kAnswer;
        answer.records.push_back(
            {60, 0, std::string(1, static_cast<char>(found->second.size())) + found->second});
      }
      done(std::move(answer));
    }
  }
  std::map<std::string, std::string> table;
  std::vector<std::pair<std::string, Done>> held;
  bool hold = false;
  size_t most = 0;
};

class TlsReportDayTest : public ::testing::Test {
 protected:
  ::sluice::testing::ManualExecutor executor;
  FakeTxt dns;
  TlsReportCounters counters;
  std::vector<TlsReport> reports;
  TlsReportDay day{executor,
                   dns,
                   counters,
                   {"out.example", "postmaster@out.example", "w-1"},
                   [this](TlsReport report) { reports.push_back(std::move(report)); }};
};

// The clock begins at 23:13:20 UTC of 14 November 2023.
TEST_F(TlsReportDayTest, AtMidnightThoseWhoAskGetTheirs) {
  dns.table["_smtp._tls.wants.example"] = "v=TLSRPTv1; rua=mailto:tls@wants.example";
  counters.Success("wants.example", {});
  counters.Success("silent.example", {});
  executor.Advance(minutes(40));
  EXPECT_TRUE(reports.empty());
  executor.Advance(minutes(10));
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].domain, "wants.example");
  EXPECT_EQ(reports[0].uris, std::vector<std::string>{"mailto:tls@wants.example"});
  EXPECT_EQ(reports[0].head.report_id, "1700003600.w-1.wants.example@out.example");
  const auto json = nlohmann::json::parse(reports[0].json);
  EXPECT_EQ(json["organization-name"], "out.example");
  EXPECT_EQ(json["date-range"]["start-datetime"], "2023-11-14T23:13:20Z");
  EXPECT_EQ(json["date-range"]["end-datetime"], "2023-11-14T23:59:59Z");
  EXPECT_EQ(json["policies"][0]["summary"]["total-successful-session-count"], 1);
  // The next day has its own counters, and begins at midnight.
  counters.Success("wants.example", {});
  executor.Advance(hours(24));
  ASSERT_EQ(reports.size(), 2u);
  EXPECT_EQ(nlohmann::json::parse(reports[1].json)["date-range"]["start-datetime"],
            "2023-11-15T00:00:00Z");
  EXPECT_NE(nlohmann::json::parse(reports[1].json)["report-id"], json["report-id"]);
  executor.Advance(hours(24));
  EXPECT_EQ(reports.size(), 2u);
}

// A restart in the middle of the day: one report has what was counted before it and after.
TEST_F(TlsReportDayTest, OutlivesARestart) {
  dns.table["_smtp._tls.wants.example"] = "v=TLSRPTv1; rua=mailto:tls@wants.example";
  const TlsReportPolicy sts{TlsReportPolicy::Type::kSts, {"mode: enforce"}, {"mx.example"}};
  const TlsFailure failure{"certificate-expired", "192.0.2.9", "mx.example", "192.0.2.1", "\xff"};
  EXPECT_EQ(day.Save(), "");
  counters.Success("wants.example", sts);
  counters.Failure("wants.example", sts, failure);
  counters.Success("wants.example", {});
  const std::string saved = day.Save();
  for (const int days_away : {0, 1, 3}) {
    SCOPED_TRACE(days_away);
    ::sluice::testing::ManualExecutor later;
    later.Advance(minutes(1) + hours(24 * days_away));
    TlsReportCounters restored;
    std::vector<TlsReport> found;
    TlsReportDay next{later,
                      dns,
                      restored,
                      {"out.example", "postmaster@out.example", "w-1"},
                      [&](TlsReport report) { found.push_back(std::move(report)); }};
    next.Load(saved);
    if (days_away == 3) {
      EXPECT_EQ(restored.domains(), 0u);  // nobody waits for it any more
      continue;
    }
    EXPECT_EQ(next.Save().size(), saved.size());
    if (days_away == 0) {
      restored.Success("wants.example", sts);
      later.Advance(hours(1));
    } else {
      later.Advance(minutes(1));  // it ended while nothing ran
    }
    ASSERT_EQ(found.size(), 1u);
    const auto json = nlohmann::json::parse(found[0].json);
    EXPECT_EQ(json["date-range"]["start-datetime"], "2023-11-14T23:13:20Z");
    EXPECT_EQ(json["date-range"]["end-datetime"], "2023-11-14T23:59:59Z");
    ASSERT_EQ(json["policies"].size(), 2u);
    EXPECT_EQ(json["policies"][0]["policy"]["policy-type"], "sts");
    EXPECT_EQ(json["policies"][0]["summary"]["total-successful-session-count"],
              days_away == 0 ? 2 : 1);
    EXPECT_EQ(json["policies"][0]["failure-details"][0]["result-type"], "certificate-expired");
    EXPECT_EQ(json["policies"][1]["policy"]["policy-type"], "no-policy-found");
  }
  for (const char* nonsense :
       {"", "{}", "[]", "x", "{\"format\":1,\"begin_us\":\"x\",\"domains\":{}}",
        "{\"format\":2,\"begin_us\":1700003600000000,\"domains\":{}}",
        "{\"format\":1,\"begin_us\":1700003600000000,\"domains\":{\"a\":[{\"type\":1}]}}",
        "{\"format\":1,\"begin_us\":9223372036854775807,\"domains\":{}}"}) {
    ::sluice::testing::ManualExecutor later;
    TlsReportCounters restored;
    TlsReportDay next{later, dns, restored, {"out.example", "", ""}, [](TlsReport) {}};
    next.Load(nonsense);
    EXPECT_EQ(restored.domains(), 0u) << nonsense;
  }
}

// A shorter period, as tests have, counts from midnight, too.
TEST_F(TlsReportDayTest, AnotherPeriod) {
  std::vector<TlsReport> hourly;
  TlsReportDay hour{executor,
                    dns,
                    counters,
                    {"out.example", "postmaster@out.example", "w-1"},
                    [&](TlsReport report) { hourly.push_back(std::move(report)); },
                    minutes(10)};
  dns.table["_smtp._tls.wants.example"] = "v=TLSRPTv1; rua=https://wants.example/tls";
  counters.Success("wants.example", {});
  executor.Advance(minutes(7));  // 23:20:20
  ASSERT_EQ(hourly.size(), 1u);
  EXPECT_EQ(nlohmann::json::parse(hourly[0].json)["date-range"]["end-datetime"],
            "2023-11-14T23:19:59Z");
  counters.Failure("wants.example", {}, {"starttls-not-supported", "", "", "", ""});
  executor.Advance(minutes(10));
  ASSERT_EQ(hourly.size(), 2u);
  EXPECT_NE(hourly[0].head.report_id, hourly[1].head.report_id);
}

TEST_F(TlsReportDayTest, QuestionsAreBounded) {
  dns.hold = true;
  for (int i = 0; i < 1000; ++i) counters.Success(absl::StrCat("d", i), {});
  day.EndDay();
  EXPECT_EQ(dns.most, TlsReportDay::kMaxQuestions);
  EXPECT_EQ(day.left(), 1000u);
  dns.hold = false;
  dns.Release();
  EXPECT_EQ(day.left(), 0u);
}

}  // namespace
}  // namespace sluice::delivery
