// Queues beside a domain's own, for mail that is held to less: their domain is a mark in braces,
// which no domain has, and the domain behind it. Settings are the
// domain's (PolicyView::ForQueue takes either).
#pragma once

#include <string_view>

namespace sluice::config {

// Reports on the TLS of the domain behind it: what they are about must not keep them back, so
// neither DANE nor MTA-STS nor require-starttls holds for them, and their sessions are in no report
// (RFC 8460 section 3).
inline constexpr std::string_view kTlsReportMark = "{tls-report}";

// Mail with "TLS-Required: No" (RFC 8689 section 4.2.2): goes as other mail does while the domain's
// hosts keep to what the domain publishes of TLS, and without that where they do not. It counts
// against the limits of the queue without the mark, has its owner, and is paused with it.
inline constexpr std::string_view kTlsOptionalMark = "{tls-optional}";

// Both for "domain" and for "domain/vmta". Pure.
inline std::string_view WithoutMark(std::string_view queue) {
  for (const std::string_view mark : {kTlsReportMark, kTlsOptionalMark}) {
    if (queue.starts_with(mark)) return queue.substr(mark.size());
  }
  return queue;
}

inline bool IsTlsOptional(std::string_view queue) { return queue.starts_with(kTlsOptionalMark); }

}  // namespace sluice::config
