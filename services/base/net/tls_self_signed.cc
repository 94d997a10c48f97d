#include "services/base/net/tls_self_signed.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "services/base/check.h"

namespace sluice {
namespace {

void AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  SLUICE_CHECK(extension != nullptr);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

void AddNames(X509* certificate, const std::vector<std::string>& names) {
  GENERAL_NAMES* list = sk_GENERAL_NAME_new_null();
  for (const std::string& name : names) {
    GENERAL_NAME* each = GENERAL_NAME_new();
    ASN1_IA5STRING* text = ASN1_IA5STRING_new();
    ASN1_STRING_set(text, name.data(), static_cast<int>(name.size()));
    GENERAL_NAME_set0_value(each, GEN_DNS, text);
    sk_GENERAL_NAME_push(list, each);
  }
  X509_add1_ext_i2d(certificate, NID_subject_alt_name, list, 0, 0);
  GENERAL_NAMES_free(list);
}

std::string TakeText(BIO* bio) {
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio, &text);
  std::string taken(text, static_cast<size_t>(size));
  BIO_free(bio);
  return taken;
}

}  // namespace

KeyAndChain MakeCertificate(const NewCertificate& wanted, const KeyAndChain* issuer) {
  KeyAndChain made;
  made.key.reset(wanted.rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256"));
  SLUICE_CHECK(made.key != nullptr);
  made.key_type = EVP_PKEY_get_base_id(made.key.get());
  made.certificate.reset(X509_new());
  X509* const certificate = made.certificate.get();
  X509_set_version(certificate, 2);
  int64_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), 7);
  ASN1_INTEGER_set_int64(X509_get_serialNumber(certificate), serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -24 * 60 * 60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), static_cast<long>(wanted.valid_for.count()));
  X509_set_pubkey(certificate, made.key.get());
  X509_NAME* const subject = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(wanted.common_name.data()),
                             static_cast<int>(wanted.common_name.size()), -1, 0);
  X509* const signer = issuer == nullptr ? certificate : issuer->certificate.get();
  X509_set_issuer_name(certificate, X509_get_subject_name(signer));
  AddExtension(certificate, signer, NID_basic_constraints,
               wanted.authority ? "critical,CA:TRUE" : "CA:FALSE");
  if (!wanted.names.empty()) AddNames(certificate, wanted.names);
  if (wanted.extra_bytes > 0) {
    AddExtension(certificate, signer, NID_netscape_comment,
                 std::string(wanted.extra_bytes, 'x').c_str());
  }
  EVP_PKEY* const key = issuer == nullptr ? made.key.get() : issuer->key.get();
  SLUICE_CHECK(X509_sign(certificate, key, EVP_sha256()) > 0);
  made.names = wanted.names;
  return made;
}

std::string CertificatePem(X509* certificate) {
  BIO* out = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(out, certificate);
  return TakeText(out);
}

std::string ToPem(const KeyAndChain& from) {
  BIO* out = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(out, from.key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  PEM_write_bio_X509(out, from.certificate.get());
  for (const X509Ptr& each : from.chain) PEM_write_bio_X509(out, each.get());
  return TakeText(out);
}

}  // namespace sluice
