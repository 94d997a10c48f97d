#include "services/mail/dsn.h"

#include <algorithm>
#include <ctime>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "services/base/idna.h"
#include "services/base/utf8.h"
#include "services/mail/header_fields.h"

namespace sluice::mail {
namespace {

// With its name, a field stays below the 998 bytes of a line.
constexpr size_t kMaxFieldBytes = 900;
constexpr size_t kMaxHeaderBytes = 64 * 1024;

// One header field's worth of printable ASCII: other bytes become '?', line breaks become spaces.
std::string Clean(std::string_view text) {
  std::string clean;
  for (char c : text.substr(0, kMaxFieldBytes)) {
    if (c == '\r') continue;
    if (c == '\n' || c == '\t') c = ' ';
    clean.push_back(c >= 0x20 && c < 0x7f ? c : '?');
  }
  return clean;
}

std::string Date(int64_t unix_us) {
  const std::time_t seconds = unix_us / 1'000'000;
  std::tm time = {};
  gmtime_r(&seconds, &time);
  char text[64];
  const size_t size = strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S +0000", &time);
  return std::string(text, size);
}

struct Words {
  const char* subject;
  const char* explanation;
  const char* action;  // RFC 3464 2.3.3
};

Words WordsOf(DsnKind kind) {
  switch (kind) {
    case DsnKind::kDelayed:
      return {"Delayed mail (still trying)",
              "Your message has not been delivered yet to this recipient; it will be tried again:",
              "delayed"};
    case DsnKind::kDelivered:
      return {"Mail delivered", "Your message was delivered to this recipient:", "delivered"};
    case DsnKind::kRelayed:
      return {"Mail relayed",
              "Your message was handed on for this recipient to a system that sends no reports of "
              "delivery; there may be no further one:",
              "relayed"};
    case DsnKind::kFailed:
      break;
  }
  return {"Undelivered mail returned to sender",
          "Your message could not be delivered to this recipient:", "failed"};
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c & 0x80) == 0; });
}

// With its domain as DNS has it, where that makes an ASCII address of it.
std::optional<std::string> AsciiAddress(std::string_view address) {
  const size_t at = address.rfind('@');
  if (at == address.npos || at > kMaxFieldBytes / 2 || !IsAscii(address.substr(0, at))) {
    return std::nullopt;
  }
  const auto domain = HostNameToAscii(address.substr(at + 1));
  if (!domain) return std::nullopt;
  return absl::StrCat(Clean(address.substr(0, at)), "@", *domain);
}

// For people: UTF-8 without control characters.
std::string Shown(std::string_view address) {
  std::string shown = ToUtf8(address.substr(0, kMaxFieldBytes));
  std::replace_if(
      shown.begin(), shown.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return shown;
}

// utf-8-addr-xtext (RFC 6533 section 3): message/delivery-status is ASCII.
std::string Utf8Xtext(std::string_view address) {
  std::string out;
  const std::string shown = Shown(address);
  for (std::string_view rest = shown; !rest.empty() && out.size() < kMaxFieldBytes;) {
    const size_t bytes = std::max<size_t>(1, Utf8CharacterBytes(rest));
    const auto first = static_cast<unsigned char>(rest[0]);
    uint32_t point = bytes == 1 ? first : first & (0x7fU >> bytes);
    for (size_t i = 1; i < bytes; ++i) point = point << 6 | (static_cast<uint8_t>(rest[i]) & 0x3fU);
    if (bytes == 1 && point > ' ' && point != '\\' && point != '+' && point != '=') {
      out.push_back(rest[0]);
    } else {
      absl::StrAppend(&out, "\\x{", absl::AsciiStrToUpper(absl::StrCat(absl::Hex(point))), "}");
    }
    rest.remove_prefix(bytes);
  }
  return out;
}

// As Final-Recipient has it: "rfc822; u@example.org".
std::string TypedAddress(std::string_view address) {
  if (IsAscii(address)) return absl::StrCat("rfc822; ", Clean(address));
  if (const auto ascii = AsciiAddress(address)) return absl::StrCat("rfc822; ", *ascii);
  return absl::StrCat("utf-8; ", Utf8Xtext(address));
}

// As To has it. Who has no ASCII address takes mail by SMTPUTF8 alone, and its header as it is.
std::string HeaderAddress(std::string_view address) {
  if (IsAscii(address)) return Clean(address);
  return AsciiAddress(address).value_or(Shown(address));
}

std::string OriginalSubject(std::string_view original) {
  HeaderFieldReader reader(HeaderSection(original, kMaxHeaderBytes));
  for (HeaderField field; reader.Next(field);) {
    if (HeaderNameEquals(field.name, "Subject")) {
      return UnfoldHeaderValue(field.value, kMaxFieldBytes);
    }
  }
  return "";
}

std::string ValueOf(const DsnInput& in, std::string_view variable) {
  if (variable == "sender") return Shown(in.sender);
  if (variable == "recipient") return Shown(in.recipient);
  if (variable == "status") return Clean(in.status);
  if (variable == "diagnostic") return Clean(in.diagnostic);
  if (variable == "host") return Clean(in.reporting_mta);
  if (variable == "remote") return Clean(in.remote_mta);
  if (variable == "envid") return Clean(in.original_envid);
  if (variable == "subject") return Clean(OriginalSubject(in.original));
  return in.postmaster.empty() ? absl::StrCat("postmaster@", Clean(in.reporting_mta))
                               : Clean(in.postmaster);
}

// `each` gets the text between variables and the name of the variable behind it ("": none).
template <class Each>
void ForEachVariable(std::string_view text, Each each) {
  while (!text.empty()) {
    const size_t begin = text.find("${");
    const size_t end = begin == text.npos ? text.npos : text.find('}', begin);
    if (end == text.npos) {
      each(text, std::string_view());
      return;
    }
    each(text.substr(0, begin), text.substr(begin + 2, end - begin - 2));
    text.remove_prefix(end + 1);
  }
}

std::string Expand(std::string_view text, const DsnInput& in, size_t max_bytes) {
  std::string out;
  ForEachVariable(text, [&](std::string_view before, std::string_view variable) {
    out.append(before.substr(0, max_bytes - std::min(max_bytes, out.size())));
    if (variable.empty()) return;
    const std::string value = ValueOf(in, variable);
    if (out.size() + value.size() <= max_bytes) out.append(value);
  });
  return out;
}

// Lines of at most 998 bytes that end with CR LF, without control characters.
std::string Lines(std::string_view text) {
  std::string out;
  size_t length = 0;
  for (const char c : text) {
    if (c == '\r') continue;
    if (c == '\n' || length == 998) {
      out.append("\r\n");
      length = 0;
      if (c == '\n') continue;
    }
    out.push_back(c == '\t' || static_cast<unsigned char>(c) >= 0x20 ? c : '?');
    ++length;
  }
  if (length > 0) out.append("\r\n");
  return out;
}

// The part for people.
std::string TextFor(const DsnInput& in, const Words& words, const std::string& diagnostic) {
  if (!in.text.empty()) return Lines(Expand(in.text, in, kMaxDsnTextBytes));
  std::string text = absl::StrCat("This is the mail system at ", Clean(in.reporting_mta),
                                  ".\r\n\r\n", words.explanation, "\r\n\r\n");
  absl::StrAppend(&text, "    <", Shown(in.recipient), ">\r\n");
  if (!diagnostic.empty()) absl::StrAppend(&text, "    ", diagnostic, "\r\n");
  return text;
}

// In one text, what the three parts of a report say.
void AppendPlainText(const DsnInput& in, const Words& words, const std::string& text,
                     std::string_view original, std::string* out) {
  const bool ascii = IsAscii(original) && IsAscii(text);
  if (!ascii) absl::StrAppend(out, "Content-Transfer-Encoding: 8bit\r\n");
  absl::StrAppend(out, "Content-Type: text/plain; charset=", ascii ? "us-ascii" : "utf-8",
                  "\r\n\r\n", text, "\r\nAction: ", words.action, "\r\nStatus: ", Clean(in.status),
                  "\r\n");
  if (in.kind == DsnKind::kDelayed && in.retry_until_unix_us != 0) {
    absl::StrAppend(out, "Will-Retry-Until: ", Date(in.retry_until_unix_us), "\r\n");
  }
  absl::StrAppend(out, "\r\n----- ", in.full ? "Your message" : "The header of your message",
                  " -----\r\n\r\n");
  out->append(original);
}

}  // namespace

std::string_view HeaderSection(std::string_view message, size_t max_bytes) {
  size_t end = 0;
  while (end < message.size()) {
    size_t newline = message.find('\n', end);
    if (newline == std::string_view::npos) newline = message.size() - 1;
    const std::string_view line = message.substr(end, newline + 1 - end);
    if (line == "\r\n" || line == "\n") break;
    if (newline + 1 > max_bytes) break;
    end = newline + 1;
  }
  return message.substr(0, end);
}

std::string BuildDsn(const DsnInput& in) {
  const std::string host = Clean(in.reporting_mta);
  const std::string postmaster =
      in.postmaster.empty() ? absl::StrCat("postmaster@", host) : Clean(in.postmaster);
  const std::string id = Clean(in.message_id);
  const std::string boundary = absl::StrCat("=_sluice_", id);
  const Words words = WordsOf(in.kind);
  const std::string_view original =
      in.full ? in.original : HeaderSection(in.original, kMaxHeaderBytes);
  std::string diagnostic = Clean(in.diagnostic);
  if (in.diagnostic_code != 0 && !diagnostic.starts_with(std::to_string(in.diagnostic_code))) {
    diagnostic = absl::StrCat(in.diagnostic_code, " ", diagnostic);
  }

  const std::string text = TextFor(in, words, diagnostic);
  std::string out;
  out.reserve(original.size() + text.size() + 4096);
  if (in.from.empty()) {
    absl::StrAppend(&out, "From: Mail Delivery System <", postmaster, ">\r\n");
  } else {
    absl::StrAppend(&out, "From: ", Clean(Expand(in.from, in, kMaxFieldBytes)), "\r\n");
  }
  absl::StrAppend(&out, "To: <", HeaderAddress(in.sender), ">\r\n");
  absl::StrAppend(
      &out, "Subject: ",
      in.subject.empty() ? words.subject : Clean(Expand(in.subject, in, kMaxFieldBytes)), "\r\n");
  absl::StrAppend(&out, "Date: ", Date(in.now_unix_us), "\r\n");
  absl::StrAppend(&out, "Message-ID: <", id, "@", host, ">\r\n");
  absl::StrAppend(&out, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
  if (in.plain_text) {
    AppendPlainText(in, words, text, original, &out);
    return out;
  }
  // A multipart says what its parts hold (RFC 2045 6.4).
  if (!IsAscii(original) || !IsAscii(text)) {
    absl::StrAppend(&out, "Content-Transfer-Encoding: 8bit\r\n");
  }
  absl::StrAppend(&out, "Content-Type: multipart/report; report-type=delivery-status;\r\n",
                  "\tboundary=\"", boundary, "\"\r\n\r\n");

  absl::StrAppend(&out, "--", boundary, "\r\nContent-Type: text/plain; charset=");
  absl::StrAppend(&out,
                  IsAscii(text) ? "us-ascii\r\n" : "utf-8\r\nContent-Transfer-Encoding: 8bit\r\n");
  absl::StrAppend(&out, "\r\n", text);

  absl::StrAppend(&out, "\r\n--", boundary, "\r\nContent-Type: message/delivery-status\r\n\r\n");
  absl::StrAppend(&out, "Reporting-MTA: dns; ", host, "\r\n");
  if (!in.original_envid.empty()) {
    absl::StrAppend(&out, "Original-Envelope-Id: ", Clean(in.original_envid), "\r\n");
  }
  absl::StrAppend(&out, "Arrival-Date: ", Date(in.arrived_unix_us), "\r\n\r\n");
  if (!in.original_recipient.empty()) {
    const size_t type = in.original_recipient.find(';');
    absl::StrAppend(
        &out, "Original-Recipient: ",
        IsAscii(in.original_recipient) || type == std::string_view::npos
            ? Clean(in.original_recipient)
            : absl::StrCat("utf-8; ", Utf8Xtext(in.original_recipient.substr(type + 1))),
        "\r\n");
  }
  absl::StrAppend(&out, "Final-Recipient: ", TypedAddress(in.recipient), "\r\n");
  absl::StrAppend(&out, "Action: ", words.action, "\r\n");
  absl::StrAppend(&out, "Status: ", Clean(in.status), "\r\n");
  if (!in.remote_mta.empty()) {
    absl::StrAppend(&out, "Remote-MTA: dns; ", Clean(in.remote_mta), "\r\n");
  }
  if (!diagnostic.empty()) {
    absl::StrAppend(&out, "Diagnostic-Code: ", in.diagnostic_code != 0 ? "smtp" : "x-sluice", "; ",
                    diagnostic, "\r\n");
  }
  if (in.last_attempt_unix_us != 0) {
    absl::StrAppend(&out, "Last-Attempt-Date: ", Date(in.last_attempt_unix_us), "\r\n");
  }

  if (in.kind == DsnKind::kDelayed && in.retry_until_unix_us != 0) {
    absl::StrAppend(&out, "Will-Retry-Until: ", Date(in.retry_until_unix_us), "\r\n");
  }

  absl::StrAppend(&out, "\r\n--", boundary,
                  "\r\nContent-Type: ", in.full ? "message/rfc822" : "text/rfc822-headers", "\r\n");
  if (!IsAscii(original)) absl::StrAppend(&out, "Content-Transfer-Encoding: 8bit\r\n");
  absl::StrAppend(&out, "\r\n");
  out.append(original);
  absl::StrAppend(&out, "\r\n--", boundary, "--\r\n");
  return out;
}

}  // namespace sluice::mail
