// From directives to the TLS of listeners: whose certificate, whose versions, what stays on a
// reload.
#include "services/ingest/io/listener_tls.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "services/base/net/tls_certificate.h"
#include "services/base/net/tls_self_signed.h"
#include "services/base/testing/temp_folder.h"
#include "services/ingest/testing/fake_policy.h"

namespace sluice::ingest {
namespace {

class ListenerTlsTest : public ::testing::Test {
 protected:
  ListenerTlsTest() { Write("one"); }
  void Write(const std::string& name) {
    std::ofstream(path_) << ToPem(MakeCertificate({.common_name = name}));
  }
  void AddGlobal() {
    policy_.global_settings.mutable_smtp_server_tls_certificates()->add_values()->set_file(path_);
    policy_.global_settings.set_smtp_server_tls_allow_tlsv1_2(true);
    policy_.global_settings.set_smtp_server_tls_allow_tlsv1_3(true);
  }

  const sluice::testing::TempFolder temp_{"listener-tls"};
  const std::string path_ = temp_.File("server.pem");
  testing::FakePolicy policy_;
  ListenerTls tls_{Clock::Real()};
  const std::vector<Endpoint> addresses_ = {*Endpoint::Parse("192.0.2.1:25"),
                                            *Endpoint::Parse("192.0.2.1:465")};
};

TEST_F(ListenerTlsTest, NoCertificateNoTls) {
  const auto made = tls_.Make(policy_, addresses_);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ((*made)[0].context, nullptr);
  policy_.listeners["192.0.2.1:465"].set_immediate_tls(true);
  const auto refused = tls_.Make(policy_, addresses_);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(refused.status().message().find("192.0.2.1:465"), absl::string_view::npos);
}

TEST_F(ListenerTlsTest, ListenersShareTheGlobalCertificateUnlessTheySaySomething) {
  AddGlobal();
  policy_.listeners["192.0.2.1:465"].set_immediate_tls(true);
  auto made = tls_.Make(policy_, addresses_);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_NE((*made)[0].context, nullptr);
  EXPECT_EQ((*made)[0].context, (*made)[1].context);
  EXPECT_FALSE((*made)[0].immediate);
  EXPECT_TRUE((*made)[1].immediate);
  // What did not change stays, tickets and all.
  policy_.listeners["192.0.2.1:465"].set_tls_allow_tlsv1_2(false);
  auto again = tls_.Make(policy_, addresses_);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ((*again)[0].context, (*made)[0].context);
  EXPECT_NE((*again)[1].context, (*made)[0].context);
  EXPECT_FALSE((*again)[1].context->options().protocols.tls1_2);
  policy_.listeners["192.0.2.1:465"].mutable_tls_certificates()->add_values()->set_file("none.pem");
  const auto refused = tls_.Make(policy_, addresses_);
  EXPECT_NE(refused.status().message().find("none.pem"), absl::string_view::npos);
}

TEST_F(ListenerTlsTest, WhatAListenerSaysGoesBeforeWhatIsSaidForAll) {
  AddGlobal();
  auto& global = policy_.global_settings;
  global.set_smtp_server_tls_ca_file(path_);
  global.set_smtp_server_tls_allow_tlsv1(true);
  global.set_smtp_server_tls_allow_tlsv1_1(true);
  global.set_smtp_server_tls_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256");
  global.set_smtp_server_tls_ciphersuites("TLS_AES_128_GCM_SHA256");
  auto& own = policy_.listeners["192.0.2.1:465"];
  own.set_tls_ca_file("");
  own.set_tls_allow_tlsv1(false);
  own.set_tls_allow_tlsv1_1(false);
  own.set_tls_allow_tlsv1_3(false);
  own.set_tls_ciphers("HIGH");
  own.set_tls_ciphersuites("TLS_AES_256_GCM_SHA384");
  const auto made = tls_.Make(policy_, addresses_);
  ASSERT_TRUE(made.ok()) << made.status();
  const TlsServerOptions& all = (*made)[0].context->options();
  EXPECT_EQ(all.ca_file, path_);
  EXPECT_EQ(all.protocols, (TlsProtocols{true, true, true, true, "ECDHE-ECDSA-AES128-GCM-SHA256",
                                         "TLS_AES_128_GCM_SHA256"}));
  const TlsServerOptions& listener = (*made)[1].context->options();
  EXPECT_EQ(listener.ca_file, "");
  EXPECT_EQ(listener.protocols,
            (TlsProtocols{false, false, true, false, "HIGH", "TLS_AES_256_GCM_SHA384"}));
}

TEST_F(ListenerTlsTest, UsersAreKnownByTheirCertificate) {
  AddGlobal();
  auto& user = policy_.users.emplace_back();
  user.set_name("tim");
  user.set_authentication_method("password");
  user.set_tls_certificate(path_);
  auto made = tls_.Make(policy_, addresses_);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ((*made)[0].users, nullptr);
  EXPECT_FALSE((*made)[0].context->options().ask_client_certificate);
  user.set_authentication_method("certificate");
  made = tls_.Make(policy_, addresses_);
  ASSERT_TRUE(made.ok()) << made.status();
  const auto certificate = ReadCertificate(path_);
  EXPECT_EQ((*made)[0].users->at(CertificateFingerprint(certificate->get())), "tim");
  EXPECT_TRUE((*made)[0].context->options().ask_client_certificate);
  user.set_tls_certificate("none.pem");
  const auto refused = tls_.Make(policy_, addresses_);
  EXPECT_NE(refused.status().message().find("<smtp-user tim>"), absl::string_view::npos);
}

TEST_F(ListenerTlsTest, AUsersNewCertificateHoldsWithoutAReload) {
  AddGlobal();
  const std::string file = path_ + ".user";
  const auto write = [&] {
    const KeyAndChain made = MakeCertificate({.common_name = "tim"});
    std::ofstream(file) << CertificatePem(made.certificate.get());
    return CertificateFingerprint(made.certificate.get());
  };
  const std::string old = write();
  auto& user = policy_.users.emplace_back();
  user.set_name("tim");
  user.set_authentication_method("certificate");
  user.set_tls_certificate(file);
  ASSERT_TRUE(tls_.Make(policy_, addresses_).ok());
  EXPECT_TRUE(tls_.ReloadChanged().empty());
  std::ofstream(file) << "rubbish";
  for (const size_t said : {1u, 0u}) {
    const auto changes = tls_.ReloadChanged();
    ASSERT_EQ(changes.size(), said);
    EXPECT_TRUE(tls_.made()[0].users->contains(old));
    if (said == 0) continue;
    EXPECT_NE(changes[0].text.find("<smtp-user tim>"), std::string::npos);
  }
  const std::string fresh = write();
  ASSERT_EQ(tls_.ReloadChanged().size(), 1u);
  EXPECT_EQ(tls_.made()[0].users->at(fresh), "tim");
  EXPECT_FALSE(tls_.made()[0].users->contains(old));
  EXPECT_TRUE(tls_.ReloadChanged().empty());
  std::remove(file.c_str());
}

TEST_F(ListenerTlsTest, SaysOnceWhatCameOfChangedFiles) {
  AddGlobal();
  ASSERT_TRUE(tls_.Make(policy_, addresses_).ok());
  EXPECT_TRUE(tls_.ReloadChanged().empty());
  std::ofstream(path_) << "rubbish";
  auto changes = tls_.ReloadChanged();
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_FALSE(changes[0].ok);
  EXPECT_TRUE(tls_.ReloadChanged().empty());
  Write("two");
  changes = tls_.ReloadChanged();
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_TRUE(changes[0].ok);
}

}  // namespace
}  // namespace sluice::ingest
