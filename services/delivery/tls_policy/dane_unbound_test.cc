// DANE against a real validating resolver: unbound, with zones that ldns signed.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "services/base/net/event_loop.h"
#include "services/base/testing/temp_folder.h"
#include "services/delivery/dns/caching_mx_resolver.h"
#include "services/delivery/dns/cares_client.h"
#include "services/delivery/testing/child_process.h"
#include "services/delivery/tls_policy/dane_lookup.h"

namespace sluice::delivery {
namespace {

using testing::ChildProcess;
using testing::FindProgram;
using testing::RunProgram;

constexpr char kDigest[] = "8CB0FC6C527506A053F4F14C8464BEBBD6DEDE2738D11468DD953D7D6A3021F1";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string Zone(const std::string& name) {
  const std::string digest(kDigest);
  return absl::StrCat(
      "$ORIGIN ", name, ".\n$TTL 300\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\n",
      "ns IN A 127.0.0.1\n@ IN MX 10 mx\nmx IN A 192.0.2.1\n_25._tcp.mx IN TLSA 3 1 1 ", digest,
      "\nbare IN A 192.0.2.2\npkix IN A 192.0.2.3\n_25._tcp.pkix IN TLSA 1 1 1 ", digest,
      "\nalias IN CNAME mx\nout IN CNAME mx.unsigned.test.\n_25._tcp.out IN TLSA 3 1 1 ", digest,
      "\nlist IN CNAME hub\nhub IN MX 10 mx\nfar IN CNAME hub.unsigned.test."
      "\nsix IN AAAA 2001:db8::1\n_25._tcp.six IN TLSA 2 0 1 ",
      digest, "\n");
}

// Two signed zones, one of which was changed behind its signatures, and an unsigned one.
class DaneUnbound : public ::testing::Test {
 protected:
  void SetUp() override {
    unbound_ = FindProgram("unbound");
    sign_ = FindProgram("ldns-signzone");
    if (unbound_.empty() || sign_.empty()) {
      GTEST_SKIP() << "unbound and ldnsutils (tools/packages_test.txt) are not installed";
    }
    port_ = testing::FreePort();
    std::string config = absl::StrCat(
        "server:\n  interface: 127.0.0.1\n  port: ", port_,
        "\n  do-daemonize: no\n  use-syslog: no\n  logfile: \"\"\n  verbosity: 1\n  chroot: \"\"\n"
        "  username: \"\"\n  pidfile: \"\"\n  directory: \"",
        folder_,
        "\"\n  module-config: \"validator iterator\"\n  num-threads: 1\n  do-ip6: no\n"
        "  local-zone: test. nodefault\n");
    AddZone("signed.test", true, &config);
    AddZone("tampered.test", true, &config);
    AddZone("unsigned.test", false, &config);
    config += "remote-control:\n  control-enable: no\n" + zones_;
    const std::string path = absl::StrCat(folder_, "/unbound.conf");
    std::ofstream(path) << config;
    resolver_ =
        std::make_unique<ChildProcess>(std::vector<std::string>{unbound_, "-d", "-c", path});
    ASSERT_TRUE(resolver_->WaitForOutput("start of service")) << resolver_->output();
    UseServer(absl::StrCat("127.0.0.1:", port_));
  }

  void AddZone(const std::string& name, bool sign, std::string* config) {
    std::string file = absl::StrCat(folder_, "/", name);
    std::ofstream(file) << Zone(name);
    if (sign) {
      std::string key;
      ASSERT_TRUE(RunProgram({FindProgram("ldns-keygen"), "-a", "ECDSAP256SHA256", "-k", name},
                             &key, folder_))
          << key;
      key = key.substr(0, key.find('\n'));
      std::string output;
      ASSERT_TRUE(RunProgram({sign_, name, key}, &output, folder_)) << output;
      file += ".signed";
      absl::StrAppend(config, "  trust-anchor-file: \"", folder_, "/", key, ".key\"\n");
    }
    if (name == "tampered.test") {
      std::string text = ReadFile(file);
      // The TLSA record of mx, and no signature over it.
      const size_t record = text.find("_25._tcp.mx.");
      const size_t digit = text.find("8cb0fc", record);
      ASSERT_NE(digit, std::string::npos) << text;
      text[digit] = '9';
      std::ofstream(file, std::ios::trunc) << text;
    }
    absl::StrAppend(&zones_, "auth-zone:\n  name: \"", name, ".\"\n  zonefile: \"", file,
                    "\"\n  for-downstream: no\n  for-upstream: yes\n  fallback-enabled: no\n");
  }

  void UseServer(const std::string& server) {
    auto client = CaresClient::Create(loop_, loop_.io(), {.servers = {server}});
    ASSERT_TRUE(client.ok()) << client.status();
    dns_ = *std::move(client);
    EXPECT_TRUE(dns_->trusted());
  }

  DaneResult Lookup(const std::string& host) {
    DaneResult result;
    DaneLookup lookup(*dns_);
    lookup.Lookup(host, 25, [&](DaneResult found) {
      result = std::move(found);
      loop_.Stop();
    });
    loop_.Run();
    return result;
  }

  const sluice::testing::TempFolder temp_{"dane"};
  const std::string folder_ = temp_.path();
  std::string unbound_;
  std::string sign_;
  std::string zones_;
  uint16_t port_ = 0;
  EventLoop loop_;
  std::unique_ptr<ChildProcess> resolver_;
  std::unique_ptr<CaresClient> dns_;
};

TEST_F(DaneUnbound, WhatAValidatingResolverSays) {
  const DaneResult good = Lookup("mx.signed.test");
  ASSERT_EQ(good.outcome, DaneOutcome::kUsable) << good.detail;
  ASSERT_EQ(good.tlsa.records.size(), 1u);
  EXPECT_EQ(good.tlsa.records[0].ToString(), absl::StrCat("3 1 1 ", kDigest));
  EXPECT_EQ(Lookup("six.signed.test").tlsa.records.at(0).usage, 2);
  EXPECT_EQ(Lookup("bare.signed.test").outcome, DaneOutcome::kNone);
  EXPECT_EQ(Lookup("nothing.signed.test").outcome, DaneOutcome::kNone);
  EXPECT_EQ(Lookup("pkix.signed.test").outcome, DaneOutcome::kUnusable);
  EXPECT_EQ(Lookup("mx.unsigned.test").outcome, DaneOutcome::kNone);
  EXPECT_EQ(Lookup("alias.signed.test").tlsa.base_domain, "mx.signed.test");
  EXPECT_EQ(Lookup("out.signed.test").tlsa.base_domain, "out.signed.test");
  // No downgrade: what does not validate is not taken for absent.
  const DaneResult bogus = Lookup("mx.tampered.test");
  EXPECT_EQ(bogus.outcome, DaneOutcome::kTemporary);
  EXPECT_EQ(Lookup("bare.tampered.test").outcome, DaneOutcome::kNone);
}

// Servers elsewhere, or one elsewhere among others: what they say is not believed.
TEST(CaresClient, TrustIsForLoopbackOnly) {
  EventLoop loop;
  for (const auto& [servers, trusted] :
       std::vector<std::pair<std::vector<std::string>, bool>>{{{"127.0.0.1"}, true},
                                                              {{"127.9.9.9:5353"}, true},
                                                              {{"[::1]:53"}, true},
                                                              {{"192.0.2.53"}, false},
                                                              {{"127.0.0.1", "192.0.2.53"}, false},
                                                              {{"[2001:db8::1]:53"}, false}}) {
    const auto client = CaresClient::Create(loop, loop.io(), {.servers = servers});
    ASSERT_TRUE(client.ok());
    EXPECT_EQ((*client)->trusted(), trusted) << servers[0];
  }
}

// The MX records carry the resolver's word to the worker.
TEST_F(DaneUnbound, MxRecordsAreAuthentic) {
  CachingMxResolver resolver(loop_, *dns_, {}, 1);
  for (const auto& [domain, authentic, canonical] :
       {std::tuple("signed.test", true, "signed.test"),
        std::tuple("unsigned.test", false, "unsigned.test"),
        std::tuple("list.signed.test", true, "hub.signed.test"),
        std::tuple("far.signed.test", false, "hub.unsigned.test")}) {
    std::shared_ptr<const MxResult> result;
    resolver.Resolve(domain, [&](std::shared_ptr<const MxResult> found) {
      result = std::move(found);
      loop_.Stop();
    });
    loop_.Run();
    EXPECT_EQ(result->outcome, MxOutcome::kFound) << result->detail;
    EXPECT_EQ(result->authenticated, authentic) << domain;
    EXPECT_EQ(result->canonical, canonical) << domain;
  }
}

}  // namespace
}  // namespace sluice::delivery
