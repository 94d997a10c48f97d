// Sends a report on TLS to the https: addresses that a domain named (RFC 8460 section 5.4), again
// and again until it is taken or too old.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "services/base/executor.h"
#include "services/delivery/tls_policy/tls_report_day.h"

namespace sluice::delivery {

// Where and what: an HTTPS POST.
struct ReportPost {
  std::string domain;  // that the report is about
  std::string host;    // lower case
  std::string target;  // "/path?query"
  std::string content_type;
  std::string body;
};

// Nothing but ordinary https: addresses of a host: no port, no user, no address literal.
bool SplitHttpsUri(const std::string& uri, std::string* host, std::string* target);

struct ReportPosterStats {
  uint64_t posted = 0;
  uint64_t tries_failed = 0;
  uint64_t given_up = 0;  // too old, or no room to wait
};

// Thread-safety: one executor. Lifetime: the executor outlives it; answers to a destroyed one are
// dropped. What waits is lost with the process. Memory: kMostWaiting reports.
class ReportPoster {
 public:
  static constexpr size_t kMostUnderWay = 8;
  static constexpr size_t kMostWaiting = 2000;  // those under way included
  // RFC 8460 section 5.5: redelivery is tried for a day. Waits double from the first to the
  // longest.
  static constexpr auto kFirstWait = std::chrono::minutes(5);
  static constexpr auto kLongestWait = std::chrono::hours(2);
  static constexpr auto kGiveUpAfter = std::chrono::hours(24);

  using Done = absl::AnyInvocable<void(absl::Status)>;
  // Sends one, and calls `done` once, never within the call: OK where the host took it.
  using Send = absl::AnyInvocable<void(ReportPost, Done)>;

  ReportPoster(Executor& executor, Send send) : executor_(executor), send_(std::move(send)) {}
  ~ReportPoster();

  // To each https: address of the report's.
  void Post(const TlsReport& report);

  size_t waiting() const { return waiting_.size(); }
  const ReportPosterStats& stats() const { return stats_; }

 private:
  struct Waiting {
    uint64_t id;
    std::shared_ptr<const ReportPost> post;  // with the body of all addresses of a report
    MonotonicTime since;
    MonotonicTime next;
    Duration wait;
    bool under_way;
  };

  void SendNext();
  void OnDone(uint64_t id, const absl::Status& status);

  Executor& executor_;
  Send send_;
  std::list<Waiting> waiting_;
  size_t under_way_ = 0;
  uint64_t last_id_ = 0;
  TimerId timer_ = 0;
  ReportPosterStats stats_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::delivery
