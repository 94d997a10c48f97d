// Proves that lookups become hosts in order, are cached and shared, and fail for as long as they
// should.
#include "services/delivery/dns/caching_mx_resolver.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "services/base/testing/manual_executor.h"

namespace sluice::delivery {
namespace {

// Answers from a table, at once or when told.
class FakeDns final : public DnsClient {
 public:
  void Query(const std::string& name, DnsType type, Done done) override {
    ++queries;
    if (hold) {
      held.emplace_back(std::make_pair(name, type), std::move(done));
      return;
    }
    done(AnswerTo(name, type));
  }
  void Release() {
    hold = false;
    auto now = std::move(held);
    held.clear();
    for (auto& [question, done] : now) done(AnswerTo(question.first, question.second));
  }
  void Mx(const std::string& name, uint32_t ttl_s,
          const std::vector<std::pair<uint16_t, std::string>>& hosts) {
    DnsAnswer& answer = table[{name, DnsType::kMx}];
    answer = {};
    answer.status = DnsStatus::kAnswer;
    answer.ttl_s = ttl_s;
    for (const auto& [preference, host] : hosts)
      answer.records.push_back({ttl_s, preference, host});
  }
  void A(const std::string& name, const std::string& address) {
    DnsAnswer& answer = table[{name, DnsType::kA}];
    answer.status = DnsStatus::kAnswer;
    answer.ttl_s = 600;
    answer.records.push_back({600, 0, address});
  }
  void Set(const std::string& name, DnsType type, DnsStatus status) {
    DnsAnswer& answer = table[{name, type}];
    answer = {};
    answer.status = status;
    answer.ttl_s = 60;
    answer.detail = "SERVFAIL";
  }
  DnsAnswer AnswerTo(const std::string& name, DnsType type) {
    const auto found = table.find({name, type});
    if (found != table.end()) return found->second;
    DnsAnswer none;
    none.status = DnsStatus::kNoData;
    none.ttl_s = 60;
    return none;
  }

  bool hold = false;
  int queries = 0;
  std::map<std::pair<std::string, DnsType>, DnsAnswer> table;
  std::vector<std::pair<std::pair<std::string, DnsType>, Done>> held;
};

class CachingMxResolverTest : public ::testing::Test {
 protected:
  std::shared_ptr<const MxResult> Resolve(const std::string& domain) {
    std::shared_ptr<const MxResult> result;
    resolver_.Resolve(domain, [&result](auto found) { result = std::move(found); });
    return result;
  }

  sluice::testing::ManualExecutor executor_;
  FakeDns dns_;
  CachingMxResolver resolver_{executor_, dns_, {}, 7};
};

TEST_F(CachingMxResolverTest, HostsComeByPreferenceWithTheirAddresses) {
  dns_.Mx("example.com", 300, {{20, "b.example.com"}, {10, "a.example.com"}});
  dns_.A("a.example.com", "192.0.2.1");
  dns_.A("b.example.com", "192.0.2.2");
  const auto result = Resolve("Example.COM");
  ASSERT_NE(result, nullptr);
  ASSERT_EQ(result->outcome, MxOutcome::kFound);
  ASSERT_EQ(result->hosts.size(), 2U);
  EXPECT_EQ(result->hosts[0].name, "a.example.com");
  EXPECT_EQ(result->hosts[0].addresses, std::vector<std::string>{"192.0.2.1"});
  EXPECT_EQ(result->site, "a.example.com,b.example.com");
  EXPECT_TRUE(result->from_dns);
}

TEST_F(CachingMxResolverTest, DomainsWithEqualHostsAreOneSite) {
  dns_.Mx("one.example", 300, {{10, "a.example.com"}, {20, "b.example.com"}});
  dns_.Mx("two.example", 300, {{5, "b.example.com"}, {5, "a.example.com"}});
  dns_.A("a.example.com", "192.0.2.1");
  dns_.A("b.example.com", "192.0.2.2");
  EXPECT_EQ(Resolve("one.example")->site, Resolve("two.example")->site);
}

TEST_F(CachingMxResolverTest, OneQuestionServesAllWhoAskUntilItsTtlEnds) {
  dns_.Mx("example.com", 300, {{10, "a.example.com"}});
  dns_.A("a.example.com", "192.0.2.1");
  dns_.hold = true;
  int answers = 0;
  for (int i = 0; i < 5; ++i) resolver_.Resolve("example.com", [&answers](auto) { ++answers; });
  EXPECT_EQ(dns_.queries, 1);
  dns_.Release();
  EXPECT_EQ(answers, 5);
  EXPECT_EQ(dns_.queries, 3);                   // MX, A, AAAA
  executor_.Advance(std::chrono::seconds(58));  // the AAAA's absence is believed for 60 s
  Resolve("example.com");
  EXPECT_EQ(dns_.queries, 3);
  executor_.Advance(std::chrono::seconds(5));
  Resolve("example.com");
  EXPECT_GT(dns_.queries, 3);
}

TEST_F(CachingMxResolverTest, ARefreshAsksAheadAndOthersHaveWhatIsKnownMeanwhile) {
  const auto refresh = [&](Duration ahead) {
    resolver_.Refresh("example.com", executor_.clock().Now() + ahead, [](auto) {});
  };
  dns_.Mx("example.com", 300, {{10, "a.example.com"}});
  dns_.A("a.example.com", "192.0.2.1");
  refresh(std::chrono::seconds(20));
  EXPECT_EQ(dns_.queries, 3);
  refresh(std::chrono::seconds(50));
  EXPECT_EQ(dns_.queries, 3) << "it holds as long as that";
  executor_.Advance(std::chrono::seconds(30));
  dns_.hold = true;
  dns_.Mx("example.com", 300, {{10, "b.example.com"}});
  dns_.A("b.example.com", "192.0.2.2");
  refresh(std::chrono::seconds(50));
  EXPECT_EQ(dns_.queries, 4);
  ASSERT_NE(Resolve("example.com"), nullptr) << "nobody waits";
  EXPECT_EQ(Resolve("example.com")->hosts[0].name, "a.example.com");
  dns_.Release();
  EXPECT_EQ(Resolve("example.com")->hosts[0].name, "b.example.com");
  const int queries = dns_.queries;
  executor_.Advance(std::chrono::seconds(40));
  Resolve("example.com");
  EXPECT_EQ(dns_.queries, queries) << "the hosts' addresses, too, were asked for anew";
}

TEST_F(CachingMxResolverTest, ARefreshThatFailsTakesNothingAway) {
  dns_.Mx("example.com", 300, {{10, "a.example.com"}});
  dns_.A("a.example.com", "192.0.2.1");
  Resolve("example.com");
  dns_.Set("example.com", DnsType::kMx, DnsStatus::kFailed);
  executor_.Advance(std::chrono::seconds(50));
  resolver_.Refresh("example.com", executor_.clock().Now() + std::chrono::minutes(5), [](auto) {});
  EXPECT_EQ(Resolve("example.com")->outcome, MxOutcome::kFound);
  executor_.Advance(std::chrono::seconds(11));
  EXPECT_EQ(Resolve("example.com")->outcome, MxOutcome::kTemporary) << "its time is over";
}

TEST_F(CachingMxResolverTest, FailuresOfTheServerAreTemporaryAndAskedAgainSoon) {
  dns_.Set("broken.example", DnsType::kMx, DnsStatus::kFailed);
  EXPECT_EQ(Resolve("broken.example")->outcome, MxOutcome::kTemporary);
  EXPECT_NE(Resolve("broken.example")->detail.find("SERVFAIL"), std::string::npos);
  executor_.Advance(std::chrono::seconds(2));
  dns_.Mx("broken.example", 300, {{10, "a.example.com"}});
  dns_.A("a.example.com", "192.0.2.1");
  EXPECT_EQ(Resolve("broken.example")->outcome, MxOutcome::kFound);
}

TEST_F(CachingMxResolverTest, OutcomesOfDomainsThatTakeNoMail) {
  dns_.Set("no.example", DnsType::kMx, DnsStatus::kNxDomain);
  EXPECT_EQ(Resolve("no.example")->outcome, MxOutcome::kNoSuchDomain);
  dns_.Mx("null.example", 300, {{0, ""}});
  EXPECT_EQ(Resolve("null.example")->outcome, MxOutcome::kNullMx);
  EXPECT_EQ(Resolve("empty.example")->outcome, MxOutcome::kNoAddress);
  dns_.Mx("dangling.example", 300, {{10, "gone.example"}});
  dns_.Set("gone.example", DnsType::kA, DnsStatus::kNxDomain);
  dns_.Set("gone.example", DnsType::kAaaa, DnsStatus::kNxDomain);
  EXPECT_EQ(Resolve("dangling.example")->outcome, MxOutcome::kNoAddress);
}

TEST_F(CachingMxResolverTest, WithoutMxTheDomainIsItsOwnHost) {
  dns_.A("plain.example", "192.0.2.9");
  const auto result = Resolve("plain.example");
  ASSERT_EQ(result->outcome, MxOutcome::kFound);
  EXPECT_EQ(result->hosts[0].name, "plain.example");
}

TEST_F(CachingMxResolverTest, OneHostWithoutAnswerDoesNotHideTheOthers) {
  dns_.Mx("half.example", 300, {{10, "bad.example"}, {20, "good.example"}});
  dns_.Set("bad.example", DnsType::kA, DnsStatus::kFailed);
  dns_.A("good.example", "192.0.2.4");
  const auto result = Resolve("half.example");
  ASSERT_EQ(result->outcome, MxOutcome::kFound);
  EXPECT_TRUE(result->hosts[0].addresses.empty());
  EXPECT_EQ(result->hosts[1].addresses.size(), 1U);
}

TEST_F(CachingMxResolverTest, LiteralsAndRoutesAskNothingAndCountAsConsent) {
  EXPECT_EQ(Resolve("[192.0.2.5]")->hosts[0].addresses[0], "192.0.2.5");
  EXPECT_EQ(Resolve("[IPv6:2001:db8::5]")->hosts[0].addresses[0], "2001:db8::5");
  bool from_dns = true;
  resolver_.ResolveHost("10.0.0.1", [&from_dns](auto result) { from_dns = result->from_dns; });
  EXPECT_FALSE(from_dns);
  EXPECT_EQ(dns_.queries, 0);
}

// A domain with 100,000 MX costs as much as one with twenty.
TEST_F(CachingMxResolverTest, AHundredThousandMx) {
  std::vector<std::pair<uint16_t, std::string>> hosts;
  for (int i = 0; i < 100'000; ++i) {
    hosts.emplace_back(static_cast<uint16_t>(100 + i % 60'000), "h" + std::to_string(i));
  }
  hosts.emplace_back(1, "best");
  dns_.Mx("many.example", 300, hosts);
  dns_.A("best", "192.0.2.1");
  const auto result = Resolve("many.example");
  ASSERT_EQ(result->outcome, MxOutcome::kFound);
  EXPECT_EQ(result->hosts.size(), MxResolverOptions().max_mx_hosts);
  EXPECT_EQ(result->hosts[0].name, "best");
  EXPECT_LE(dns_.queries, 1 + 2 * static_cast<int>(MxResolverOptions().max_mx_hosts));
  EXPECT_EQ(resolver_.stats().cut, 1u);
}

TEST_F(CachingMxResolverTest, AHostWithManyAddresses) {
  dns_.Mx("many.example", 300, {{10, "mx"}});
  for (int i = 0; i < 5000; ++i) dns_.A("mx", "192.0.2." + std::to_string(i % 256));
  EXPECT_EQ(Resolve("many.example")->hosts[0].addresses.size(),
            MxResolverOptions().max_addresses_per_host);
}

// An MX record that names an address is no consent to a private one: it came from the DNS.
TEST_F(CachingMxResolverTest, AnAddressInAnMxRecordIsNotOurs) {
  dns_.Mx("lies.example", 300, {{10, "127.0.0.1"}, {20, "[::1]"}});
  const auto result = Resolve("lies.example");
  if (result->outcome == MxOutcome::kFound) {
    EXPECT_TRUE(result->from_dns);
  }
  // Nor does it become one by being asked for again.
  EXPECT_FALSE(Resolve("[127.0.0.1]")->from_dns);
  EXPECT_TRUE(Resolve("lies.example")->from_dns);
}

TEST_F(CachingMxResolverTest, TheCacheIsBounded) {
  MxResolverOptions options;
  options.max_cached_names = 10;
  CachingMxResolver small(executor_, dns_, options, 1);
  for (int i = 0; i < 100; ++i) {
    small.Resolve("d" + std::to_string(i) + ".example", [](auto) {});
  }
  EXPECT_LE(small.stats().cached_names, 10U);
}

TEST_F(CachingMxResolverTest, QuestionsUnderWayAreBoundedAndAllAreAnswered) {
  MxResolverOptions options;
  options.max_lookups_under_way = 4;
  CachingMxResolver small(executor_, dns_, options, 1);
  dns_.hold = true;
  int answers = 0;
  for (int i = 0; i < 50; ++i) {
    small.Resolve("d" + std::to_string(i) + ".example", [&answers](auto) { ++answers; });
  }
  EXPECT_EQ(dns_.held.size(), 4U);
  dns_.Release();
  EXPECT_EQ(answers, 50);
}

// Name servers that hang keep the lookups of others back for a second, and not until their time is
// over; they are so many at the most, and where dns-workers says how many, all of them count.
TEST_F(CachingMxResolverTest, SlowLookupsGiveTheirPlacesToOthers) {
  for (const size_t dns_workers : {0, 4}) {
    MxResolverOptions options;
    options.max_lookups_under_way = 4;
    options.max_slow_lookups = 6;
    CachingMxResolver small(executor_, dns_, options, 1);
    small.SetMaxLookups(dns_workers);
    dns_.held.clear();
    dns_.hold = true;
    int answers = 0;
    for (int i = 0; i < 50; ++i) {
      small.Resolve("d" + std::to_string(i) + ".example", [&answers](auto) { ++answers; });
    }
    executor_.Advance(std::chrono::milliseconds(900));
    EXPECT_EQ(dns_.held.size(), 4U);
    executor_.Advance(std::chrono::milliseconds(200));
    EXPECT_EQ(dns_.held.size(), dns_workers == 0 ? 8U : 4U);
    executor_.Advance(std::chrono::seconds(5));
    EXPECT_EQ(dns_.held.size(), dns_workers == 0 ? 10U : 4U);
    dns_.Release();
    EXPECT_EQ(answers, 50);
    dns_.hold = true;
    for (int i = 0; i < 50; ++i) {
      small.Resolve("e" + std::to_string(i) + ".example", [&answers](auto) { ++answers; });
    }
    EXPECT_EQ(dns_.held.size(), 4U) << "all places are there again";
    dns_.Release();
    EXPECT_EQ(answers, 100);
  }
}

// dns-workers, as a reload changes it.
TEST_F(CachingMxResolverTest, MoreMayBeUnderWayAtOnceFromNowOn) {
  CachingMxResolver resolver(executor_, dns_, {}, 1);
  resolver.SetMaxLookups(2);
  dns_.hold = true;
  int answers = 0;
  for (int i = 0; i < 10; ++i) {
    resolver.Resolve("d" + std::to_string(i) + ".example", [&answers](auto) { ++answers; });
  }
  EXPECT_EQ(dns_.held.size(), 2U);
  resolver.SetMaxLookups(5);
  EXPECT_EQ(dns_.held.size(), 5U);
  resolver.SetMaxLookups(0);
  EXPECT_EQ(dns_.held.size(), 10U);
  dns_.Release();
  EXPECT_EQ(answers, 10);
}

TEST(CachingMxResolver, AnswersToADestroyedResolverAreDropped) {
  sluice::testing::ManualExecutor executor;
  FakeDns dns;
  dns.hold = true;
  bool called = false;
  {
    CachingMxResolver resolver(executor, dns, {}, 1);
    resolver.Resolve("x.example", [&called](auto) { called = true; });
  }
  dns.Release();
  EXPECT_FALSE(called);
}

}  // namespace
}  // namespace sluice::delivery
