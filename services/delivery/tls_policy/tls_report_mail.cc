#include "services/delivery/tls_policy/tls_report_mail.h"

#include <ctime>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "services/delivery/tls_policy/gzip.h"
#include "services/mail/address.h"

namespace sluice::delivery {
namespace {

constexpr size_t kBase64LineChars = 76;

int64_t Seconds(WallTime time) { return ToUnixMicros(time) / 1'000'000; }

std::string Date(WallTime time) {
  const std::time_t seconds = Seconds(time);
  std::tm parts = {};
  gmtime_r(&seconds, &parts);
  char text[64];
  std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S +0000", &parts);
  return text;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::optional<std::string> MailtoAddress(std::string_view uri) {
  constexpr std::string_view kScheme = "mailto:";
  if (!uri.starts_with(kScheme)) return std::nullopt;
  uri.remove_prefix(kScheme.size());
  uri = uri.substr(0, uri.find('?'));
  std::string address;
  for (size_t i = 0; i < uri.size(); ++i) {
    if (uri[i] != '%') {
      address.push_back(uri[i]);
      continue;
    }
    if (i + 2 >= uri.size()) return std::nullopt;
    const int high = HexDigit(uri[i + 1]);
    const int low = HexDigit(uri[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    address.push_back(static_cast<char>(high * 16 + low));
    i += 2;
  }
  mail::MailboxView mailbox;
  if (mail::ParseMailbox(address, false, mail::DomainRule::kRequired, mailbox) !=
      mail::AddressError::kNone) {
    return std::nullopt;
  }
  return address;
}

std::optional<TlsReportMail> MakeTlsReportMail(const TlsReport& report, WallTime now) {
  TlsReportMail mail;
  mail.domain = report.domain;
  for (const std::string& uri : report.uris) {
    if (auto address = MailtoAddress(uri)) mail.recipients.push_back(*std::move(address));
  }
  if (mail.recipients.empty()) return std::nullopt;
  const auto gzip = Gzip(report.json);
  if (!gzip) return std::nullopt;

  const TlsReportHead& head = report.head;
  const std::string& submitter = head.organization;
  const std::string boundary = absl::StrCat("=_sluice_tlsrpt_", Seconds(head.begin));
  std::string& out = mail.content;
  absl::StrAppend(&out, "From: <", head.contact, ">\r\nTo: <", mail.recipients[0], ">");
  for (size_t i = 1; i < mail.recipients.size(); ++i) {
    absl::StrAppend(&out, ",\r\n\t<", mail.recipients[i], ">");
  }
  absl::StrAppend(&out, "\r\nDate: ", Date(now), "\r\nMessage-ID: <tlsrpt.", head.report_id,
                  ">\r\nSubject: Report Domain: ", report.domain, "\r\n\tSubmitter: ", submitter,
                  "\r\n\tReport-ID: <", head.report_id, ">\r\nTLS-Report-Domain: ", report.domain,
                  "\r\nTLS-Report-Submitter: ", submitter,
                  "\r\nAuto-Submitted: auto-generated\r\n"
                  // RFC 8460 section 3: delivered despite any trouble with TLS; this asks the
                  // relays behind us for the same (RFC 8689).
                  "TLS-Required: No\r\nMIME-Version: 1.0\r\n"
                  "Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n\tboundary=\"",
                  boundary, "\"\r\n\r\n");
  absl::StrAppend(&out, "--", boundary, "\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n",
                  "This is an aggregate TLS report from ", submitter, "\r\nabout mail to ",
                  report.domain, ",\r\n", Rfc3339(head.begin), " to ", Rfc3339(head.end),
                  ".\r\n\r\n");
  absl::StrAppend(&out, "--", boundary,
                  "\r\nContent-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64"
                  "\r\nContent-Disposition: attachment;\r\n\tfilename=\"",
                  submitter, "!", report.domain, "!", Seconds(head.begin), "!", Seconds(head.end),
                  head.sender.empty() ? "" : "!", head.sender, ".json.gz\"\r\n\r\n");
  const std::string text = absl::Base64Escape(*gzip);
  for (size_t at = 0; at < text.size(); at += kBase64LineChars) {
    out.append(text, at, kBase64LineChars).append("\r\n");
  }
  absl::StrAppend(&out, "\r\n--", boundary, "--\r\n");
  return mail;
}

}  // namespace sluice::delivery
