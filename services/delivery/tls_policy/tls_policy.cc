#include "services/delivery/tls_policy/tls_policy.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/base/net/ip_address.h"

namespace sluice::delivery {

void TlsPolicy::Check(TlsQuestion question, Done done) {
  // DANE holds for hosts that were found in an authentic way (RFC 7672 sections 2.2.1 and 2.2.3),
  // and have a name.
  if (!question.use_dane || (question.from_dns && !question.authenticated) ||
      question.host.starts_with("[") || IpAddress::Parse(question.host)) {
    CheckMtaSts(question, {}, std::move(done));
    return;
  }
  const std::string host = question.host;
  const uint16_t port = question.port;
  dane_.Lookup(
      host, port,
      [this, question = std::move(question), done = std::move(done)](DaneResult found) mutable {
        TlsVerdict verdict;
        switch (found.outcome) {
          case DaneOutcome::kNone:
            CheckMtaSts(question, std::move(verdict), std::move(done));
            return;
          case DaneOutcome::kTemporary:
            verdict.allowed = false;
            verdict.required = true;
            verdict.reason = absl::StrCat("DANE: ", found.detail);
            verdict.failure_type = "dnssec-invalid";
            verdict.report.type = TlsReportPolicy::Type::kTlsa;
            done(std::move(verdict));
            return;
          case DaneOutcome::kUnusable:
            verdict.required = true;
            verdict.report.type = TlsReportPolicy::Type::kTlsa;
            CheckMtaSts(question, std::move(verdict), std::move(done));
            return;
          case DaneOutcome::kUsable:
            break;
        }
        // MTA-STS has no say then: it must not override what DANE refuses (RFC 8461 section 2).
        verdict.required = true;
        verdict.verify = TlsVerdict::Verify::kDane;
        verdict.report.type = TlsReportPolicy::Type::kTlsa;
        for (const TlsaRecord& record : found.tlsa.records) {
          verdict.report.text.push_back(record.ToString());
        }
        // RFC 7672 section 3.2.2: the certificate under a trust anchor may be for the domain of the
        // mail, too, and for what that is an alias of; without MX, for the host as it was named.
        for (const std::string& name : {question.from_dns ? question.domain : question.host,
                                        question.from_dns ? question.canonical : std::string()}) {
          auto& others = found.tlsa.other_names;
          if (!name.empty() && name != found.tlsa.base_domain &&
              std::find(others.begin(), others.end(), name) == others.end()) {
            others.push_back(name);
          }
        }
        verdict.dane = std::move(found.tlsa);
        done(std::move(verdict));
      });
}

void TlsPolicy::CheckMtaSts(const TlsQuestion& question, TlsVerdict verdict, Done done) {
  // A route of the configuration is the operator's word; an address literal has no policy.
  if (!question.use_mta_sts || !question.from_dns || question.domain.starts_with("[")) {
    done(std::move(verdict));
    return;
  }
  mta_sts_.Lookup(
      question.domain, [host = question.host, verdict = std::move(verdict), done = std::move(done)](
                           std::shared_ptr<const MtaStsResult> result) mutable {
        if (!result->failure_type.empty()) verdict.failure_type = result->failure_type;
        const MtaStsPolicy& policy = result->policy;
        if (!result->found || policy.mode == MtaStsMode::kNone) {
          if (!result->found) verdict.reason = result->failure_reason;
          done(std::move(verdict));
          return;
        }
        const bool enforce = policy.mode == MtaStsMode::kEnforce;
        if (!enforce && verdict.required) {
          // Unusable TLSA records demand TLS, with any certificate; a test must not tighten that.
          done(std::move(verdict));
          return;
        }
        verdict.report.type = TlsReportPolicy::Type::kSts;
        verdict.report.text = {"version: STSv1",
                               absl::StrCat("mode: ", MtaStsModeName(policy.mode).data()),
                               absl::StrCat("max_age: ", policy.max_age_s)};
        for (const std::string& mx : policy.mx) {
          verdict.report.text.push_back(absl::StrCat("mx: ", mx));
        }
        verdict.report.mx_hosts = policy.mx;
        verdict.verify = TlsVerdict::Verify::kPkix;
        verdict.names = {host};
        verdict.report_only = !enforce;
        verdict.required |= enforce;
        if (!MtaStsAllows(policy, host)) {
          verdict.allowed = !enforce;
          verdict.failure_type = "validation-failure";
          verdict.reason = absl::StrCat("MTA-STS: ", host, " is no mx of the domain's policy");
        }
        done(std::move(verdict));
      });
}

}  // namespace sluice::delivery
