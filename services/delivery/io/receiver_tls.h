// What receivers publish of TLS, put to use: MTA-STS and DANE before connections, TLS-RPT after
// them. Owns the parts, their file of cached policies, and the reports of each day.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "services/base/net/event_loop.h"
#include "services/delivery/core/connection.h"
#include "services/delivery/dns/dns_client.h"
#include "services/delivery/io/https_client.h"
#include "services/delivery/tls_policy/mta_sts_cache.h"
#include "services/delivery/tls_policy/policed_connections.h"
#include "services/delivery/tls_policy/report_poster.h"
#include "services/delivery/tls_policy/tls_report_day.h"
#include "services/delivery/tls_policy/tls_report_mail.h"

namespace sluice::delivery {

struct ReceiverTlsOptions {
  // Holds "mta-sts" (policies, kept over restarts), "tls-report-day" (what was counted of the day
  // when the process stopped) and "tls-reports/" (one file a day, a report a line, for kKeptReports
  // days). Empty: nothing is kept.
  std::string data_dir;
  std::string host_name;  // in reports
  std::string instance;   // of this worker: letters, digits, "-"; other characters become "-"
  HttpsOptions https;
  // Whether the domain's policy host, and the hosts that it wants reports at, may have private
  // addresses.
  HttpsPolicyFetcher::MayBePrivate may_be_private;
  Duration report_period = TlsReportDay::kDay;
  // Reports for the addresses of "mailto:" go here. Called on the loop.
  absl::AnyInvocable<void(TlsReportMail)> send_mail;
};

// Thread-safety: the loop's thread; made and destroyed while the loop does not run, or on it. Files
// are written by a thread of its own. Lifetime: loop, DNS client and inner factory outlive it.
// Failure: files that cannot be written are told to nobody but the next start, which begins
// without.
class ReceiverTls {
 public:
  static constexpr int kKeptReports = 14;
  static constexpr auto kSaveEvery = std::chrono::minutes(1);

  static absl::StatusOr<std::unique_ptr<ReceiverTls>> Create(EventLoop& loop, DnsClient& dns,
                                                             ConnectionFactory& inner,
                                                             ReceiverTlsOptions options);
  ~ReceiverTls();

  // Holds connections to the policies.
  ConnectionFactory& connections() { return *connections_; }

  MtaStsStats mta_sts_stats() const { return cache_->stats(); }
  const PolicedStats& policed_stats() const { return connections_->stats(); }
  TlsReportDay& reports() { return *day_; }
  const ReportPosterStats& report_stats() const { return poster_->stats(); }

 private:
  ReceiverTls(EventLoop& loop, ReceiverTlsOptions options)
      : loop_(loop), options_(std::move(options)) {}
  bool MayBePrivate(const std::string& domain);
  void SaveLater();
  void Save();
  void OnReport(TlsReport report);
  void SendReport(ReportPost post, ReportPoster::Done done);
  void WriteReports();
  void InBackground(absl::AnyInvocable<void()> work);

  EventLoop& loop_;
  ReceiverTlsOptions options_;
  std::unique_ptr<HttpsClient> https_;
  std::unique_ptr<HttpsPolicyFetcher> fetcher_;
  std::unique_ptr<MtaStsCache> cache_;
  std::unique_ptr<DaneLookup> dane_;
  std::unique_ptr<TlsPolicy> policy_;
  std::unique_ptr<ChainVerifier> verifier_;
  TlsReportCounters counters_;
  std::unique_ptr<PolicedConnections> connections_;
  std::unique_ptr<ReportPoster> poster_;
  std::unique_ptr<TlsReportDay> day_;
  uint64_t saved_ = 0;
  TimerId save_timer_ = 0;
  TimerId report_timer_ = 0;
  std::string report_lines_;
  std::thread writer_;
};

}  // namespace sluice::delivery
