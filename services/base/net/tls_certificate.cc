#include "services/base/net/tls_certificate.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cctype>
#include <cstring>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "services/base/small_file.h"

namespace sluice {
namespace {

struct BioFree {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using BioPtr = std::unique_ptr<BIO, BioFree>;

BioPtr MemoryOf(const std::string& content) {
  return BioPtr(BIO_new_mem_buf(content.data(), static_cast<int>(content.size())));
}

// Never asks at a terminal, as OpenSSL would.
int GivePassword(char* into, int size, int, void* data) {
  const std::string& password = *static_cast<const std::string*>(data);
  if (password.empty() || password.size() > static_cast<size_t>(size)) return -1;
  std::memcpy(into, password.data(), password.size());
  return static_cast<int>(password.size());
}

void AddName(const ASN1_STRING* text, std::vector<std::string>& names) {
  const char* data = reinterpret_cast<const char*>(ASN1_STRING_get0_data(text));
  std::string name(data, static_cast<size_t>(ASN1_STRING_length(text)));
  if (name.empty() || name.find('\0') != std::string::npos) return;
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  names.push_back(std::move(name));
}

std::vector<std::string> NamesOf(X509* certificate) {
  std::vector<std::string> names;
  auto* alternatives = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; alternatives != nullptr && i < sk_GENERAL_NAME_num(alternatives); ++i) {
    const GENERAL_NAME* each = sk_GENERAL_NAME_value(alternatives, i);
    if (each->type == GEN_DNS) AddName(each->d.dNSName, names);
  }
  GENERAL_NAMES_free(alternatives);
  if (!names.empty()) return names;
  const X509_NAME* subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at >= 0) AddName(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), names);
  return names;
}

}  // namespace

std::string FileStamp(const std::string& file) {
  struct stat info;
  if (::stat(file.c_str(), &info) != 0) return "-";
  return absl::StrCat(info.st_ino, " ", info.st_size, " ", info.st_mtim.tv_sec, " ",
                      info.st_mtim.tv_nsec);
}

void X509Free::operator()(X509* certificate) const { X509_free(certificate); }
void PkeyFree::operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
void SslCtxFree::operator()(SSL_CTX* context) const { SSL_CTX_free(context); }

std::string TakeOpensslError() {
  const unsigned long error = ERR_peek_last_error();
  const char* reason = ERR_reason_error_string(error);
  ERR_clear_error();
  return reason == nullptr ? "unknown error" : reason;
}

absl::StatusOr<KeyAndChain> ReadKeyAndChain(const TlsCertificateFile& from) {
  auto content = ReadSmallFile(from.file);
  if (!content.ok()) return content.status();
  KeyAndChain read;
  ERR_clear_error();
  std::string password = from.password;
  read.key.reset(
      PEM_read_bio_PrivateKey(MemoryOf(*content).get(), nullptr, GivePassword, &password));
  if (read.key == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(from.file, ": no private key that can be read (", TakeOpensslError(), ")"));
  }
  read.key_type = EVP_PKEY_get_base_id(read.key.get());
  const BioPtr in = MemoryOf(*content);
  while (X509* next = PEM_read_bio_X509(in.get(), nullptr, GivePassword, &password)) {
    X509Ptr certificate(next);
    if (read.certificate == nullptr && X509_check_private_key(next, read.key.get()) == 1) {
      read.certificate = std::move(certificate);
    } else {
      read.chain.push_back(std::move(certificate));
    }
  }
  ERR_clear_error();
  if (read.certificate == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(from.file, ": no certificate of its private key"));
  }
  read.names = NamesOf(read.certificate.get());
  return read;
}

absl::Status UseKeyAndChain(SSL_CTX* context, const KeyAndChain& read, const std::string& file) {
  STACK_OF(X509)* chain = sk_X509_new_null();
  for (const X509Ptr& each : read.chain) sk_X509_push(chain, each.get());
  const int used =
      SSL_CTX_use_cert_and_key(context, read.certificate.get(), read.key.get(), chain, 0);
  sk_X509_free(chain);
  if (used == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", TakeOpensslError()));
}

absl::StatusOr<X509Ptr> ReadCertificate(const std::string& file) {
  auto content = ReadSmallFile(file);
  if (!content.ok()) return content.status();
  std::string none;
  X509Ptr certificate(PEM_read_bio_X509(MemoryOf(*content).get(), nullptr, GivePassword, &none));
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": no certificate (", TakeOpensslError(), ")"));
  }
  return certificate;
}

std::string CertificateSubject(X509* certificate) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  char* text = nullptr;
  const long size = BIO_get_mem_data(out.get(), &text);
  constexpr long kMaxBytes = 512;
  return std::string(text, static_cast<size_t>(std::min(size, kMaxBytes)));
}

std::string CertificateDer(X509* certificate) {
  unsigned char* bytes = nullptr;
  const int size = i2d_X509(certificate, &bytes);
  if (size <= 0) return {};
  std::string der(reinterpret_cast<char*>(bytes), static_cast<size_t>(size));
  OPENSSL_free(bytes);
  return der;
}

std::string CertificateFingerprint(X509* certificate) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (X509_digest(certificate, EVP_sha256(), digest, &size) != 1) return {};
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (unsigned i = 0; i < size; ++i) {
    text += kDigits[digest[i] >> 4];
    text += kDigits[digest[i] & 15];
  }
  return text;
}

absl::Status ApplyProtocols(SSL_CTX* context, const TlsProtocols& protocols) {
  uint64_t refused = SSL_OP_NO_SSLv3;
  if (!protocols.tls1_0) refused |= SSL_OP_NO_TLSv1;
  if (!protocols.tls1_1) refused |= SSL_OP_NO_TLSv1_1;
  if (!protocols.tls1_2) refused |= SSL_OP_NO_TLSv1_2;
  if (!protocols.tls1_3) refused |= SSL_OP_NO_TLSv1_3;
  // The system's configuration file may have bounds of its own: here ours hold.
  SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
  SSL_CTX_set_max_proto_version(context, 0);
  SSL_CTX_set_options(context, refused);
  if (!protocols.tls1_0 && !protocols.tls1_1 && !protocols.tls1_2 && !protocols.tls1_3) {
    return absl::InvalidArgumentError("every version of TLS is switched off");
  }
  std::string ciphers = protocols.ciphers.empty() ? "HIGH:!aNULL" : protocols.ciphers;
  // TLS 1.0 and 1.1 sign with SHA-1, which OpenSSL's level 1 and above refuse.
  if (protocols.tls1_0 || protocols.tls1_1) ciphers += ":@SECLEVEL=0";
  if (SSL_CTX_set_cipher_list(context, ciphers.c_str()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("ciphers \"", protocols.ciphers, "\": ", TakeOpensslError()));
  }
  if (!protocols.ciphersuites.empty() &&
      SSL_CTX_set_ciphersuites(context, protocols.ciphersuites.c_str()) != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "TLS 1.3 cipher suites \"", protocols.ciphersuites, "\": ", TakeOpensslError()));
  }
  return absl::OkStatus();
}

void ApplyDefaults(SSL_CTX* context) {
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_max_cert_list(context, static_cast<long>(kTlsMaxChainBytes));
}

}  // namespace sluice
