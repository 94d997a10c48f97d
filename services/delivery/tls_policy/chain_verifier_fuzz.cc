// Any certificate that a server may show, alone and as its own issuer: nobody vouches for it, and
// what is said of it is one line of printable ASCII.
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "services/base/check.h"
#include "services/base/net/tls_certificate.h"
#include "services/base/testing/temp_folder.h"
#include "services/delivery/testing/test_certificate.h"
#include "services/delivery/tls_policy/chain_verifier.h"

namespace {

using namespace sluice;            // NOLINT: a fuzzer is its own program
using namespace sluice::delivery;  // NOLINT

// With an authority whose key nobody else has.
struct Judge {
  Judge() {
    const sluice::testing::TempFolder folder("chain");
    std::ofstream(folder.File("ca.pem")) << authority.Pem();
    verifier = *ChainVerifier::Create(folder.File("ca.pem"));
  }
  delivery::testing::TestCertificate authority{{.authority = true}};
  std::unique_ptr<ChainVerifier> verifier;
};

bool IsPrintable(const std::string& text) {
  for (const char c : text) {
    if (c < ' ' || c > '~') return false;
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Judge judge;
  const std::string der(reinterpret_cast<const char*>(data), size);
  const std::vector<std::string> chain = {der, der, judge.authority.Der()};
  const std::vector<std::string> names = {"mx.mail.example", "*.mail.example"};
  const ChainResult pkix = judge.verifier->VerifyPkix(chain, names);
  SLUICE_CHECK(!pkix.good && !pkix.reason.empty() && !pkix.result_type.empty());

  // The key of somebody else, for the server itself and for an authority.
  TlsaRecord record;
  record.selector = 1;
  record.matching = 1;
  record.data = delivery::testing::Sha256(judge.authority.KeyDer());
  for (const uint8_t usage : {3, 2}) {
    record.usage = usage;
    const ChainResult dane =
        judge.verifier->VerifyDane({chain.data(), 2}, {"mx.mail.example", {"example"}, {record}});
    SLUICE_CHECK(!dane.good && !dane.reason.empty());
  }

  const unsigned char* at = data;
  const X509Ptr certificate(d2i_X509(nullptr, &at, static_cast<long>(size)));
  if (certificate == nullptr) {
    TakeOpensslError();
    return 0;
  }
  const std::string subject = CertificateSubject(certificate.get());
  SLUICE_CHECK(subject.size() <= 512 && IsPrintable(subject));
  SLUICE_CHECK(CertificateFingerprint(certificate.get()).size() == 64);
  return 0;
}
