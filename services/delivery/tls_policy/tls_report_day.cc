#include "services/delivery/tls_policy/tls_report_day.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/delivery/tls_policy/mta_sts_record.h"

namespace sluice::delivery {

WallTime TlsReportDay::StartOf(WallTime time) const {
  return WallTime(time.time_since_epoch() / period_ * period_);
}

TlsReportDay::TlsReportDay(Executor& executor, DnsClient& dns, TlsReportCounters& counters,
                           TlsReportSender sender, OnReport on_report, Duration period)
    : executor_(executor),
      dns_(dns),
      counters_(counters),
      sender_(std::move(sender)),
      on_report_(std::move(on_report)),
      period_(period),
      begin_(executor.clock().WallNow()) {
  WaitForMidnight();
}

TlsReportDay::~TlsReportDay() {
  if (timer_ != 0) executor_.Cancel(timer_);
  if (late_ != 0) executor_.Cancel(late_);
}

void TlsReportDay::WaitForMidnight() {
  const WallTime now = executor_.clock().WallNow();
  timer_ = executor_.After(StartOf(now) + period_ - now, [this] {
    timer_ = 0;
    // A clock that was set back is not midnight yet.
    if (StartOf(executor_.clock().WallNow()) > StartOf(begin_)) EndDay();
    WaitForMidnight();
  });
}

void TlsReportDay::EndDay() {
  const WallTime now = executor_.clock().WallNow();
  // Questions that are under way still belong to the day before: their domains are gone from it.
  day_ = counters_.Take();
  head_.organization = sender_.organization;
  head_.contact = sender_.contact;
  head_.begin = begin_;
  head_.end = std::min<WallTime>(now, StartOf(begin_) + period_) - std::chrono::seconds(1);
  head_.sender = sender_.sender;
  begin_ = now;
  domains_.clear();
  for (const auto& [domain, policies] : day_) domains_.push_back(domain);
  AskNext();
}

void TlsReportDay::AskNext() {
  // Answers that come at once must not make this call itself for every domain.
  if (std::exchange(asking_, true)) return;
  const std::weak_ptr<bool> alive = alive_;
  while (under_way_ < kMaxQuestions && !domains_.empty()) {
    const std::string domain = std::move(domains_.front());
    domains_.pop_front();
    ++under_way_;
    dns_.Query(absl::StrCat("_smtp._tls.", domain), DnsType::kTxt,
               [this, domain, alive](DnsAnswer answer) {
                 if (!alive.expired()) OnTxt(domain, answer);
               });
    if (alive.expired()) return;
  }
  asking_ = false;
}

void TlsReportDay::OnTxt(const std::string& domain, const DnsAnswer& answer) {
  --under_way_;
  std::vector<std::string> records;
  for (const DnsRecord& record : answer.records) {
    if (auto text = JoinTxt(record.data)) records.push_back(*std::move(text));
  }
  TlsReport report;
  report.uris = FindTlsReportUris(records);
  const auto found = day_.find(domain);
  const std::weak_ptr<bool> alive = alive_;
  if (found != day_.end()) {
    if (!report.uris.empty()) {
      report.domain = domain;
      report.head = head_;
      report.head.report_id = absl::StrCat(ToUnixMicros(head_.begin) / 1'000'000, ".",
                                           head_.sender.empty() ? "" : head_.sender + ".", domain,
                                           "@", head_.organization);
      report.json = TlsReportJson(report.head, domain, found->second);
    }
    day_.erase(found);
    if (!report.uris.empty()) on_report_(std::move(report));
  }
  if (!alive.expired()) AskNext();
}

}  // namespace sluice::delivery
