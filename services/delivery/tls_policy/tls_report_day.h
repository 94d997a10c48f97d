// Once a day, or whatever the period is: asks which of the domains that were counted want a report
// (RFC 8460 section 3), and makes the reports of those.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "services/base/executor.h"
#include "services/delivery/dns/dns_client.h"
#include "services/delivery/tls_policy/tls_report.h"

namespace sluice::delivery {

struct TlsReport {
  std::string domain;
  std::vector<std::string> uris;  // "mailto:...", "https://..."
  TlsReportHead head;
  std::string json;
};

struct TlsReportSender {
  std::string organization;  // this host's name
  std::string contact;       // an address for questions
  std::string sender;        // this worker's name: two of one organization report apart
};

// Thread-safety: one executor. Lifetime: executor, DNS client and counters outlive it. A domain
// whose record cannot be asked for gets no report for that day. Memory: one day's counters, and
// kMaxQuestions questions at a time.
class TlsReportDay {
 public:
  static constexpr size_t kMaxQuestions = 16;
  static constexpr Duration kDay = std::chrono::hours(24);
  using OnReport = absl::AnyInvocable<void(TlsReport)>;

  // `on_report` is called for each report, some time after midnight UTC. `period`, at least a
  // second, is the day's length; a shorter one is for tests, and counts from midnight.
  TlsReportDay(Executor& executor, DnsClient& dns, TlsReportCounters& counters,
               TlsReportSender sender, OnReport on_report, Duration period = kDay);
  ~TlsReportDay();

  // Ends the day now, as midnight does.
  void EndDay();

  // What was counted so far, for a file; and back, before anything is counted. A day that ended
  // meanwhile is reported soon; one that is older than kMostLate is forgotten, as is what makes no
  // sense. Empty: there is nothing.
  static constexpr Duration kMostLate = std::chrono::hours(48);
  std::string Save() const;
  void Load(std::string_view saved);

  // Domains that have not been asked for yet.
  size_t left() const { return domains_.size() + under_way_; }

 private:
  WallTime StartOf(WallTime time) const;
  void WaitForMidnight();
  void AskNext();
  void OnTxt(const std::string& domain, const DnsAnswer& answer);

  Executor& executor_;
  DnsClient& dns_;
  TlsReportCounters& counters_;
  const TlsReportSender sender_;
  OnReport on_report_;
  const Duration period_;
  TimerId timer_ = 0;
  TimerId late_ = 0;  // the report of a day that ended while nothing ran
  WallTime begin_{};
  TlsReportHead head_;  // of the day that is being reported
  TlsReportCounters::Day day_;
  std::deque<std::string> domains_;
  size_t under_way_ = 0;
  bool asking_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::delivery
