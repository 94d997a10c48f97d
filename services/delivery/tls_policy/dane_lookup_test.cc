// Proves that TLSA records count where DNS vouches for them, and that nothing takes them away.
#include "services/delivery/tls_policy/dane_lookup.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <utility>

namespace sluice::delivery {
namespace {

using Key = std::pair<std::string, DnsType>;

class FakeDns final : public DnsClient {
 public:
  void Query(const std::string& name, DnsType type, Done done) override {
    asked.push_back({name, type});
    const auto found = table.find({name, type});
    done(found == table.end() ? Make(DnsStatus::kNxDomain, false, name) : found->second);
  }
  static DnsAnswer Make(DnsStatus status, bool authenticated, const std::string& canonical,
                        const std::vector<std::string>& data = {}) {
    DnsAnswer answer;
    answer.status = status;
    answer.authenticated = authenticated;
    answer.canonical = canonical;
    for (const std::string& each : data) answer.records.push_back({60, 0, each});
    answer.detail = "SERVFAIL";
    return answer;
  }
  bool Asked(const std::string& name, DnsType type) const {
    return std::find(asked.begin(), asked.end(), Key(name, type)) != asked.end();
  }
  std::map<Key, DnsAnswer> table;
  std::vector<Key> asked;
};

const std::string kEe = std::string("\x03\x01\x01", 3) + std::string(32, 'a');
const std::string kPkix = std::string("\x01\x00\x01", 3) + std::string(32, 'a');

class DaneLookupTest : public ::testing::Test {
 protected:
  DaneResult Lookup(const std::string& host) {
    DaneResult result;
    int calls = 0;
    DaneLookup lookup(dns);
    lookup.Lookup(host, 25, [&](DaneResult found) {
      result = std::move(found);
      ++calls;
    });
    EXPECT_EQ(calls, 1);
    return result;
  }
  FakeDns dns;
};

TEST_F(DaneLookupTest, AuthenticRecordsAreUsed) {
  dns.table[{"mx.example", DnsType::kA}] =
      FakeDns::Make(DnsStatus::kAnswer, true, "mx.example", {"192.0.2.1"});
  dns.table[{"_25._tcp.mx.example", DnsType::kTlsa}] =
      FakeDns::Make(DnsStatus::kAnswer, true, "_25._tcp.mx.example", {kPkix, kEe, "x"});
  const DaneResult result = Lookup("mx.example");
  EXPECT_EQ(result.outcome, DaneOutcome::kUsable);
  EXPECT_EQ(result.tlsa.base_domain, "mx.example");
  ASSERT_EQ(result.tlsa.records.size(), 1u);
  EXPECT_EQ(result.tlsa.records[0].usage, 3);
}

// RFC 7672 section 2.2.2: no TLSA question for a host in an unsigned zone.
TEST_F(DaneLookupTest, UnsignedHostsHaveNoDane) {
  dns.table[{"mx.example", DnsType::kA}] =
      FakeDns::Make(DnsStatus::kAnswer, false, "mx.example", {"192.0.2.1"});
  EXPECT_EQ(Lookup("mx.example").outcome, DaneOutcome::kNone);
  EXPECT_FALSE(dns.Asked("_25._tcp.mx.example", DnsType::kTlsa));
}

// A signed host with IPv6 only, and one without TLSA.
TEST_F(DaneLookupTest, ADenialTellsWhetherTheZoneIsSigned) {
  dns.table[{"mx.example", DnsType::kA}] = FakeDns::Make(DnsStatus::kNoData, true, "mx.example");
  EXPECT_EQ(Lookup("mx.example").outcome, DaneOutcome::kNone);
  EXPECT_TRUE(dns.Asked("_25._tcp.mx.example", DnsType::kTlsa));
}

// No downgrade: whoever can make answers fail cannot make DANE go away.
TEST_F(DaneLookupTest, FailuresAreTemporary) {
  dns.table[{"mx.example", DnsType::kA}] = FakeDns::Make(DnsStatus::kFailed, false, "");
  EXPECT_EQ(Lookup("mx.example").outcome, DaneOutcome::kTemporary);
  dns.table[{"mx.example", DnsType::kA}] =
      FakeDns::Make(DnsStatus::kAnswer, true, "mx.example", {"192.0.2.1"});
  dns.table[{"_25._tcp.mx.example", DnsType::kTlsa}] = FakeDns::Make(DnsStatus::kFailed, false, "");
  const DaneResult result = Lookup("mx.example");
  EXPECT_EQ(result.outcome, DaneOutcome::kTemporary);
  EXPECT_EQ(result.detail, "TLSA of mx.example: SERVFAIL");
}

TEST_F(DaneLookupTest, UnauthenticRecordsAreNone) {
  dns.table[{"mx.example", DnsType::kA}] =
      FakeDns::Make(DnsStatus::kAnswer, true, "mx.example", {"192.0.2.1"});
  dns.table[{"_25._tcp.mx.example", DnsType::kTlsa}] =
      FakeDns::Make(DnsStatus::kAnswer, false, "_25._tcp.mx.example", {kEe});
  EXPECT_EQ(Lookup("mx.example").outcome, DaneOutcome::kNone);
}

// RFC 7672 section 3.1.3: records that cannot be used still demand TLS.
TEST_F(DaneLookupTest, UnusableRecordsDemandTls) {
  dns.table[{"mx.example", DnsType::kA}] =
      FakeDns::Make(DnsStatus::kAnswer, true, "mx.example", {"192.0.2.1"});
  dns.table[{"_25._tcp.mx.example", DnsType::kTlsa}] =
      FakeDns::Make(DnsStatus::kAnswer, true, "_25._tcp.mx.example", {kPkix, ""});
  EXPECT_EQ(Lookup("mx.example").outcome, DaneOutcome::kUnusable);
}

TEST_F(DaneLookupTest, TheEndOfTheAliasesComesFirst) {
  dns.table[{"mx.example", DnsType::kA}] =
      FakeDns::Make(DnsStatus::kAnswer, true, "real.example", {"192.0.2.1"});
  dns.table[{"_25._tcp.mx.example", DnsType::kTlsa}] =
      FakeDns::Make(DnsStatus::kAnswer, true, "_25._tcp.mx.example", {kEe});
  EXPECT_EQ(Lookup("mx.example").tlsa.base_domain, "mx.example");
  EXPECT_TRUE(dns.Asked("_25._tcp.real.example", DnsType::kTlsa));
  dns.table[{"_25._tcp.real.example", DnsType::kTlsa}] =
      FakeDns::Make(DnsStatus::kAnswer, true, "_25._tcp.real.example", {kEe});
  EXPECT_EQ(Lookup("mx.example").tlsa.base_domain, "real.example");
}

// A signed alias to an unsigned name: the alias's own TLSA hold.
TEST_F(DaneLookupTest, ASignedAliasMayHaveItsOwn) {
  dns.table[{"mx.example", DnsType::kA}] =
      FakeDns::Make(DnsStatus::kAnswer, false, "unsigned.example", {"192.0.2.1"});
  dns.table[{"_25._tcp.mx.example", DnsType::kTlsa}] =
      FakeDns::Make(DnsStatus::kAnswer, true, "_25._tcp.mx.example", {kEe});
  dns.table[{"mx.example", DnsType::kCname}] =
      FakeDns::Make(DnsStatus::kAnswer, false, "mx.example", {"x"});
  EXPECT_EQ(Lookup("mx.example").outcome, DaneOutcome::kNone);
  dns.table[{"mx.example", DnsType::kCname}].authenticated = true;
  EXPECT_EQ(Lookup("mx.example").outcome, DaneOutcome::kUsable);
  EXPECT_FALSE(dns.Asked("_25._tcp.unsigned.example", DnsType::kTlsa));
}

}  // namespace
}  // namespace sluice::delivery
