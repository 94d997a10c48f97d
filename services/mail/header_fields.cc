#include "services/mail/header_fields.h"

#include <algorithm>

#include "services/mail/address.h"

namespace sluice::mail {
namespace {

bool IsBlank(char c) { return c == ' ' || c == '\t'; }

}  // namespace

bool HeaderFieldReader::Next(HeaderField& field) {
  if (position_ >= text_.size()) return false;
  if (text_.substr(position_, 2) == "\r\n") return false;
  const size_t begin = position_;
  size_t at = begin;
  while (true) {
    const size_t newline = text_.find('\n', at);
    if (newline == std::string_view::npos) {
      at = text_.size();
      break;
    }
    at = newline + 1;
    if (at >= text_.size() || !IsBlank(text_[at])) break;
  }
  position_ = at;
  field.begin = begin;
  field.end = at;
  std::string_view whole = text_.substr(begin, at - begin);
  if (whole.ends_with('\n')) whole.remove_suffix(1);
  if (whole.ends_with('\r')) whole.remove_suffix(1);
  const size_t colon = whole.find(':');
  std::string_view name = whole.substr(0, colon == std::string_view::npos ? 0 : colon);
  while (!name.empty() && IsBlank(name.back())) name.remove_suffix(1);
  const bool valid = !name.empty() && std::all_of(name.begin(), name.end(),
                                                  [](char c) { return c > ' ' && c <= '~'; });
  field.name = valid ? name : std::string_view();
  field.value = valid ? whole.substr(colon + 1) : whole;
  return true;
}

bool HeaderNameEquals(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [&](char x, char y) { return lower(x) == lower(y); });
}

std::string UnfoldHeaderValue(std::string_view value, size_t max_bytes) {
  while (!value.empty() &&
         (IsBlank(value.front()) || value.front() == '\r' || value.front() == '\n')) {
    value.remove_prefix(1);
  }
  std::string out;
  out.reserve(std::min(value.size(), max_bytes));
  for (char c : value) {
    if (out.size() >= max_bytes) break;
    if (c != '\r' && c != '\n') out.push_back(c);
  }
  while (!out.empty() && IsBlank(out.back())) out.pop_back();
  return out;
}

std::string FirstAddress(std::string_view value) {
  // A quoted display name or a comment may hold "<", "," and "@".
  size_t angle = std::string_view::npos;
  size_t bare_end = value.size();
  bool quoted = false;
  int comment = 0;
  for (size_t i = 0; i < value.size(); ++i) {
    const char c = value[i];
    if (c == '\\') {
      ++i;
    } else if (quoted) {
      quoted = c != '"';
    } else if (comment > 0) {
      comment += c == '(' ? 1 : c == ')' ? -1 : 0;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '(') {
      bare_end = std::min(bare_end, i);
      ++comment;
    } else if (c == '<') {
      angle = i;
      break;
    } else if (c == ',') {
      bare_end = std::min(bare_end, i);
      break;
    }
  }
  MailboxView mailbox;
  if (angle != std::string_view::npos) {
    std::string_view path = value.substr(angle);
    if (ConsumePath(path, true, DomainRule::kRequired, mailbox) != AddressError::kNone) return "";
    return mailbox.Canonical();
  }
  std::string_view bare = value.substr(0, bare_end);
  while (!bare.empty() && IsBlank(bare.front())) bare.remove_prefix(1);
  while (!bare.empty() && IsBlank(bare.back())) bare.remove_suffix(1);
  if (ParseMailbox(bare, true, DomainRule::kRequired, mailbox) != AddressError::kNone) return "";
  return mailbox.Canonical();
}

}  // namespace sluice::mail
