// TLSA records (RFC 6698, RFC 7671) as SMTP uses them (RFC 7672), and how a TLS connection is told
// to verify by them.
#pragma once

#include <openssl/ssl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace sluice::delivery {

struct TlsaRecord {
  uint8_t usage = 0;     // 2: trust anchor, 3: the server's own certificate
  uint8_t selector = 0;  // 0: the certificate, 1: its public key
  uint8_t matching = 0;  // 0: data itself, 1: its SHA-256, 2: its SHA-512
  std::string data;

  // SMTP can verify by it: usages 0 and 1 have no meaning there (RFC 7672 section 3.1.3), digests
  // have their length, and certificate or key in `data` can be read.
  bool usable() const;
  // "3 1 1 AB12...", as TLS-RPT shows a policy (RFC 8460 section 4.4).
  std::string ToString() const;

  friend bool operator==(const TlsaRecord&, const TlsaRecord&) = default;
};

inline constexpr size_t kMaxTlsaDataBytes = 16 * 1024;
// Of one host; more are passed over.
inline constexpr size_t kMaxTlsaRecords = 32;

// Nothing where it is too short or longer than kMaxTlsaDataBytes.
std::optional<TlsaRecord> ParseTlsa(std::string_view rdata);

// What a TLS connection must be verified by.
struct DaneTlsa {
  // TLSA base domain: the name in SNI, and the first name that a certificate under a trust anchor
  // may have.
  std::string base_domain;
  // Other names that it may have: the domain that the mail is for, and what that is an alias of
  // (RFC 7672 section 3.2.2).
  std::vector<std::string> other_names;
  std::vector<TlsaRecord> records;  // usable ones, at least one
};

// Makes OpenSSL verify `ssl`, before its handshake, by `dane`: usage 3 without regard to names and
// dates, usage 2 with names. The handshake then fails where nothing matches. INTERNAL: OpenSSL
// refused; the connection must not be used. The SSL_CTX has had EnableDane.
absl::Status VerifyByDane(SSL* ssl, const DaneTlsa& dane);

// Once a context, before any VerifyByDane. Does not change connections that are not told to.
absl::Status EnableDane(SSL_CTX* context);

}  // namespace sluice::delivery
