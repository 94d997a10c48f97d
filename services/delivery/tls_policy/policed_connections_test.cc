// Proves that connections are held to what a domain publishes, and that the report says how it
// went.
#include "services/delivery/tls_policy/policed_connections.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/testing/manual_executor.h"
#include "services/base/testing/temp_folder.h"
#include "services/delivery/testing/test_certificate.h"

namespace sluice::delivery {
namespace {

using testing::Sha256;
using testing::TestCertificate;

class FakeDns final : public DnsClient {
 public:
  void Query(const std::string& name, DnsType type, Done done) override {
    DnsAnswer answer;
    answer.canonical = name;
    answer.authenticated = true;
    answer.status = DnsStatus::kNxDomain;
    const auto found = table.find({name, type});
    if (found != table.end()) {
      answer.status = found->second.empty() ? DnsStatus::kFailed : DnsStatus::kAnswer;
      answer.records.push_back({60, 0, found->second});
    }
    done(std::move(answer));
  }
  std::map<std::pair<std::string, DnsType>, std::string> table;
};

class FakeFetcher final : public PolicyFetcher {
 public:
  void Fetch(const std::string&, Done done) override { done(text); }
  absl::StatusOr<std::string> text = absl::UnavailableError("none");
};

// Remotes under the test's hand: what a connection does with its demand is the test's.
class FakeConnections final : public ConnectionFactory {
 public:
  std::unique_ptr<Connection> Connect(const ConnectTarget& target,
                                      ConnectionHandler* handler) override {
    ++connects;
    last = target;
    to = handler;
    return std::make_unique<Idle>(*this);
  }
  // As STARTTLS goes: the certificates are judged, and the connection is ready, or ends.
  void Encrypt(const std::vector<std::string>& chain) {
    const absl::Status status = last.tls.check->Check({}, chain);
    if (status.ok()) return to->OnReady();
    ConnectionEnd end;
    end.reply.set_stage(common::v1::STAGE_STARTTLS);
    end.reply.set_text(std::string(status.message()));
    to->OnClosed(std::move(end));
  }
  // No STARTTLS is offered.
  void StayInClear() {
    if (!last.tls.required) return to->OnReady();
    ConnectionEnd end;
    end.reply.set_stage(common::v1::STAGE_STARTTLS);
    end.reply.set_enhanced("4.7.4");
    to->OnClosed(std::move(end));
  }
  struct Idle final : Connection {
    explicit Idle(FakeConnections& owner) : owner(owner) {}
    void Send(Transaction) override {}
    void Quit() override { ++owner.quits; }
    void Abort() override { ++owner.aborts; }
    FakeConnections& owner;
  };
  int quits = 0;
  int aborts = 0;
  int connects = 0;
  ConnectTarget last;
  ConnectionHandler* to = nullptr;
};

struct Owner final : ConnectionHandler {
  void OnReady() override { ++ready; }
  void OnResult(queue::v1::GroupResult) override {}
  bool MayFinish(uint64_t) override { return true; }
  void OnClosed(ConnectionEnd given) override {
    end = std::move(given);
    connection.reset();
  }
  void OnTrace(bool reply, std::string_view text) override {
    trace.append(reply ? "S: " : "C: ").append(text);
  }
  int ready = 0;
  std::string trace;
  std::optional<ConnectionEnd> end;
  std::unique_ptr<Connection> connection;
};

class PolicedConnectionsTest : public ::testing::Test {
 protected:
  PolicedConnectionsTest() {
    const sluice::testing::TempFolder folder("policed");
    const std::string file = folder.File("ca.pem");
    std::ofstream(file) << authority.Pem();
    verifier = *ChainVerifier::Create(file);
    policed = std::make_unique<PolicedConnections>(executor, inner, policy, *verifier, reports);
    dns.table[{"mx.example.test", DnsType::kA}] = "192.0.2.1";
  }
  void Sts(const std::string& mode, const std::string& mx = "mx.example.test") {
    const std::string text = "v=STSv1; id=1";
    dns.table[{"_mta-sts.example.test", DnsType::kTxt}] =
        std::string(1, static_cast<char>(text.size())) + text;
    fetcher.text = "version: STSv1\nmode: " + mode + "\nmx: " + mx + "\nmax_age: 86400\n";
  }
  void Tlsa(const TestCertificate& certificate) {
    dns.table[{"_25._tcp.mx.example.test", DnsType::kTlsa}] =
        std::string("\x03\x01\x01", 3) + Sha256(certificate.KeyDer());
  }
  std::unique_ptr<Owner> Connect(bool dane = true, bool sts = true) {
    auto settings = std::make_shared<policy::v1::QueueSettings>();
    settings->set_use_dane(dane);
    settings->set_use_mta_sts(sts);
    settings->set_use_starttls(use_starttls);
    ConnectTarget target;
    target.host = "mx.example.test";
    target.address = "192.0.2.1";
    target.settings = settings;
    target.route = {"example.test", true, true};
    auto owner = std::make_unique<Owner>();
    owner->connection = policed->Connect(target, owner.get());
    return owner;
  }
  // "successes/failures result-type" of the day's only policy.
  std::string Counted() {
    const auto day = reports.Take();
    if (day.empty()) return "nothing";
    const auto& count = day.at("example.test").at(0);
    return absl::StrCat(count.successes, "/", count.failures, count.details.empty() ? "" : " ",
                        count.details.empty() ? "" : count.details.begin()->first.result_type);
  }

  ::sluice::testing::ManualExecutor executor;
  FakeDns dns;
  FakeFetcher fetcher;
  MtaStsCache cache{executor, dns, fetcher, {}};
  DaneLookup dane_lookup{dns};
  TlsPolicy policy{cache, dane_lookup};
  TlsReportCounters reports;
  FakeConnections inner;
  TestCertificate authority{{.authority = true}};
  TestCertificate good{{.names = {"mx.example.test"}}, &authority};
  TestCertificate self_signed{{.names = {"mx.example.test"}}};
  std::unique_ptr<ChainVerifier> verifier;
  std::unique_ptr<PolicedConnections> policed;
  bool use_starttls = true;
};

TEST_F(PolicedConnectionsTest, UnpolicedTargetsGoStraightOn) {
  Sts("enforce", "other.test");
  const auto owner = Connect(false, false);
  EXPECT_EQ(inner.connects, 1);
  EXPECT_EQ(inner.last.tls.check, nullptr);
  EXPECT_EQ(policed->stats().checks, 0u);
}

TEST_F(PolicedConnectionsTest, WhatIsSaidOnTheInnerOneIsTheOwnersToLog) {
  auto owner = Connect();
  executor.RunPosted();
  inner.to->OnTrace(true, "250 ok");
  EXPECT_EQ(owner->trace, "S: 250 ok");
}

TEST_F(PolicedConnectionsTest, AnEndIsTheInnerConnectionsEnd) {
  const auto owner = Connect();
  inner.StayInClear();
  owner->connection->Quit();
  EXPECT_EQ(inner.quits, 1);
  owner->connection->Abort();  // whatever is under way, not after it
  EXPECT_EQ(inner.aborts, 1);
  EXPECT_EQ(inner.quits, 1);
}

TEST_F(PolicedConnectionsTest, WithoutAPolicyAnythingGoes) {
  auto owner = Connect();
  EXPECT_FALSE(inner.last.tls.required);
  inner.Encrypt({self_signed.Der()});
  EXPECT_EQ(owner->ready, 1);
  EXPECT_EQ(Counted(), "1/0");
  owner = Connect();
  inner.StayInClear();
  EXPECT_EQ(owner->ready, 1);
  EXPECT_EQ(Counted(), "0/1 starttls-not-supported");
}

// `use-starttls no` is our doing: nobody is told that the receiver lacks it.
TEST_F(PolicedConnectionsTest, WhatWeDidNotAskForIsNotReported) {
  use_starttls = false;
  for (const char* mode : {"testing", "none"}) {
    Sts(mode);
    auto owner = Connect();
    EXPECT_FALSE(inner.last.tls.required);
    inner.StayInClear();
    EXPECT_EQ(owner->ready, 1);
    EXPECT_EQ(Counted(), "nothing");
  }
}

// Each demand has TLS sessions of its own; none is where nothing is demanded.
TEST_F(PolicedConnectionsTest, SessionsAreOfADemand) {
  auto owner = Connect();
  EXPECT_EQ(inner.last.tls.check->session_scope(), "");
  Sts("enforce");
  cache.Recheck("example.test");
  owner = Connect();
  EXPECT_EQ(inner.last.tls.check->session_scope(), "mta-sts");
  Tlsa(self_signed);
  owner = Connect();
  const std::string first = inner.last.tls.check->session_scope();
  EXPECT_TRUE(first.starts_with("dane mx.example.test\n3 1 1 ")) << first;
  Tlsa(good);
  owner = Connect();
  EXPECT_NE(inner.last.tls.check->session_scope(), first);
  // Records that SMTP cannot use demand TLS alone.
  dns.table[{"_25._tcp.mx.example.test", DnsType::kTlsa}] = std::string("\x01\x01\x01 no", 6);
  owner = Connect(true, false);
  EXPECT_EQ(inner.last.tls.check->session_scope(), "encrypted");
}

TEST_F(PolicedConnectionsTest, EnforcedMtaSts) {
  Sts("enforce");
  auto owner = Connect();
  EXPECT_TRUE(inner.last.tls.required);
  inner.Encrypt({good.Der()});
  EXPECT_EQ(owner->ready, 1);
  EXPECT_EQ(inner.last.tls.check->verdict(), "mta-sts");
  EXPECT_EQ(Counted(), "1/0");
  owner = Connect();
  inner.Encrypt({self_signed.Der()});
  EXPECT_EQ(owner->ready, 0);
  ASSERT_TRUE(owner->end);
  EXPECT_EQ(Counted(), "0/1 certificate-not-trusted");
  owner = Connect();
  inner.StayInClear();
  ASSERT_TRUE(owner->end);
  EXPECT_EQ(Counted(), "0/1 starttls-not-supported");
}

// A host that the policy does not know is not even connected to.
TEST_F(PolicedConnectionsTest, AHostOutsideOfThePolicy) {
  Sts("enforce", "other.test");
  auto owner = Connect();
  EXPECT_EQ(inner.connects, 0);
  EXPECT_FALSE(owner->end);  // never within the call
  executor.RunPosted();
  ASSERT_TRUE(owner->end);
  EXPECT_EQ(owner->end->reply.stage(), common::v1::STAGE_STARTTLS);
  EXPECT_NE(std::string(owner->end->reply.text()).find("no mx of the domain's policy"),
            std::string::npos);
  EXPECT_EQ(Counted(), "0/1 validation-failure");
  owner = Connect();
  owner.reset();
  executor.RunPosted();  // nobody is called
}

TEST_F(PolicedConnectionsTest, TestingReportsAndDelivers) {
  Sts("testing");
  auto owner = Connect();
  EXPECT_FALSE(inner.last.tls.required);
  inner.Encrypt({self_signed.Der()});
  EXPECT_EQ(owner->ready, 1);
  EXPECT_EQ(Counted(), "0/1 certificate-not-trusted");
  owner = Connect();
  inner.StayInClear();
  EXPECT_EQ(owner->ready, 1);
  EXPECT_EQ(Counted(), "0/1 starttls-not-supported");
  // STARTTLS was offered, and failed: what is then said in clear is no lack of it.
  owner = Connect();
  inner.last.tls.check->OnHandshakeFailed("no common cipher");
  inner.StayInClear();
  EXPECT_EQ(owner->ready, 1);
  EXPECT_EQ(Counted(), "0/1 validation-failure");
}

// A good certificate of a host that the tested policy does not name verifies nothing.
TEST_F(PolicedConnectionsTest, TestingAHostOutsideOfThePolicy) {
  Sts("testing", "other.test");
  const auto owner = Connect();
  inner.Encrypt({good.Der()});
  EXPECT_EQ(owner->ready, 1);
  EXPECT_EQ(inner.last.tls.check->verdict(), "not verified");
  EXPECT_EQ(Counted(), "0/1 validation-failure");
}

TEST_F(PolicedConnectionsTest, Dane) {
  Tlsa(self_signed);
  auto owner = Connect();
  EXPECT_TRUE(inner.last.tls.required);
  EXPECT_EQ(inner.last.tls.server_name, "mx.example.test");
  inner.Encrypt({self_signed.Der()});
  EXPECT_EQ(owner->ready, 1);
  EXPECT_EQ(inner.last.tls.check->verdict(), "dane");
  EXPECT_EQ(Counted(), "1/0");
  // A certificate of a public authority is no substitute.
  owner = Connect();
  inner.Encrypt({good.Der()});
  EXPECT_TRUE(owner->end);
  EXPECT_EQ(policed->stats().failed, 1u);
  // Lookups that fail do not open a way round it.
  dns.table[{"_25._tcp.mx.example.test", DnsType::kTlsa}] = "";
  owner = Connect();
  executor.RunPosted();
  ASSERT_TRUE(owner->end);
  EXPECT_EQ(inner.connects, 2);
}

}  // namespace
}  // namespace sluice::delivery
