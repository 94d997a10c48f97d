// What TLS a connection must have: the verdict of DANE (RFC 7672) and MTA-STS (RFC 8461) on one MX
// host, for the mail of one domain.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "services/delivery/tls_policy/dane_lookup.h"
#include "services/delivery/tls_policy/mta_sts_cache.h"
#include "services/delivery/tls_policy/tls_report.h"

namespace sluice::delivery {

struct TlsQuestion {
  std::string domain;     // of the recipients, lower case, A-labels
  std::string canonical;  // what the domain is an alias of, by its MX lookup; empty: itself
  std::string host;       // lower case
  uint16_t port = 25;
  bool use_dane = false;
  bool use_mta_sts = false;
  bool from_dns = true;        // the host is the domain's MX, and not a route of the configuration
  bool authenticated = false;  // the MX records are (MxResult::authenticated)
};

struct TlsVerdict {
  enum class Verify : uint8_t { kNone, kPkix, kDane };

  // The host may be used for the domain now. Where not: why, and the result-type for TLS-RPT.
  bool allowed = true;
  // No mail without TLS: no fall back to clear text, whatever the settings say.
  bool required = false;
  Verify verify = Verify::kNone;
  // What fails is only reported (MTA-STS in mode testing): mail goes all the same, in clear text,
  // too.
  bool report_only = false;
  std::vector<std::string> names;  // kPkix: the certificate is for one of them
  std::optional<DaneTlsa> dane;    // kDane
  std::string reason;
  std::string failure_type;
  TlsReportPolicy report;

  // Ends the connection if TLS cannot be had, or its certificate is not good.
  bool enforced() const { return required && !report_only; }
};

// Thread-safety: one executor. Lifetime: cache and lookup outlive it.
class TlsPolicy {
 public:
  using Done = absl::AnyInvocable<void(TlsVerdict)>;

  TlsPolicy(MtaStsCache& mta_sts, DaneLookup& dane) : mta_sts_(mta_sts), dane_(dane) {}

  // Calls `done` once, possibly before it returns. A verdict holds for this domain and this host
  // alone: mail of another domain over the same connection needs one of its own.
  void Check(TlsQuestion question, Done done);

  // The host failed the verdict: a newer policy is looked for before the next try.
  void Failed(const TlsQuestion& question) { mta_sts_.Recheck(question.domain); }

 private:
  void CheckMtaSts(const TlsQuestion& question, TlsVerdict verdict, Done done);

  MtaStsCache& mta_sts_;
  DaneLookup& dane_;
};

}  // namespace sluice::delivery
