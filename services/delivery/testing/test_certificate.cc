#include "services/delivery/testing/test_certificate.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include "services/base/check.h"

namespace sluice::delivery::testing {
namespace {

std::string Take(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

void AddExtension(X509* x509, int nid, const char* value) {
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
  SLUICE_CHECK(extension != nullptr);
  SLUICE_CHECK(X509_add_ext(x509, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

void AddNames(X509* x509, const std::vector<std::string>& names) {
  GENERAL_NAMES* all = GENERAL_NAMES_new();
  for (const std::string& name : names) {
    GENERAL_NAME* each = GENERAL_NAME_new();
    ASN1_IA5STRING* text = ASN1_IA5STRING_new();
    ASN1_STRING_set(text, name.data(), static_cast<int>(name.size()));
    GENERAL_NAME_set0_value(each, GEN_DNS, text);
    sk_GENERAL_NAME_push(all, each);
  }
  SLUICE_CHECK(X509_add1_ext_i2d(x509, NID_subject_alt_name, all, 0, 0) == 1);
  GENERAL_NAMES_free(all);
}

}  // namespace

TestCertificate::TestCertificate(const CertificateSpec& spec, const TestCertificate* issuer)
    : key_(EVP_EC_gen("P-256"), EVP_PKEY_free), x509_(X509_new(), X509_free) {
  X509* x509 = x509_.get();
  X509_set_version(x509, X509_VERSION_3);
  unsigned char serial[8];
  SLUICE_CHECK(RAND_bytes(serial, sizeof(serial)) == 1);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(x509), *reinterpret_cast<uint32_t*>(serial));
  X509_gmtime_adj(X509_getm_notBefore(x509), spec.valid_from_s);
  X509_gmtime_adj(X509_getm_notAfter(x509), spec.valid_to_s);
  X509_set_pubkey(x509, key_.get());
  X509_NAME* subject = X509_get_subject_name(x509);
  const std::string name = spec.authority ? "authority " + std::to_string(serial[7]) : "server";
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(x509, issuer == nullptr ? subject : X509_get_subject_name(issuer->x509()));
  if (spec.authority) {
    AddExtension(x509, NID_basic_constraints, "critical,CA:TRUE");
    AddExtension(x509, NID_key_usage, "critical,keyCertSign");
  }
  if (!spec.names.empty()) AddNames(x509, spec.names);
  SLUICE_CHECK(X509_sign(x509, (issuer == nullptr ? *this : *issuer).key(), EVP_sha256()) > 0);
}

std::string TestCertificate::Pem() const {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, x509());
  return Take(bio);
}

std::string TestCertificate::KeyPem() const {
  BIO* bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, key(), nullptr, nullptr, 0, nullptr, nullptr);
  return Take(bio);
}

std::string TestCertificate::Der() const {
  BIO* bio = BIO_new(BIO_s_mem());
  i2d_X509_bio(bio, x509());
  return Take(bio);
}

std::string TestCertificate::KeyDer() const {
  BIO* bio = BIO_new(BIO_s_mem());
  i2d_PUBKEY_bio(bio, key());
  return Take(bio);
}

std::string Sha256(const std::string& bytes) {
  unsigned char digest[32];
  SLUICE_CHECK(EVP_Digest(bytes.data(), bytes.size(), digest, nullptr, EVP_sha256(), nullptr) == 1);
  return {reinterpret_cast<char*>(digest), sizeof(digest)};
}

}  // namespace sluice::delivery::testing
