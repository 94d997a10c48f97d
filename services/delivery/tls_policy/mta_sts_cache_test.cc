// Proves that MTA-STS policies are fetched once, kept as long as they say, and refreshed before
// they end.
#include "services/delivery/tls_policy/mta_sts_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/testing/manual_executor.h"

namespace sluice::delivery {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

// TXT records from a table; names that are not in it do not exist.
class FakeTxt final : public DnsClient {
 public:
  void Query(const std::string& name, DnsType type, Done done) override {
    EXPECT_EQ(type, DnsType::kTxt);
    ++queries;
    DnsAnswer answer;
    answer.status = broken ? DnsStatus::kFailed : DnsStatus::kNxDomain;
    answer.ttl_s = 60;
    if (const auto found = table.find(name); found != table.end() && !broken) {
      answer.status = DnsStatus::kAnswer;
      answer.records.push_back(
          {60, 0, std::string(1, static_cast<char>(found->second.size())) + found->second});
    }
    done(std::move(answer));
  }
  void Announce(const std::string& domain, const std::string& id) {
    table["_mta-sts." + domain] = "v=STSv1; id=" + id;
  }
  std::map<std::string, std::string> table;
  bool broken = false;
  int queries = 0;
};

class FakeFetcher final : public PolicyFetcher {
 public:
  void Fetch(const std::string& domain, Done done) override {
    under_way.emplace_back(domain, std::move(done));
  }
  void Finish(size_t i, absl::StatusOr<std::string> text) {
    Done done = std::move(under_way[i].second);
    under_way.erase(under_way.begin() + static_cast<long>(i));
    done(std::move(text));
  }
  std::vector<std::pair<std::string, Done>> under_way;
};

std::string Policy(std::string_view mode, int max_age_s = 86400) {
  return absl::StrCat("version: STSv1\nmode: ", mode.data(),
                      "\nmx: mx.example\nmax_age: ", max_age_s, "\n");
}

class MtaStsCacheTest : public ::testing::Test {
 protected:
  void Ask(const std::string& domain) {
    cache->Lookup(domain, [this, domain](auto result) { answers.emplace_back(domain, result); });
  }
  const MtaStsResult& last() const { return *answers.back().second; }

  ::sluice::testing::ManualExecutor executor;
  FakeTxt dns;
  FakeFetcher fetcher;
  MtaStsOptions options;
  std::unique_ptr<MtaStsCache> cache =
      std::make_unique<MtaStsCache>(executor, dns, fetcher, options);
  std::vector<std::pair<std::string, std::shared_ptr<const MtaStsResult>>> answers;
};

TEST_F(MtaStsCacheTest, WithoutARecordNothingIsFetched) {
  Ask("a.example");
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_FALSE(last().found);
  EXPECT_EQ(last().policy.mode, MtaStsMode::kNone);
  Ask("a.example");
  EXPECT_EQ(dns.queries, 1);
  EXPECT_TRUE(fetcher.under_way.empty());
}

TEST_F(MtaStsCacheTest, OneFetchForAllWhoAskAndThenTheCache) {
  dns.Announce("a.example", "1");
  Ask("a.example");
  Ask("a.example");
  EXPECT_TRUE(answers.empty());
  ASSERT_EQ(fetcher.under_way.size(), 1u);
  fetcher.Finish(0, Policy("enforce"));
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(last().policy.mode, MtaStsMode::kEnforce);
  EXPECT_EQ(last().id, "1");
  executor.Advance(hours(2));
  Ask("a.example");  // the record is asked for again, and says the same
  EXPECT_EQ(answers.size(), 3u);
  EXPECT_TRUE(fetcher.under_way.empty());
}

// RFC 8461 section 3.3: an announced policy that cannot be had is none, and the failure is told.
TEST_F(MtaStsCacheTest, AFailedFetchMeansNoPolicyAndIsNotRepeatedAtOnce) {
  dns.Announce("a.example", "1");
  Ask("a.example");
  fetcher.Finish(0, absl::UnauthenticatedError("certificate has expired"));
  EXPECT_FALSE(last().found);
  EXPECT_EQ(last().failure_type, "sts-webpki-invalid");
  EXPECT_EQ(last().failure_reason, "certificate has expired");
  executor.Advance(minutes(2));
  Ask("a.example");
  EXPECT_TRUE(fetcher.under_way.empty());
  EXPECT_EQ(last().failure_type, "sts-webpki-invalid");
  executor.Advance(minutes(4));
  Ask("a.example");
  ASSERT_EQ(fetcher.under_way.size(), 1u);
  fetcher.Finish(0, std::string("<html>"));
  EXPECT_EQ(last().failure_type, "sts-policy-invalid");
  dns.Announce("a.example", "2");  // another id need not wait
  executor.Advance(minutes(1));
  Ask("a.example");
  ASSERT_EQ(fetcher.under_way.size(), 1u);
  fetcher.Finish(0, Policy("testing"));
  EXPECT_EQ(last().policy.mode, MtaStsMode::kTesting);
  EXPECT_EQ(last().failure_type, "");
}

// No downgrade: neither a DNS that fails, nor a record that is gone, nor a broken policy host ends
// a policy before its time.
TEST_F(MtaStsCacheTest, APolicyHoldsUntilItExpires) {
  dns.Announce("a.example", "1");
  Ask("a.example");
  fetcher.Finish(0, Policy("enforce", 86400));
  dns.broken = true;
  executor.Advance(hours(5));
  Ask("a.example");
  EXPECT_EQ(last().policy.mode, MtaStsMode::kEnforce);
  dns.broken = false;
  dns.table.clear();
  executor.Advance(hours(5));
  Ask("a.example");
  EXPECT_EQ(last().policy.mode, MtaStsMode::kEnforce);
  dns.Announce("a.example", "2");
  executor.Advance(hours(1));
  Ask("a.example");
  fetcher.Finish(0, absl::UnavailableError("refused"));
  EXPECT_EQ(last().policy.mode, MtaStsMode::kEnforce);
  EXPECT_EQ(last().failure_type, "sts-policy-fetch-error");
  dns.table.clear();
  executor.Advance(hours(14));
  Ask("a.example");
  EXPECT_FALSE(last().found);
  EXPECT_EQ(last().failure_type, "");
}

TEST_F(MtaStsCacheTest, ItIsRefreshedBeforeItExpiresAndNobodyWaits) {
  dns.Announce("a.example", "1");
  Ask("a.example");
  fetcher.Finish(0, Policy("enforce", 86400));
  executor.Advance(hours(13));
  Ask("a.example");
  EXPECT_EQ(answers.size(), 2u);
  ASSERT_EQ(fetcher.under_way.size(), 1u);
  Ask("a.example");
  EXPECT_EQ(answers.size(), 3u);
  fetcher.Finish(0, Policy("enforce", 86400));
  executor.Advance(hours(13));
  Ask("a.example");
  EXPECT_TRUE(last().found);
}

// An expired policy is fetched anew even where the record's answer is still believed.
TEST_F(MtaStsCacheTest, AnExpiredPolicyIsFetchedAgain) {
  dns.Announce("a.example", "1");
  Ask("a.example");
  fetcher.Finish(0, Policy("enforce", 90));
  executor.Advance(seconds(91));
  Ask("a.example");
  EXPECT_EQ(answers.size(), 1u);
  ASSERT_EQ(fetcher.under_way.size(), 1u);
  fetcher.Finish(0, Policy("enforce", 90));
  EXPECT_TRUE(last().found);
}

// A hanging policy host holds up its own domain, and no other one.
// A policy that says it may not be kept is fetched once in a minute, and not at each connection.
TEST_F(MtaStsCacheTest, NoAgeIsNoLicenceToFetchAlways) {
  dns.Announce("a.example", "1");
  Ask("a.example");
  fetcher.Finish(0, Policy("enforce", 0));
  EXPECT_EQ(last().policy.max_age_s, 0u);
  for (int second = 0; second < 60; ++second) {
    Ask("a.example");
    EXPECT_EQ(last().policy.mode, MtaStsMode::kEnforce);
    EXPECT_TRUE(fetcher.under_way.empty());
    executor.Advance(seconds(1));
  }
  EXPECT_EQ(answers.size(), 61u);
  EXPECT_EQ(dns.queries, 1);
  Ask("a.example");
  ASSERT_EQ(fetcher.under_way.size(), 1u);
  // What replaces it counts from then on; one that cannot be had is no policy, and is left alone.
  fetcher.Finish(0, absl::UnavailableError("refused"));
  EXPECT_FALSE(last().found);
  Ask("a.example");
  executor.Advance(minutes(2));
  Ask("a.example");
  EXPECT_TRUE(fetcher.under_way.empty());
  EXPECT_EQ(cache->stats().fetches, 2u);
}

TEST_F(MtaStsCacheTest, DomainsDoNotWaitForEachOther) {
  dns.Announce("slow.example", "1");
  dns.Announce("fast.example", "1");
  Ask("slow.example");
  Ask("fast.example");
  Ask("none.example");
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].first, "none.example");
  ASSERT_EQ(fetcher.under_way.size(), 2u);
  fetcher.Finish(1, Policy("enforce"));
  EXPECT_EQ(answers.back().first, "fast.example");
  EXPECT_EQ(answers.size(), 2u);
}

TEST_F(MtaStsCacheTest, FetchesAreBounded) {
  options.max_fetches = 2;
  cache = std::make_unique<MtaStsCache>(executor, dns, fetcher, options);
  for (int i = 0; i < 5; ++i) {
    dns.Announce(absl::StrCat("d", i), "1");
    Ask(absl::StrCat("d", i));
  }
  EXPECT_EQ(fetcher.under_way.size(), 2u);
  for (int i = 0; i < 5; ++i) fetcher.Finish(0, Policy("enforce"));
  EXPECT_EQ(answers.size(), 5u);
}

// A flood of domains without a policy takes none away.
TEST_F(MtaStsCacheTest, BoundsOfBothKinds) {
  options.max_policies = 2;
  options.max_without = 3;
  cache = std::make_unique<MtaStsCache>(executor, dns, fetcher, options);
  dns.Announce("a.example", "1");
  Ask("a.example");
  fetcher.Finish(0, Policy("enforce"));
  for (int i = 0; i < 100; ++i) Ask(absl::StrCat("flood", i));
  EXPECT_EQ(cache->stats().without, 3u);
  EXPECT_EQ(cache->stats().policies, 1u);
  Ask("a.example");
  EXPECT_TRUE(last().found);
  for (const char* domain : {"b.example", "c.example"}) {
    dns.Announce(domain, "1");
    Ask(domain);
    fetcher.Finish(0, Policy("enforce"));
  }
  EXPECT_EQ(cache->stats().policies, 2u);
}

TEST_F(MtaStsCacheTest, RecheckAsksTheDnsOnceInAWhile) {
  dns.Announce("a.example", "1");
  Ask("a.example");
  fetcher.Finish(0, Policy("enforce"));
  dns.Announce("a.example", "2");
  executor.Advance(seconds(10));
  cache->Recheck("a.example");
  Ask("a.example");
  ASSERT_EQ(fetcher.under_way.size(), 1u);
  fetcher.Finish(0, Policy("none"));
  EXPECT_EQ(last().policy.mode, MtaStsMode::kNone);
  EXPECT_TRUE(last().found);
  cache->Recheck("a.example");
  const int before = dns.queries;
  Ask("a.example");
  EXPECT_EQ(dns.queries, before);
}

TEST_F(MtaStsCacheTest, PoliciesOutliveAProcess) {
  dns.Announce("a.example", "1");
  dns.Announce("b.example", "7");
  Ask("a.example");
  fetcher.Finish(0, Policy("enforce", 3600));
  Ask("b.example");
  fetcher.Finish(0, Policy("testing", 60));
  const uint64_t changes = cache->changes();
  const std::string saved = cache->Save();
  EXPECT_EQ(cache->changes(), changes);
  executor.Advance(minutes(5));
  cache = std::make_unique<MtaStsCache>(executor, dns, fetcher, options);
  cache->Load(saved + "nonsense\na b c d e f\nx 1 99999999999999999999 1 enforce mx\n");
  EXPECT_EQ(cache->stats().policies, 1u);
  dns.broken = true;
  Ask("a.example");
  EXPECT_EQ(last().policy.mode, MtaStsMode::kEnforce);
  EXPECT_TRUE(MtaStsAllows(last().policy, "mx.example"));
  Ask("b.example");
  EXPECT_FALSE(last().found);  // it had expired
  executor.Advance(hours(1));
  Ask("a.example");
  EXPECT_FALSE(last().found);
}

TEST_F(MtaStsCacheTest, AShortPolicyIsHeldAsLongAfterARestart) {
  dns.Announce("a.example", "1");
  Ask("a.example");
  fetcher.Finish(0, Policy("enforce", 1));
  const std::string saved = cache->Save();
  cache = std::make_unique<MtaStsCache>(executor, dns, fetcher, options);
  cache->Load(saved);
  EXPECT_EQ(cache->Save(), saved);
  executor.Advance(options.min_lifetime - seconds(1));
  dns.broken = true;
  Ask("a.example");
  EXPECT_TRUE(last().found);
  executor.Advance(seconds(2));
  Ask("a.example");
  EXPECT_FALSE(last().found);
}

TEST_F(MtaStsCacheTest, AnswersToADestroyedCacheAreDropped) {
  dns.Announce("a.example", "1");
  Ask("a.example");
  auto pending = std::move(fetcher.under_way);
  cache.reset();
  pending[0].second(Policy("enforce"));
  EXPECT_TRUE(answers.empty());
}

}  // namespace
}  // namespace sluice::delivery
