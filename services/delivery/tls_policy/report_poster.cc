#include "services/delivery/tls_policy/report_poster.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "services/delivery/tls_policy/gzip.h"

namespace sluice::delivery {

bool SplitHttpsUri(const std::string& uri, std::string* host, std::string* target) {
  constexpr std::string_view kScheme = "https://";
  if (!uri.starts_with(kScheme)) return false;
  const std::string rest = uri.substr(kScheme.size(), uri.find('#') - kScheme.size());
  const size_t end = std::min(rest.find_first_of("/?"), rest.size());
  *host = absl::AsciiStrToLower(rest.substr(0, end));
  *target = rest.substr(end);
  if (target->empty() || target->front() == '?') target->insert(0, "/");
  return !host->empty() && std::all_of(host->begin(), host->end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_';
  });
}

ReportPoster::~ReportPoster() {
  if (timer_ != 0) executor_.Cancel(timer_);
}

void ReportPoster::Post(const TlsReport& report) {
  const MonotonicTime now = executor_.clock().Now();
  std::optional<std::string> gzip;
  for (const std::string& uri : report.uris) {
    ReportPost post;
    if (!SplitHttpsUri(uri, &post.host, &post.target)) continue;
    if (!gzip) gzip = Gzip(report.json);
    if (!gzip || waiting_.size() >= kMostWaiting) {
      ++stats_.given_up;
      continue;
    }
    post.domain = report.domain;
    post.content_type = "application/tlsrpt+gzip";
    post.body = *gzip;
    waiting_.push_back({++last_id_, std::make_shared<const ReportPost>(std::move(post)), now, now,
                        kFirstWait, false});
  }
  SendNext();
}

void ReportPoster::SendNext() {
  const MonotonicTime now = executor_.clock().Now();
  MonotonicTime next = MonotonicTime::max();
  for (Waiting& each : waiting_) {
    if (each.under_way) continue;
    if (each.next > now) {
      next = std::min(next, each.next);
      continue;
    }
    // Those that are over come back here when one of these is done.
    if (under_way_ >= kMostUnderWay) break;
    each.under_way = true;
    ++under_way_;
    send_(*each.post,
          [this, id = each.id, alive = std::weak_ptr<bool>(alive_)](const absl::Status& status) {
            if (!alive.expired()) OnDone(id, status);
          });
  }
  if (timer_ != 0) executor_.Cancel(std::exchange(timer_, 0));
  if (next == MonotonicTime::max()) return;
  timer_ = executor_.After(next - now, [this] {
    timer_ = 0;
    SendNext();
  });
}

void ReportPoster::OnDone(uint64_t id, const absl::Status& status) {
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [id](const Waiting& each) { return each.id == id; });
  --under_way_;
  const MonotonicTime now = executor_.clock().Now();
  if (status.ok()) {
    ++stats_.posted;
    waiting_.erase(found);
  } else {
    ++stats_.tries_failed;
    found->under_way = false;
    found->next = now + found->wait;
    found->wait = std::min<Duration>(found->wait * 2, kLongestWait);
    if (found->next - found->since > kGiveUpAfter) {
      ++stats_.given_up;
      waiting_.erase(found);
    }
  }
  SendNext();
}

}  // namespace sluice::delivery
