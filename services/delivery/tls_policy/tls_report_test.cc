// Proves that reports on TLS have what RFC 8460 wants, within bounds.
#include "services/delivery/tls_policy/tls_report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace sluice::delivery {
namespace {

using Type = TlsReportPolicy::Type;

struct UriCase {
  std::vector<std::string> records;
  std::vector<std::string> uris;
};

// RFC 8460 section 3.
TEST(TlsReport, Uris) {
  for (const UriCase& each : std::vector<UriCase>{
           {{"v=TLSRPTv1;rua=mailto:reports@example.com"}, {"mailto:reports@example.com"}},
           {{"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt , mailto:a@b ; x=y"},
            {"https://reporting.example.com/v1/tlsrpt", "mailto:a@b"}},
           {{"v=spf1", "v=TLSRPTv1; x=y; rua=mailto:a@b"}, {"mailto:a@b"}},
           {{"v=TLSRPTv1; rua=http://plain.example,ftp://x,mailto:"}, {}},
           {{"v=TLSRPTv1; rua=mailto:a@b\r\nBcc: c@d"}, {}},
           {{"v=TLSRPTv1"}, {}},
           {{"v=TLSRPTv10;rua=mailto:a@b"}, {}},
           {{"v=TLSRPTv1;rua=mailto:a@b", "v=TLSRPTv1;rua=mailto:a@b"}, {}},
           {{}, {}}}) {
    EXPECT_EQ(FindTlsReportUris(each.records), each.uris)
        << (each.records.empty() ? "" : each.records[0]);
  }
}

TEST(TlsReport, ReportHasWhatTheRfcWants) {
  TlsReportCounters counters;
  const TlsReportPolicy sts{Type::kSts, {"version: STSv1", "mode: testing"}, {"*.mail.example"}};
  for (int i = 0; i < 3; ++i) counters.Success("example", sts);
  const TlsFailure expired{"certificate-expired", "192.0.2.1", "mx1.mail.example", "192.0.2.9",
                           "expired\xff"};
  counters.Failure("example", sts, expired);
  counters.Failure("example", sts, expired);
  counters.Success("example", {Type::kTlsa, {"3 1 1 AB"}, {}});
  const auto day = counters.Take();
  EXPECT_EQ(counters.domains(), 0u);
  const TlsReportHead head{"Sender Inc",
                           "tls@sender.example",
                           "",
                           "id-1",
                           FromUnixMicros(1'459'468'800'000'000),
                           FromUnixMicros(1'459'555'199'000'000)};
  const auto json = nlohmann::json::parse(TlsReportJson(head, "example", day.at("example")));
  EXPECT_EQ(json["organization-name"], "Sender Inc");
  EXPECT_EQ(json["date-range"]["start-datetime"], "2016-04-01T00:00:00Z");
  EXPECT_EQ(json["date-range"]["end-datetime"], "2016-04-01T23:59:59Z");
  ASSERT_EQ(json["policies"].size(), 2u);
  const auto& first = json["policies"][0];
  EXPECT_EQ(first["policy"]["policy-type"], "sts");
  EXPECT_EQ(first["policy"]["policy-domain"], "example");
  EXPECT_EQ(first["policy"]["mx-host"][0], "*.mail.example");
  EXPECT_EQ(first["summary"]["total-successful-session-count"], 3);
  EXPECT_EQ(first["summary"]["total-failure-session-count"], 2);
  ASSERT_EQ(first["failure-details"].size(), 1u);
  EXPECT_EQ(first["failure-details"][0]["result-type"], "certificate-expired");
  EXPECT_EQ(first["failure-details"][0]["failed-session-count"], 2);
  EXPECT_EQ(json["policies"][1]["policy"]["policy-type"], "tlsa");
  EXPECT_FALSE(json["policies"][1].contains("failure-details"));
}

TEST(TlsReport, CountersAreBounded) {
  TlsReportCounters counters({.max_domains = 2, .max_policies = 2, .max_failures = 2});
  for (int i = 0; i < 10; ++i) counters.Success(absl::StrCat("d", i), {});
  EXPECT_EQ(counters.domains(), 2u);
  EXPECT_EQ(counters.dropped(), 8u);
  for (int i = 0; i < 10; ++i) {
    counters.Failure("d0", {Type::kSts, {absl::StrCat(i)}, {}},
                     {"validation-failure", "", absl::StrCat("mx", i), "", std::string(9999, 'x')});
  }
  const auto day = counters.Take();
  const auto& policies = day.at("d0");
  ASSERT_EQ(policies.size(), 2u);
  EXPECT_EQ(policies[1].failures, 10u);
  EXPECT_EQ(policies[1].details.size(), 2u);
  EXPECT_EQ(policies[1].details.begin()->first.reason.size(), 500u);
}

}  // namespace
}  // namespace sluice::delivery
