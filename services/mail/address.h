// Mail addresses as RFC 5321 4.1.2 and 4.1.3 write them, with the UTF-8 of RFC 6531.
#pragma once

#include <string>
#include <string_view>

namespace sluice::mail {

// RFC 5321 4.5.3.1: octets.
inline constexpr size_t kMaxLocalPartBytes = 64;
inline constexpr size_t kMaxDomainBytes = 255;
inline constexpr size_t kMaxPathBytes = 256;  // with "<" and ">"

enum class AddressError {
  kNone,
  kSyntax,
  kLocalPartTooLong,
  kDomainTooLong,
  kNeedsSmtpUtf8,  // valid, but only where SMTPUTF8 was asked for
};

// Views into the text that was parsed.
struct MailboxView {
  std::string_view local_part;  // as written, with its quotes
  std::string_view domain;  // a name, or an address literal with its brackets; empty: none given
  bool is_utf8 = false;     // has bytes above 127

  // local part as written, "@", the domain in lower case (ASCII letters only). Without "@" where
  // there is no domain.
  std::string Canonical() const;
};

enum class DomainRule { kRequired, kOptional };

// Reads a whole mailbox without "<" and ">": dot-string or quoted string, "@", a domain or an
// address literal. With kOptional a local part alone is valid too (Postmaster).
AddressError ParseMailbox(std::string_view text, bool allow_utf8, DomainRule domain_rule,
                          MailboxView& out);

// Reads a path "<mailbox>" or "<>" at the start of `text`, drops a source route (RFC 5321 4.1.1.3),
// and moves `text` behind it. For "<>" `out` is empty.
AddressError ConsumePath(std::string_view& text, bool allow_utf8, DomainRule domain_rule,
                         MailboxView& out);

// A host name by RFC 5321's Domain, at most kMaxDomainBytes; no trailing dot.
bool IsValidDomain(std::string_view domain, bool allow_utf8);
// "[192.0.2.1]", "[IPv6:…]" or "[tag:…]".
bool IsValidAddressLiteral(std::string_view text);
// Well-formed UTF-8 by RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsValidUtf8(std::string_view text);

// ASCII letters to lower case; other bytes stay.
void LowerAscii(std::string& text);

}  // namespace sluice::mail
