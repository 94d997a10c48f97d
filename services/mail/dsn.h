// Builds delivery status notifications (RFC 3464, in a multipart/report of RFC 6522).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::mail {

// kRelayed: to a host that makes no delivery reports (RFC 3461 section 5.2.2).
enum class DsnKind : uint8_t { kFailed, kDelayed, kDelivered, kRelayed };

// Everything is text that came from outside: what could break a header is taken out or encoded.
struct DsnInput {
  DsnKind kind = DsnKind::kFailed;
  std::string_view reporting_mta;       // our host name
  std::string_view postmaster;          // From: address; empty: postmaster@reporting_mta
  std::string_view sender;              // who gets it
  std::string_view recipient;           // final
  std::string_view original_recipient;  // ORCPT "type;address"; may be empty
  std::string_view original_envid;      // may be empty
  std::string_view status;              // "5.1.1"
  std::string_view diagnostic;          // the remote's words; may be empty
  uint32_t diagnostic_code = 0;         // SMTP reply code; 0: none
  std::string_view remote_mta;          // may be empty
  int64_t arrived_unix_us = 0;
  int64_t last_attempt_unix_us = 0;  // 0: none
  int64_t retry_until_unix_us = 0;   // kDelayed: when it will be given up; 0: not said
  int64_t now_unix_us = 0;
  std::string_view message_id;  // of the DSN, for its Message-ID and boundary
  std::string_view original;    // the original's bytes, or its first part
  bool full = false;            // the whole original, else its headers only
  bool plain_text = false;      // one text/plain, for readers of before RFC 3464
  // Operators' own words; empty: ours. ${sender}, ${recipient}, ${status}, ${diagnostic}, ${host},
  // ${remote}, ${envid}, ${subject} (the original's) and ${postmaster} stand for what they say; the
  // compiler of the configuration has refused others.
  std::string_view from;     // From:, the whole value
  std::string_view subject;  // Subject:
  std::string_view text;     // the part for people, lines ending with LF or CR LF
};

// What the words of operators may come to, variables included.
inline constexpr size_t kMaxDsnTextBytes = 64 * 1024;

// CRLF lines, none of ours above 998 bytes (RFC 5322 2.1.1); ASCII unless what is included of the
// original, or the operator's text, is not, or an address that the part for people names: then the
// notification says 8bit, and must be sent as 8BITMIME. Addresses beyond ASCII stand in the part
// for programs as RFC 6533 has them; a sender whose local part is such stands in To as it is
// (SMTPUTF8). Never longer than the original, kMaxDsnTextBytes where there is such a text, and 16
// KiB.
std::string BuildDsn(const DsnInput& input);

// The header section of a message, with its last CRLF and without the empty line; at most
// `max_bytes`, whole lines.
std::string_view HeaderSection(std::string_view message, size_t max_bytes);

}  // namespace sluice::mail
