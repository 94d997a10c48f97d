#include "services/delivery/io/receiver_tls.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/config/durable_file.h"

namespace sluice::delivery {
namespace {

constexpr size_t kMaxFileBytes = 64 * 1024 * 1024;
constexpr auto kGatherReports = std::chrono::seconds(5);

std::string PoliciesFile(const std::string& data_dir) { return data_dir + "/mta-sts"; }
std::string DayFile(const std::string& data_dir) { return data_dir + "/tls-report-day"; }

// Nothing where there is none, or it is no file of ours.
std::string ReadIfThere(const std::string& file) {
  std::error_code error;
  const auto size = std::filesystem::file_size(file, error);
  if (error || size > kMaxFileBytes) return "";
  const auto text = config::ReadWholeFile(file);
  return text.ok() ? *text : "";
}

// Appends the lines to the day's file; the oldest files go.
void WriteReportFile(const std::string& folder, const std::string& day, const std::string& lines) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  std::ofstream(absl::StrCat(folder, "/", day, ".jsonl"), std::ios::app) << lines;
  std::set<std::filesystem::path> files;
  for (const auto& each : std::filesystem::directory_iterator(folder, error)) {
    if (each.path().extension() == ".jsonl") files.insert(each.path());
  }
  while (files.size() > ReceiverTls::kKeptReports) {
    std::filesystem::remove(*files.begin(), error);
    files.erase(files.begin());
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ReceiverTls>> ReceiverTls::Create(EventLoop& loop, DnsClient& dns,
                                                                 ConnectionFactory& inner,
                                                                 ReceiverTlsOptions options) {
  std::unique_ptr<ReceiverTls> made(new ReceiverTls(loop, std::move(options)));
  auto https = HttpsClient::Create(loop, loop.io(), dns, made->options_.https);
  if (!https.ok()) return https.status();
  made->https_ = *std::move(https);
  auto verifier = ChainVerifier::Create(made->options_.https.ca_file);
  if (!verifier.ok()) return verifier.status();
  made->verifier_ = *std::move(verifier);
  made->fetcher_ = std::make_unique<HttpsPolicyFetcher>(
      *made->https_,
      [self = made.get()](const auto& domain) { return self->MayBePrivate(domain); });
  made->cache_ = std::make_unique<MtaStsCache>(loop, dns, *made->fetcher_, MtaStsOptions());
  made->dane_ = std::make_unique<DaneLookup>(dns);
  made->policy_ = std::make_unique<TlsPolicy>(*made->cache_, *made->dane_);
  made->connections_ = std::make_unique<PolicedConnections>(loop, inner, *made->policy_,
                                                            *made->verifier_, made->counters_);
  ReceiverTls* self = made.get();
  const std::string& host = self->options_.host_name;
  std::string instance = self->options_.instance;
  for (char& c : instance) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c))) c = '-';
  }
  made->poster_ =
      std::make_unique<ReportPoster>(loop, [self](ReportPost post, ReportPoster::Done done) {
        self->SendReport(std::move(post), std::move(done));
      });
  made->day_ = std::make_unique<TlsReportDay>(
      loop, dns, self->counters_,
      TlsReportSender{host, absl::StrCat("postmaster@", host), instance},
      [self](TlsReport report) { self->OnReport(std::move(report)); },
      self->options_.report_period);
  if (!self->options_.data_dir.empty()) {
    self->cache_->Load(ReadIfThere(PoliciesFile(self->options_.data_dir)));
    // Once: what is counted from now on is saved at the stop.
    const std::string day_file = DayFile(self->options_.data_dir);
    self->day_->Load(ReadIfThere(day_file));
    std::error_code error;
    std::filesystem::remove(day_file, error);
    self->saved_ = self->cache_->changes();
    self->SaveLater();
  }
  return made;
}

ReceiverTls::~ReceiverTls() {
  if (save_timer_ != 0) loop_.Cancel(save_timer_);
  if (report_timer_ != 0) loop_.Cancel(report_timer_);
  if (!options_.data_dir.empty()) {
    Save();
    WriteReports();
    if (std::string day = day_->Save(); !day.empty()) {
      InBackground([file = DayFile(options_.data_dir), day = std::move(day)] {
        config::ReplaceFile(file, day, true).IgnoreError();
      });
    }
  }
  if (writer_.joinable()) writer_.join();
}

void ReceiverTls::SaveLater() {
  save_timer_ = loop_.After(kSaveEvery, [this] {
    Save();
    SaveLater();
  });
}

// The cache is what it was a minute ago at worst: a policy that is lost is fetched again.
void ReceiverTls::Save() {
  if (cache_->changes() == saved_) return;
  saved_ = cache_->changes();
  InBackground([file = PoliciesFile(options_.data_dir), text = cache_->Save()] {
    config::ReplaceFile(file, text, true).IgnoreError();
  });
}

bool ReceiverTls::MayBePrivate(const std::string& domain) {
  return options_.may_be_private && options_.may_be_private(domain);
}

void ReceiverTls::SendReport(ReportPost post, ReportPoster::Done done) {
  HttpsRequest request;
  request.host = std::move(post.host);
  request.target = std::move(post.target);
  request.content_type = std::move(post.content_type);
  request.body = std::move(post.body);
  request.allow_private = MayBePrivate(post.domain);
  https_->Send(std::move(request),
               [done = std::move(done)](absl::StatusOr<HttpsResponse> response) mutable {
                 if (!response.ok()) {
                   done(response.status());
                 } else if (response->status / 100 != 2) {
                   done(absl::UnavailableError(absl::StrCat("status ", response->status)));
                 } else {
                   done(absl::OkStatus());
                 }
               });
}

void ReceiverTls::OnReport(TlsReport report) {
  // RFC 8460 section 3: a mailed report without a DKIM signature must be ignored by its recipient,
  // and ours have none. Who names an https: address, too, gets what it can use; who does not gets
  // mail all the same, as a relay behind us may sign it.
  const bool posted = std::any_of(report.uris.begin(), report.uris.end(), [](const auto& uri) {
    std::string host;
    std::string target;
    return SplitHttpsUri(uri, &host, &target);
  });
  if (options_.send_mail && !posted) {
    if (auto mail = MakeTlsReportMail(report, loop_.clock().WallNow())) {
      options_.send_mail(*std::move(mail));
    }
  }
  poster_->Post(report);
  if (options_.data_dir.empty()) return;
  nlohmann::ordered_json line;
  line["domain"] = report.domain;
  line["rua"] = report.uris;
  line["report"] = nlohmann::ordered_json::parse(report.json, nullptr, false);
  absl::StrAppend(&report_lines_,
                  line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace),
                  "\n");
  if (report_timer_ != 0) return;
  report_timer_ = loop_.After(kGatherReports, [this] {
    report_timer_ = 0;
    WriteReports();
  });
}

void ReceiverTls::WriteReports() {
  if (report_lines_.empty()) return;
  InBackground([folder = options_.data_dir + "/tls-reports",
                day = Rfc3339(loop_.clock().WallNow()).substr(0, 10),
                lines = std::exchange(report_lines_, {})] { WriteReportFile(folder, day, lines); });
}

// One at a time: the one before it is long done, save at the end.
void ReceiverTls::InBackground(absl::AnyInvocable<void()> work) {
  if (writer_.joinable()) writer_.join();
  writer_ = std::thread([work = std::move(work)]() mutable { work(); });
}

}  // namespace sluice::delivery
