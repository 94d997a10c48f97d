#include "services/mail/dsn.h"

#include <algorithm>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

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
  const std::string recipient = Clean(in.recipient);
  const std::string_view original =
      in.full ? in.original : HeaderSection(in.original, kMaxHeaderBytes);
  std::string diagnostic = Clean(in.diagnostic);
  if (in.diagnostic_code != 0 && !diagnostic.starts_with(std::to_string(in.diagnostic_code))) {
    diagnostic = absl::StrCat(in.diagnostic_code, " ", diagnostic);
  }

  std::string out;
  out.reserve(original.size() + 4096);
  absl::StrAppend(&out, "From: Mail Delivery System <", postmaster, ">\r\n");
  absl::StrAppend(&out, "To: <", Clean(in.sender), ">\r\n");
  absl::StrAppend(&out, "Subject: ", words.subject, "\r\n");
  absl::StrAppend(&out, "Date: ", Date(in.now_unix_us), "\r\n");
  absl::StrAppend(&out, "Message-ID: <", id, "@", host, ">\r\n");
  absl::StrAppend(&out, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
  // A multipart says what its parts hold (RFC 2045 6.4).
  if (!IsAscii(original)) absl::StrAppend(&out, "Content-Transfer-Encoding: 8bit\r\n");
  absl::StrAppend(&out, "Content-Type: multipart/report; report-type=delivery-status;\r\n",
                  "\tboundary=\"", boundary, "\"\r\n\r\n");

  absl::StrAppend(&out, "--", boundary, "\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n");
  absl::StrAppend(&out, "This is the mail system at ", host, ".\r\n\r\n");
  absl::StrAppend(&out, words.explanation, "\r\n\r\n");
  absl::StrAppend(&out, "    <", recipient, ">\r\n");
  if (!diagnostic.empty()) absl::StrAppend(&out, "    ", diagnostic, "\r\n");

  absl::StrAppend(&out, "\r\n--", boundary, "\r\nContent-Type: message/delivery-status\r\n\r\n");
  absl::StrAppend(&out, "Reporting-MTA: dns; ", host, "\r\n");
  if (!in.original_envid.empty()) {
    absl::StrAppend(&out, "Original-Envelope-Id: ", Clean(in.original_envid), "\r\n");
  }
  absl::StrAppend(&out, "Arrival-Date: ", Date(in.arrived_unix_us), "\r\n\r\n");
  if (!in.original_recipient.empty()) {
    absl::StrAppend(&out, "Original-Recipient: ", Clean(in.original_recipient), "\r\n");
  }
  absl::StrAppend(&out, "Final-Recipient: rfc822; ", recipient, "\r\n");
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
