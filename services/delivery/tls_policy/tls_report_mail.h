// A TLS report as mail (RFC 8460 section 5.3): a multipart/report with the report as gzip'ed JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/clock.h"
#include "services/delivery/tls_policy/tls_report_day.h"

namespace sluice::delivery {

struct TlsReportMail {
  std::string domain;                   // that it is about
  std::vector<std::string> recipients;  // never empty
  std::string content;                  // header and text: ASCII, CRLF lines
};

// The address of a "mailto:" URI (RFC 6068), decoded; what it says of header fields is left out.
// Nothing where there is not exactly one, or it is none that mail could be sent to.
std::optional<std::string> MailtoAddress(std::string_view uri);

// Nothing where the domain wants no report by mail.
std::optional<TlsReportMail> MakeTlsReportMail(const TlsReport& report, WallTime now);

}  // namespace sluice::delivery
