#include "services/delivery/tls_policy/dane_record.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace sluice::delivery {
namespace {

constexpr size_t kSha256Bytes = 32;
constexpr size_t kSha512Bytes = 64;

const unsigned char* Bytes(const std::string& text) {
  return reinterpret_cast<const unsigned char*>(text.data());
}

bool IsCertificate(const std::string& der) {
  const unsigned char* at = Bytes(der);
  X509* certificate = d2i_X509(nullptr, &at, static_cast<long>(der.size()));
  const bool whole = certificate != nullptr && at == Bytes(der) + der.size() &&
                     X509_get0_pubkey(certificate) != nullptr;
  X509_free(certificate);
  ERR_clear_error();
  return whole;
}

bool IsPublicKey(const std::string& der) {
  const unsigned char* at = Bytes(der);
  EVP_PKEY* key = d2i_PUBKEY(nullptr, &at, static_cast<long>(der.size()));
  const bool whole = key != nullptr && at == Bytes(der) + der.size();
  EVP_PKEY_free(key);
  ERR_clear_error();
  return whole;
}

absl::Status OpensslError(const char* what) {
  const unsigned long error = ERR_get_error();  // NOLINT(runtime/int): OpenSSL's type
  char text[256];
  ERR_error_string_n(error, text, sizeof(text));
  ERR_clear_error();
  return absl::InternalError(absl::StrCat(what, ": ", text));
}

}  // namespace

std::optional<TlsaRecord> ParseTlsa(std::string_view rdata) {
  if (rdata.size() < 4 || rdata.size() > 3 + kMaxTlsaDataBytes) return std::nullopt;
  TlsaRecord record;
  record.usage = static_cast<uint8_t>(rdata[0]);
  record.selector = static_cast<uint8_t>(rdata[1]);
  record.matching = static_cast<uint8_t>(rdata[2]);
  record.data = std::string(rdata.substr(3));
  return record;
}

bool TlsaRecord::usable() const {
  if (usage != 2 && usage != 3) return false;
  if (selector > 1) return false;
  switch (matching) {
    case 0:
      return selector == 0 ? IsCertificate(data) : IsPublicKey(data);
    case 1:
      return data.size() == kSha256Bytes;
    case 2:
      return data.size() == kSha512Bytes;
    default:
      return false;
  }
}

std::string TlsaRecord::ToString() const {
  return absl::StrCat(usage, " ", selector, " ", matching, " ",
                      absl::AsciiStrToUpper(absl::BytesToHexString(data)));
}

absl::Status EnableDane(SSL_CTX* context) {
  if (SSL_CTX_dane_enable(context) <= 0) return OpensslError("SSL_CTX_dane_enable");
  // RFC 7672 section 3.1.1: the certificate that a usage 3 record names may have any name.
  SSL_CTX_dane_set_flags(context, DANE_FLAG_NO_DANE_EE_NAMECHECKS);
  return absl::OkStatus();
}

absl::Status VerifyByDane(SSL* ssl, const DaneTlsa& dane) {
  if (SSL_dane_enable(ssl, dane.base_domain.c_str()) <= 0) return OpensslError("SSL_dane_enable");
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  for (const std::string& name : dane.other_names) {
    if (SSL_add1_host(ssl, name.c_str()) <= 0) return OpensslError("SSL_add1_host");
  }
  size_t added = 0;
  for (const TlsaRecord& record : dane.records) {
    const int result = SSL_dane_tlsa_add(ssl, record.usage, record.selector, record.matching,
                                         Bytes(record.data), record.data.size());
    if (result < 0) return OpensslError("SSL_dane_tlsa_add");
    if (result > 0) ++added;
  }
  ERR_clear_error();
  // Without a record OpenSSL would verify by the public authorities.
  if (added == 0) return absl::InternalError("no TLSA record is usable");
  SSL_set_verify(ssl, SSL_VERIFY_PEER, nullptr);
  return absl::OkStatus();
}

}  // namespace sluice::delivery
