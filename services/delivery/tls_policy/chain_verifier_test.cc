// Proves that certificate chains are good by an authority or by TLSA records, and by nothing
// else.
#include "services/delivery/tls_policy/chain_verifier.h"

#include <gtest/gtest.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "services/base/testing/temp_folder.h"
#include "services/delivery/testing/test_certificate.h"

namespace sluice::delivery {
namespace {

using testing::Sha256;
using testing::TestCertificate;
using Ders = std::vector<std::string>;

const std::vector<std::string> kNames = {"mx.mail.example"};

class ChainVerifierTest : public ::testing::Test {
 protected:
  ChainVerifierTest() {
    const sluice::testing::TempFolder folder("chain");
    const std::string file = folder.File("ca.pem");
    std::ofstream(file) << authority.Pem();
    auto made = ChainVerifier::Create(file);
    EXPECT_TRUE(made.ok()) << made.status();
    verifier = *std::move(made);
  }
  std::string Pkix(const TestCertificate& leaf, const Ders& rest = {}) {
    Ders chain = {leaf.Der()};
    chain.insert(chain.end(), rest.begin(), rest.end());
    const ChainResult result = verifier->VerifyPkix(chain, kNames);
    EXPECT_EQ(result.good, result.reason.empty());
    return result.good ? "good" : result.result_type;
  }
  std::string Dane(const Ders& chain, const TlsaRecord& record) {
    const ChainResult result =
        verifier->VerifyDane(chain, {"mx.mail.example", {"example"}, {record}});
    return result.good ? "good" : result.result_type;
  }

  TestCertificate authority{{.authority = true}};
  std::unique_ptr<ChainVerifier> verifier;
};

TEST_F(ChainVerifierTest, Pkix) {
  EXPECT_EQ(Pkix(TestCertificate({.names = {"mx.mail.example"}}, &authority)), "good");
  EXPECT_EQ(Pkix(TestCertificate({.names = {"*.mail.example"}}, &authority)), "good");
  const TestCertificate middle({.authority = true}, &authority);
  const TestCertificate below({.names = {"a.example", "mx.mail.example"}}, &middle);
  EXPECT_EQ(Pkix(below, {middle.Der()}), "good");
  EXPECT_EQ(Pkix(below), "certificate-not-trusted");
  EXPECT_EQ(Pkix(TestCertificate({.names = {"mx.mail.example"}})), "certificate-not-trusted");
  EXPECT_EQ(Pkix(TestCertificate({.names = {"other.example"}}, &authority)),
            "certificate-host-mismatch");
  EXPECT_EQ(Pkix(TestCertificate({.names = {"m*.mail.example"}}, &authority)),
            "certificate-host-mismatch");
  EXPECT_EQ(Pkix(TestCertificate({}, &authority)), "certificate-host-mismatch");
  EXPECT_EQ(
      Pkix(TestCertificate({.names = {std::string("mx.mail.example\0.evil", 21)}}, &authority)),
      "certificate-host-mismatch");
  EXPECT_EQ(Pkix(TestCertificate({.names = {"mx.mail.example"}, .valid_to_s = -60}, &authority)),
            "certificate-expired");
  EXPECT_EQ(Pkix(TestCertificate({.names = {"mx.mail.example"}, .valid_from_s = 600}, &authority)),
            "validation-failure");
  // A server's certificate is no authority.
  const TestCertificate server({.names = {"mx.mail.example"}}, &authority);
  EXPECT_NE(Pkix(TestCertificate({.names = {"mx.mail.example"}}, &server), {server.Der()}), "good");
}

TEST_F(ChainVerifierTest, NonsenseIsNotGood) {
  EXPECT_FALSE(verifier->VerifyPkix({}, kNames).good);
  EXPECT_FALSE(verifier->VerifyPkix(Ders{"junk"}, kNames).good);
  const TestCertificate server({.names = {"mx.mail.example"}}, &authority);
  EXPECT_FALSE(verifier->VerifyPkix(Ders{server.Der()}, {}).good);
  EXPECT_FALSE(verifier->VerifyPkix(Ders(kMaxChainCertificates + 1, server.Der()), kNames).good);
  EXPECT_FALSE(ChainVerifier::Create("/nonexistent").ok());
}

TEST_F(ChainVerifierTest, DaneOwnCertificate) {
  const TestCertificate server({.names = {"other.example"}, .valid_to_s = -60});
  const TestCertificate other({.names = {"mx.mail.example"}}, &authority);
  const TlsaRecord record{3, 1, 1, Sha256(server.KeyDer())};
  EXPECT_EQ(Dane({server.Der()}, record), "good");
  // A public authority's word does not help.
  EXPECT_NE(Dane({other.Der(), authority.Der()}, record), "good");
  // Nor does the right certificate in the wrong place.
  EXPECT_NE(Dane({other.Der(), server.Der()}, record), "good");
  EXPECT_EQ(Dane({server.Der()}, {3, 1, 1, "short"}), "tlsa-invalid");
}

TEST_F(ChainVerifierTest, DaneTrustAnchor) {
  const TestCertificate anchor({.authority = true});
  const TestCertificate server({.names = {"mx.mail.example"}}, &anchor);
  const TlsaRecord record{2, 0, 1, Sha256(anchor.Der())};
  EXPECT_EQ(Dane({server.Der(), anchor.Der()}, record), "good");
  EXPECT_EQ(Dane({server.Der()}, {2, 0, 0, anchor.Der()}), "good");
  EXPECT_EQ(Dane({server.Der()}, {2, 1, 0, anchor.KeyDer()}), "good");
  EXPECT_NE(Dane({server.Der()}, record), "good");  // the anchor was not sent
  EXPECT_EQ(Dane({TestCertificate({.names = {"example"}}, &anchor).Der(), anchor.Der()}, record),
            "good");
  EXPECT_EQ(Dane({TestCertificate({.names = {"evil"}}, &anchor).Der(), anchor.Der()}, record),
            "certificate-host-mismatch");
  EXPECT_EQ(Dane({TestCertificate({.names = {"mx.mail.example"}, .valid_to_s = -60}, &anchor).Der(),
                  anchor.Der()},
                 record),
            "certificate-expired");
  // A public authority signed it, and it is not the anchor.
  EXPECT_NE(Dane({TestCertificate({.names = {"mx.mail.example"}}, &authority).Der(),
                  authority.Der(), anchor.Der()},
                 record),
            "good");
}

}  // namespace
}  // namespace sluice::delivery
