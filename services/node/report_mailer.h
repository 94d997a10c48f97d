// Sends the daily reports on TLS as messages of our own: into a shard, as ingest does, from the
// null sender, in queues that no TLS policy holds for (config::kTlsReportMark).
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "services/base/executor.h"
#include "services/base/log/log.h"
#include "services/config/policy_view.h"
#include "services/delivery/tls_policy/tls_report_mail.h"
#include "services/ingest/core/ingest.h"
#include "services/ingest/core/shard_set.h"
#include "services/mail/message_id.h"

namespace sluice::node {

// Thread-safety: one executor. Lifetime: executor, shards' clients and log outlive it. Failure: a
// report that no shard takes is tried again for kGiveUpAfter; what waits is lost with the process,
// and kept in the data folder (delivery::ReceiverTls). Memory: kMostWaiting reports.
class ReportMailer {
 public:
  static constexpr auto kTryAgain = std::chrono::minutes(1);
  static constexpr auto kGiveUpAfter = std::chrono::hours(6);
  static constexpr size_t kMostWaiting = 2000;

  // `random` starts the ids and the choice between shards. `log` may be null.
  ReportMailer(Executor& executor, std::vector<ingest::ShardEndpoint> shards, uint64_t random,
               Log* log);
  ~ReportMailer();

  // They leave by the virtual MTA that mail of a local client has by default.
  void SetPolicy(std::shared_ptr<const config::PolicyView> policy) { policy_ = std::move(policy); }
  void Send(delivery::TlsReportMail mail);
  size_t waiting() const { return waiting_.size(); }

 private:
  struct Waiting;

  void TryAll();
  void TryLater();
  void Try(Waiting& each);
  void OnSubmitted(Waiting& each, const ingest::SubmitResult& result);
  void Warn(const Waiting& each, std::string_view why) const;

  Executor& executor_;
  const std::vector<ingest::ShardEndpoint> endpoints_;
  const uint64_t random_;
  Log* const log_;
  std::shared_ptr<const config::PolicyView> policy_ = config::PolicyView::Defaults();
  mail::MessageIdGenerator ids_;
  // Made with the first report: most workers never have one.
  std::unique_ptr<ingest::ShardSet> shards_;
  std::list<Waiting> waiting_;
  TimerId timer_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace sluice::node
