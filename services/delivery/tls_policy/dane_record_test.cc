// Proves that TLSA records are read, and match what RFC 6698 says.
#include "services/delivery/tls_policy/dane_record.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "services/delivery/testing/test_certificate.h"

namespace sluice::delivery {
namespace {

using testing::CertificateSpec;
using testing::Sha256;
using testing::TestCertificate;

// A handshake in memory. True where the client found the server's certificate good.
bool Handshake(const TestCertificate& server, const std::vector<const TestCertificate*>& chain,
               const DaneTlsa& dane) {
  SSL_CTX* server_context = SSL_CTX_new(TLS_server_method());
  SSL_CTX_use_certificate(server_context, server.x509());
  SSL_CTX_use_PrivateKey(server_context, server.key());
  for (const TestCertificate* each : chain) SSL_CTX_add1_chain_cert(server_context, each->x509());
  SSL_CTX* client_context = SSL_CTX_new(TLS_client_method());
  EXPECT_TRUE(EnableDane(client_context).ok());
  SSL* accept = SSL_new(server_context);
  SSL* connect = SSL_new(client_context);
  const absl::Status prepared = VerifyByDane(connect, dane);
  EXPECT_TRUE(prepared.ok()) << prepared;
  BIO* left = nullptr;
  BIO* right = nullptr;
  BIO_new_bio_pair(&left, 1 << 16, &right, 1 << 16);
  SSL_set_bio(accept, left, left);
  SSL_set_bio(connect, right, right);
  SSL_set_accept_state(accept);
  SSL_set_connect_state(connect);
  bool done = false;
  bool failed = false;
  for (int i = 0; i < 10 && !done && !failed; ++i) {
    const int result = SSL_do_handshake(connect);
    done = result == 1;
    failed = result != 1 && SSL_get_error(connect, result) != SSL_ERROR_WANT_READ;
    SSL_do_handshake(accept);
  }
  const bool good = done && SSL_get_verify_result(connect) == X509_V_OK;
  SSL_free(accept);
  SSL_free(connect);
  SSL_CTX_free(server_context);
  SSL_CTX_free(client_context);
  return good;
}

TlsaRecord Record(int usage, int selector, int matching, std::string data) {
  return {static_cast<uint8_t>(usage), static_cast<uint8_t>(selector),
          static_cast<uint8_t>(matching), std::move(data)};
}

TEST(DaneRecord, Parses) {
  const auto record = ParseTlsa(std::string("\x03\x01\x01", 3) + std::string(32, '\xab'));
  ASSERT_TRUE(record);
  EXPECT_TRUE(record->usable());
  EXPECT_EQ(record->ToString().substr(0, 10), "3 1 1 ABAB");
  EXPECT_FALSE(ParseTlsa(std::string("\x03\x01\x01", 3)));
  EXPECT_FALSE(ParseTlsa(""));
  EXPECT_FALSE(ParseTlsa(std::string(kMaxTlsaDataBytes + 4, 'x')));
}

// RFC 7672 section 3.1.3 and 3.1.1: what SMTP can use.
TEST(DaneRecord, UsableOnes) {
  const TestCertificate certificate({.names = {"mx.example"}});
  EXPECT_TRUE(Record(3, 0, 0, certificate.Der()).usable());
  EXPECT_TRUE(Record(3, 1, 0, certificate.KeyDer()).usable());
  EXPECT_TRUE(Record(2, 0, 2, std::string(64, 'x')).usable());
  EXPECT_FALSE(Record(0, 0, 1, std::string(32, 'x')).usable());
  EXPECT_FALSE(Record(1, 0, 1, std::string(32, 'x')).usable());
  EXPECT_FALSE(Record(255, 0, 1, std::string(32, 'x')).usable());
  EXPECT_FALSE(Record(3, 2, 1, std::string(32, 'x')).usable());
  EXPECT_FALSE(Record(3, 1, 3, std::string(32, 'x')).usable());
  EXPECT_FALSE(Record(3, 1, 1, std::string(31, 'x')).usable());
  EXPECT_FALSE(Record(3, 1, 2, std::string(32, 'x')).usable());
  EXPECT_FALSE(Record(3, 0, 0, certificate.KeyDer()).usable());
  EXPECT_FALSE(Record(3, 1, 0, certificate.Der()).usable());
  EXPECT_FALSE(Record(3, 0, 0, certificate.Der() + "x").usable());
}

// Usage 3: the record alone counts, neither names nor dates (RFC 7672 section 3.1.1).
TEST(DaneVerify, TheServersOwnCertificate) {
  const TestCertificate server({.names = {"other.example"}, .valid_to_s = -60});
  const TestCertificate stranger({.names = {"mx.example"}});
  const DaneTlsa by_key{"mx.example", {}, {Record(3, 1, 1, Sha256(server.KeyDer()))}};
  const DaneTlsa by_certificate{"mx.example", {}, {Record(3, 0, 0, server.Der())}};
  EXPECT_TRUE(Handshake(server, {}, by_key));
  EXPECT_TRUE(Handshake(server, {}, by_certificate));
  EXPECT_FALSE(Handshake(stranger, {}, by_key));
  EXPECT_FALSE(Handshake(stranger, {}, by_certificate));
  // While keys change there are records of the old and of the new one.
  const DaneTlsa both{
      "mx.example",
      {},
      {Record(3, 1, 1, Sha256(stranger.KeyDer())), Record(3, 1, 1, Sha256(server.KeyDer()))}};
  EXPECT_TRUE(Handshake(server, {}, both));
}

// Usage 2: a chain to the anchor, with a name of the host or of the mail's domain, in its time.
TEST(DaneVerify, ATrustAnchor) {
  const TestCertificate authority({.authority = true});
  const TestCertificate other_authority({.authority = true});
  const TestCertificate server({.names = {"mx.example"}}, &authority);
  const DaneTlsa dane{"mx.example", {"example"}, {Record(2, 0, 1, Sha256(authority.Der()))}};
  EXPECT_TRUE(Handshake(server, {&authority}, dane));
  // The whole anchor in the record: it need not be sent.
  const DaneTlsa whole{"mx.example", {"example"}, {Record(2, 0, 0, authority.Der())}};
  EXPECT_TRUE(Handshake(server, {}, whole));
  const TestCertificate domain({.names = {"example"}}, &authority);
  EXPECT_TRUE(Handshake(domain, {&authority}, dane));

  const TestCertificate misnamed({.names = {"evil.example"}}, &authority);
  EXPECT_FALSE(Handshake(misnamed, {&authority}, dane));
  const TestCertificate expired({.names = {"mx.example"}, .valid_to_s = -60}, &authority);
  EXPECT_FALSE(Handshake(expired, {&authority}, dane));
  const TestCertificate foreign({.names = {"mx.example"}}, &other_authority);
  EXPECT_FALSE(Handshake(foreign, {&other_authority}, dane));
  // The anchor is sent, and did not sign.
  EXPECT_FALSE(Handshake(foreign, {&authority}, dane));
  // A NUL hides the rest of a name from those who compare it as a C string.
  const TestCertificate nul({.names = {std::string("mx.example\0.evil.example", 24)}}, &authority);
  EXPECT_FALSE(Handshake(nul, {&authority}, dane));
}

TEST(DaneVerify, NothingUsableIsRefused) {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  ASSERT_TRUE(EnableDane(context).ok());
  SSL* ssl = SSL_new(context);
  EXPECT_FALSE(VerifyByDane(ssl, {"mx.example", {}, {Record(3, 1, 1, "short")}}).ok());
  SSL_free(ssl);
  SSL_CTX_free(context);
}

}  // namespace
}  // namespace sluice::delivery
