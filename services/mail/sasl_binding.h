// What ties a SASL exchange to the TLS connection below it (RFC 5056), so that nobody in between
// can pass it on.
#pragma once

#include <string>

namespace sluice::mail {

// Empty: not to be had.
struct SaslChannelBindings {
  std::string tls_exporter;          // RFC 9266
  std::string tls_server_end_point;  // RFC 5929 4
  bool any() const { return !tls_exporter.empty() || !tls_server_end_point.empty(); }
};

}  // namespace sluice::mail
