#include "services/delivery/tls_policy/dane_lookup.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sluice::delivery {

struct DaneLookup::Search {
  std::string host;
  uint16_t port = 25;
  Done done;
  std::vector<std::string> bases;  // TLSA base domains still to be asked for, the last one first

  void Finish(DaneOutcome outcome, std::string detail) {
    DaneResult result;
    result.outcome = outcome;
    result.detail = std::move(detail);
    done(std::move(result));
  }
};

void DaneLookup::Lookup(std::string_view host, uint16_t port, Done done) {
  auto search = std::make_shared<Search>();
  search->host = std::string(host);
  search->port = port;
  search->done = std::move(done);
  // Whether the zone is signed at all: hosts in unsigned zones are not asked for TLSA, because name
  // servers exist that fail such questions (RFC 7672 section 2.2.2).
  dns_.Query(search->host, DnsType::kA,
             [this, search, alive = std::weak_ptr<bool>(alive_)](DnsAnswer answer) {
               if (!alive.expired()) OnAddress(search, std::move(answer));
             });
}

void DaneLookup::OnAddress(const std::shared_ptr<Search>& search, DnsAnswer answer) {
  if (answer.status == DnsStatus::kFailed) {
    search->Finish(DaneOutcome::kTemporary,
                   absl::StrCat("address of ", search->host, ": ", answer.detail));
    return;
  }
  const bool alias = !answer.canonical.empty() && answer.canonical != search->host;
  if (answer.authenticated) {
    // The name at the end of the aliases first, then the one that they began with.
    search->bases.push_back(search->host);
    if (alias) search->bases.push_back(answer.canonical);
    AskNext(search);
    return;
  }
  if (!alias) {
    search->Finish(DaneOutcome::kNone, "");
    return;
  }
  // An alias in a signed zone to a name in an unsigned one: the alias may have TLSA of its own.
  dns_.Query(search->host, DnsType::kCname,
             [this, search, alive = std::weak_ptr<bool>(alive_)](DnsAnswer cname) {
               if (!alive.expired()) OnAlias(search, cname);
             });
}

void DaneLookup::OnAlias(const std::shared_ptr<Search>& search, const DnsAnswer& answer) {
  if (answer.status == DnsStatus::kFailed) {
    search->Finish(DaneOutcome::kTemporary,
                   absl::StrCat("CNAME of ", search->host, ": ", answer.detail));
    return;
  }
  if (!answer.authenticated) {
    search->Finish(DaneOutcome::kNone, "");
    return;
  }
  search->bases.push_back(search->host);
  AskNext(search);
}

void DaneLookup::AskNext(const std::shared_ptr<Search>& search) {
  if (search->bases.empty()) {
    search->Finish(DaneOutcome::kNone, "");
    return;
  }
  const std::string base = std::move(search->bases.back());
  search->bases.pop_back();
  dns_.Query(absl::StrCat("_", search->port, "._tcp.", base), DnsType::kTlsa,
             [this, search, base, alive = std::weak_ptr<bool>(alive_)](DnsAnswer answer) {
               if (!alive.expired()) OnTlsa(search, base, std::move(answer));
             });
}

void DaneLookup::OnTlsa(const std::shared_ptr<Search>& search, const std::string& base,
                        DnsAnswer answer) {
  switch (answer.status) {
    case DnsStatus::kFailed:
      search->Finish(DaneOutcome::kTemporary, absl::StrCat("TLSA of ", base, ": ", answer.detail));
      return;
    case DnsStatus::kNoData:
    case DnsStatus::kNxDomain:
      AskNext(search);
      return;
    case DnsStatus::kAnswer:
      break;
  }
  if (!answer.authenticated) {
    AskNext(search);
    return;
  }
  DaneResult result;
  for (const DnsRecord& record : answer.records) {
    if (result.tlsa.records.size() >= kMaxTlsaRecords) break;
    auto tlsa = ParseTlsa(record.data);
    if (tlsa && tlsa->usable()) result.tlsa.records.push_back(*std::move(tlsa));
  }
  result.tlsa.base_domain = base;
  result.outcome = result.tlsa.records.empty() ? DaneOutcome::kUnusable : DaneOutcome::kUsable;
  if (result.outcome == DaneOutcome::kUnusable) {
    result.detail = absl::StrCat("no TLSA record of ", base, " is usable");
  }
  search->done(std::move(result));
}

}  // namespace sluice::delivery
