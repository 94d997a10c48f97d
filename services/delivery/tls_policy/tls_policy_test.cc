// Proves that DANE and MTA-STS together demand what they should, never less.
#include "services/delivery/tls_policy/tls_policy.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "services/base/testing/manual_executor.h"

namespace sluice::delivery {
namespace {

using Verify = TlsVerdict::Verify;

// TXT, A and TLSA from tables; all of it authentic, unless it is said to be unsigned or failing.
class FakeDns final : public DnsClient {
 public:
  void Query(const std::string& name, DnsType type, Done done) override {
    DnsAnswer answer;
    answer.canonical = canonical.contains(name) ? canonical[name] : name;
    answer.authenticated = !unsigned_zones;
    answer.status = DnsStatus::kNxDomain;
    const auto found = table.find({name, type});
    if (found != table.end()) {
      answer.status = found->second.empty() ? DnsStatus::kFailed : DnsStatus::kAnswer;
      answer.records.push_back({60, 0, found->second});
    }
    done(std::move(answer));
  }
  void Policy(const std::string& domain) {
    const std::string text = "v=STSv1; id=1";
    table[{"_mta-sts." + domain, DnsType::kTxt}] =
        std::string(1, static_cast<char>(text.size())) + text;
  }
  std::map<std::pair<std::string, DnsType>, std::string> table;
  std::map<std::string, std::string> canonical;  // of names that are aliases
  bool unsigned_zones = false;
};

class FakeFetcher final : public PolicyFetcher {
 public:
  void Fetch(const std::string&, Done done) override { done(text); }
  absl::StatusOr<std::string> text;
};

class TlsPolicyTest : public ::testing::Test {
 protected:
  TlsPolicyTest() {
    dns.table[{"mx.example", DnsType::kA}] = "192.0.2.1";
    question.domain = "example";
    question.host = "mx.example";
    question.use_dane = question.use_mta_sts = question.authenticated = true;
  }
  TlsVerdict Check() {
    TlsVerdict verdict;
    int calls = 0;
    policy.Check(question, [&](TlsVerdict given) {
      verdict = std::move(given);
      ++calls;
    });
    EXPECT_EQ(calls, 1);
    return verdict;
  }
  void Sts(const std::string& mode, const std::string& mx = "mx.example") {
    dns.Policy("example");
    fetcher.text = "version: STSv1\nmode: " + mode + "\nmx: " + mx + "\nmax_age: 86400\n";
  }
  void Tlsa(char usage) {
    dns.table[{"_25._tcp.mx.example", DnsType::kTlsa}] =
        std::string{usage, 1, 1} + std::string(32, 'x');
  }

  ::sluice::testing::ManualExecutor executor;
  FakeDns dns;
  FakeFetcher fetcher;
  MtaStsCache cache{executor, dns, fetcher, {}};
  DaneLookup dane{dns};
  TlsPolicy policy{cache, dane};
  TlsQuestion question;
};

TEST_F(TlsPolicyTest, NothingPublishedNothingDemanded) {
  const TlsVerdict verdict = Check();
  EXPECT_TRUE(verdict.allowed);
  EXPECT_FALSE(verdict.required);
  EXPECT_EQ(verdict.verify, Verify::kNone);
  EXPECT_EQ(verdict.report.type, TlsReportPolicy::Type::kNone);
}

TEST_F(TlsPolicyTest, MtaStsEnforced) {
  Sts("enforce");
  TlsVerdict verdict = Check();
  EXPECT_TRUE(verdict.allowed);
  EXPECT_TRUE(verdict.enforced());
  EXPECT_EQ(verdict.verify, Verify::kPkix);
  EXPECT_EQ(verdict.names, std::vector<std::string>{"mx.example"});
  question.host = "rogue.example";
  verdict = Check();
  EXPECT_FALSE(verdict.allowed);
  EXPECT_EQ(verdict.failure_type, "validation-failure");
}

TEST_F(TlsPolicyTest, MtaStsTestingOnlyReports) {
  Sts("testing", "other.example");
  const TlsVerdict verdict = Check();
  EXPECT_TRUE(verdict.allowed);
  EXPECT_FALSE(verdict.enforced());
  EXPECT_TRUE(verdict.report_only);
  EXPECT_EQ(verdict.verify, Verify::kPkix);
  EXPECT_EQ(verdict.failure_type, "validation-failure");
  EXPECT_EQ(verdict.report.text[1], "mode: testing");
}

TEST_F(TlsPolicyTest, MtaStsNoneDemandsNothing) {
  Sts("none");
  const TlsVerdict verdict = Check();
  EXPECT_TRUE(verdict.allowed);
  EXPECT_EQ(verdict.verify, Verify::kNone);
}

// Siblings on one MX: the verdict on the same host differs with the domain, and the broken policy
// of one does not hold up the other.
TEST_F(TlsPolicyTest, SiblingsOnOneMx) {
  Sts("enforce", "elsewhere.example");
  EXPECT_FALSE(Check().allowed);
  question.domain = "sibling.example";
  EXPECT_TRUE(Check().allowed);
  EXPECT_FALSE(Check().required);
  dns.Policy("third.example");
  fetcher.text = absl::UnavailableError("refused");
  question.domain = "third.example";
  const TlsVerdict third = Check();
  EXPECT_TRUE(third.allowed);
  EXPECT_EQ(third.failure_type, "sts-policy-fetch-error");
  EXPECT_EQ(third.reason, "refused");
  question.domain = "example";
  EXPECT_FALSE(Check().allowed);
}

TEST_F(TlsPolicyTest, DaneGoesBeforeMtaSts) {
  Tlsa(3);
  Sts("enforce", "elsewhere.example");
  const TlsVerdict verdict = Check();
  EXPECT_TRUE(verdict.allowed);
  EXPECT_TRUE(verdict.enforced());
  EXPECT_EQ(verdict.verify, Verify::kDane);
  EXPECT_EQ(verdict.dane->base_domain, "mx.example");
  EXPECT_EQ(verdict.dane->other_names, std::vector<std::string>{"example"});
  EXPECT_EQ(verdict.report.type, TlsReportPolicy::Type::kTlsa);
  EXPECT_EQ(verdict.report.text.at(0).substr(0, 6), "3 1 1 ");
}

// RFC 7672 section 3.2.2: the names that a certificate under a trust anchor may have.
TEST_F(TlsPolicyTest, TheNamesOfAnAliasCount) {
  Tlsa(2);
  question.canonical = "example";  // no alias: once is enough
  EXPECT_EQ(Check().dane->other_names, std::vector<std::string>{"example"});
  question.canonical = "real.example";
  EXPECT_EQ(Check().dane->other_names, (std::vector<std::string>{"example", "real.example"}));
  // The domain is the host, without MX.
  question.domain = question.host;
  question.canonical = question.host;
  EXPECT_TRUE(Check().dane->other_names.empty());
  // A route to an alias: the host as it was named.
  question.from_dns = question.authenticated = false;
  question.host = "route.example";
  dns.table[{"route.example", DnsType::kA}] = "192.0.2.1";
  dns.canonical["route.example"] = "mx.example";
  const TlsVerdict verdict = Check();
  EXPECT_EQ(verdict.dane->base_domain, "mx.example");
  EXPECT_EQ(verdict.dane->other_names, std::vector<std::string>{"route.example"});
}

// RFC 7672 section 2.2.1 and the rule against downgrades.
TEST_F(TlsPolicyTest, DaneOnlyForAuthenticHostsAndNeverAway) {
  Tlsa(3);
  question.authenticated = false;
  EXPECT_EQ(Check().verify, Verify::kNone);
  question.from_dns = false;  // a route of the configuration needs no MX record
  EXPECT_EQ(Check().verify, Verify::kDane);
  EXPECT_TRUE(Check().dane->other_names.empty());
  question.from_dns = question.authenticated = true;
  dns.table[{"_25._tcp.mx.example", DnsType::kTlsa}] = "";
  const TlsVerdict broken = Check();
  EXPECT_FALSE(broken.allowed);
  EXPECT_EQ(broken.reason.substr(0, 5), "DANE:");
  question.use_dane = false;
  EXPECT_TRUE(Check().allowed);
}

TEST_F(TlsPolicyTest, UnusableTlsaDemandTlsAndMtaStsMayVerify) {
  Tlsa(1);
  TlsVerdict verdict = Check();
  EXPECT_TRUE(verdict.enforced());
  EXPECT_EQ(verdict.verify, Verify::kNone);
  Sts("testing");
  executor.Advance(std::chrono::hours(2));
  verdict = Check();
  EXPECT_TRUE(verdict.enforced());
  EXPECT_EQ(verdict.verify, Verify::kNone);
  Sts("enforce");
  executor.Advance(std::chrono::hours(13));
  EXPECT_EQ(Check().verify, Verify::kPkix);
}

// A route or a recipient that names an address has no DNS to ask, nor to wait for.
TEST_F(TlsPolicyTest, AddressesHaveNoDane) {
  question.from_dns = question.authenticated = false;
  for (const char* host : {"192.0.2.1", "2001:db8::1", "[192.0.2.1]", "[2001:db8::1]"}) {
    question.host = host;
    dns.table[{host, DnsType::kA}] = "";  // would fail
    const TlsVerdict verdict = Check();
    EXPECT_TRUE(verdict.allowed) << host;
    EXPECT_FALSE(verdict.required) << host;
  }
}

TEST_F(TlsPolicyTest, LiteralsAndRoutesHaveNoMtaSts) {
  Sts("enforce", "elsewhere.example");
  question.from_dns = false;
  EXPECT_TRUE(Check().allowed);
  question.from_dns = true;
  question.domain = "[192.0.2.1]";
  EXPECT_TRUE(Check().allowed);
}

}  // namespace
}  // namespace sluice::delivery
