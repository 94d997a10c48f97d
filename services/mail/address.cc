#include "services/mail/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

#include "services/base/utf8.h"

namespace sluice::mail {
namespace {

bool IsAlnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool IsHighByte(char c) { return static_cast<unsigned char>(c) >= 0x80; }

// RFC 5322 atext, and UTF-8 bytes (RFC 6531 3.3).
bool IsAtext(char c) {
  return IsAlnum(c) || IsHighByte(c) || (c != '\0' && std::strchr("!#$%&'*+-/=?^_`{|}~", c));
}

// Length of the local part at the start of `text`, 0 where there is none.
size_t LocalPartLength(std::string_view text) {
  if (text.empty()) return 0;
  if (text[0] == '"') {
    for (size_t i = 1; i < text.size(); ++i) {
      const char c = text[i];
      if (c == '"') return i + 1;
      if (c == '\\') {
        if (++i >= text.size() || text[i] < ' ' || text[i] > '~') return 0;
      } else if (!IsHighByte(c) && (c < ' ' || c > '~')) {
        return 0;
      }
    }
    return 0;
  }
  size_t i = 0;
  while (true) {
    const size_t atom_start = i;
    while (i < text.size() && IsAtext(text[i])) ++i;
    if (i == atom_start) return 0;
    if (i == text.size() || text[i] != '.') return i;
    ++i;
  }
}

bool IsValidLabel(std::string_view label) {
  if (label.empty() || label.size() > 63) return false;
  if (label.front() == '-' || label.back() == '-') return false;
  return std::all_of(label.begin(), label.end(),
                     [](char c) { return IsAlnum(c) || c == '-' || IsHighByte(c); });
}

bool IsIpText(int family, std::string_view text) {
  char buffer[64];
  if (text.size() >= sizeof buffer) return false;
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = '\0';
  if (std::strlen(buffer) != text.size()) return false;
  unsigned char parsed[16];
  return inet_pton(family, buffer, parsed) == 1;
}

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; };
           return lower(x) == lower(y);
         });
}

}  // namespace

std::string MailboxView::Canonical() const {
  std::string text;
  text.reserve(local_part.size() + 1 + domain.size());
  text.append(local_part);
  if (domain.empty()) return text;
  text.push_back('@');
  for (char c : domain) text.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
  return text;
}

void LowerAscii(std::string& text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
}

bool IsValidUtf8(std::string_view text) { return IsUtf8(text); }

bool IsValidAddressLiteral(std::string_view text) {
  if (text.size() < 3 || text.size() > kMaxDomainBytes) return false;
  if (text.front() != '[' || text.back() != ']') return false;
  text = text.substr(1, text.size() - 2);
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return IsIpText(AF_INET, text);
  const std::string_view tag = text.substr(0, colon);
  const std::string_view content = text.substr(colon + 1);
  if (EqualsIgnoreCase(tag, "IPv6")) return IsIpText(AF_INET6, content);
  if (!IsValidLabel(tag) || content.empty()) return false;
  // RFC 5321 would allow "<", "(", ";" and the like here, which could end a path or begin a comment
  // in a header field. No registered tag needs them.
  return std::all_of(content.begin(), content.end(), [](char c) {
    return IsAlnum(c) || c == '.' || c == ':' || c == '-' || c == '_';
  });
}

bool IsValidDomain(std::string_view domain, bool allow_utf8) {
  if (domain.empty() || domain.size() > kMaxDomainBytes) return false;
  size_t start = 0;
  while (true) {
    const size_t dot = domain.find('.', start);
    if (!IsValidLabel(domain.substr(start, dot == std::string_view::npos ? dot : dot - start))) {
      return false;
    }
    if (dot == std::string_view::npos) break;
    start = dot + 1;
  }
  if (std::none_of(domain.begin(), domain.end(), IsHighByte)) return true;
  return allow_utf8 && IsValidUtf8(domain);
}

AddressError ParseMailbox(std::string_view text, bool allow_utf8, DomainRule domain_rule,
                          MailboxView& out) {
  out = MailboxView();
  const size_t local_length = LocalPartLength(text);
  if (local_length == 0) return AddressError::kSyntax;
  out.local_part = text.substr(0, local_length);
  out.is_utf8 = std::any_of(text.begin(), text.end(), IsHighByte);
  if (out.is_utf8 && !IsValidUtf8(text)) return AddressError::kSyntax;
  if (local_length == text.size()) {
    if (domain_rule == DomainRule::kRequired) return AddressError::kSyntax;
  } else {
    if (text[local_length] != '@') return AddressError::kSyntax;
    out.domain = text.substr(local_length + 1);
    if (out.domain.size() > kMaxDomainBytes) return AddressError::kDomainTooLong;
    const bool valid = !out.domain.empty() && out.domain[0] == '['
                           ? IsValidAddressLiteral(out.domain)
                           : IsValidDomain(out.domain, true);
    if (!valid) return AddressError::kSyntax;
  }
  if (local_length > kMaxLocalPartBytes) return AddressError::kLocalPartTooLong;
  if (out.is_utf8 && !allow_utf8) return AddressError::kNeedsSmtpUtf8;
  return AddressError::kNone;
}

AddressError ConsumePath(std::string_view& text, bool allow_utf8, DomainRule domain_rule,
                         MailboxView& out) {
  out = MailboxView();
  if (text.empty() || text[0] != '<') return AddressError::kSyntax;
  size_t start = 1;
  if (start < text.size() && text[start] == '@') {
    // "@a,@b:" before the mailbox: obsolete, to be accepted and ignored.
    const size_t colon = text.find(':', start);
    if (colon == std::string_view::npos) return AddressError::kSyntax;
    std::string_view route = text.substr(start, colon - start);
    while (!route.empty()) {
      const size_t comma = route.find(',');
      const std::string_view hop = route.substr(0, comma);
      if (hop.size() < 2 || hop[0] != '@' || !IsValidDomain(hop.substr(1), allow_utf8)) {
        return AddressError::kSyntax;
      }
      if (comma == std::string_view::npos) break;
      route.remove_prefix(comma + 1);
      if (route.empty()) return AddressError::kSyntax;
    }
    start = colon + 1;
  } else if (start < text.size() && text[start] == '>') {
    text.remove_prefix(2);
    return AddressError::kNone;
  }
  // The ">" that ends the path is the first one outside a quoted local part.
  const size_t local_length = LocalPartLength(text.substr(start));
  const size_t end = text.find('>', start + local_length);
  if (local_length == 0 || end == std::string_view::npos) return AddressError::kSyntax;
  const AddressError error =
      ParseMailbox(text.substr(start, end - start), allow_utf8, domain_rule, out);
  if (error != AddressError::kNone) return error;
  if (end - start + 2 > kMaxPathBytes) return AddressError::kDomainTooLong;
  text.remove_prefix(end + 1);
  return AddressError::kNone;
}

}  // namespace sluice::mail
