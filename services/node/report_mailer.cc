#include "services/node/report_mailer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/config/queue_mark.h"
#include "services/ingest/core/route.h"

namespace sluice::node {

struct ReportMailer::Waiting final : ingest::SubmitWaiter {
  Waiting(ReportMailer& owner, delivery::TlsReportMail mail, MonotonicTime since)
      : owner(owner), mail(std::move(mail)), since(since) {}
  void OnSubmitted(const ingest::SubmitResult& result) override {
    owner.OnSubmitted(*this, result);
  }

  ReportMailer& owner;
  const delivery::TlsReportMail mail;
  const MonotonicTime since;
  bool submitted = false;
};

ReportMailer::ReportMailer(Executor& executor, std::vector<ingest::ShardEndpoint> shards,
                           uint64_t random, Log* log)
    : executor_(executor),
      endpoints_(std::move(shards)),
      random_(random),
      log_(log),
      ids_(random) {}

ReportMailer::~ReportMailer() {
  if (timer_ != 0) executor_.Cancel(timer_);
}

void ReportMailer::Send(delivery::TlsReportMail mail) {
  if (waiting_.size() >= kMostWaiting) return;
  waiting_.emplace_back(*this, std::move(mail), executor_.clock().Now());
  if (shards_ == nullptr) {
    shards_ = std::make_unique<ingest::ShardSet>(random_);
    ingest::ShardClientOptions options;
    options.log = log_;
    for (const ingest::ShardEndpoint& each : endpoints_) {
      auto client = std::make_unique<ingest::ShardClient>(each.name, executor_, *each.enqueue,
                                                          *each.upload, options);
      client->set_on_change([this, alive = std::weak_ptr<bool>(alive_)] {
        executor_.Post([this, alive] {
          if (!alive.expired()) TryAll();
        });
      });
      shards_->Add(std::move(client));
    }
    shards_->Start();
  }
  Try(waiting_.back());
  TryLater();
}

void ReportMailer::TryAll() {
  const MonotonicTime now = executor_.clock().Now();
  for (auto each = waiting_.begin(); each != waiting_.end();) {
    if (!each->submitted && now - each->since > kGiveUpAfter) {
      Warn(*each, "no shard takes it");
      each = waiting_.erase(each);
      continue;
    }
    Try(*each++);
  }
}

void ReportMailer::TryLater() {
  if (timer_ != 0 || waiting_.empty()) return;
  timer_ = executor_.After(kTryAgain, [this] {
    timer_ = 0;
    TryAll();
    TryLater();
  });
}

void ReportMailer::Try(Waiting& each) {
  if (each.submitted) return;
  ingest::ShardClient* const shard = shards_->Choose();
  if (shard == nullptr) return;
  const WallTime now = executor_.clock().WallNow();
  queue::v1::NewMessage made;
  common::v1::Message& message = *made.mutable_message();
  message.set_id(ids_.Next(now));
  message.set_source_type(common::v1::SOURCE_TYPE_DSN);
  message.set_time_queued_us(ToUnixMicros(now));
  message.set_body_size(each.mail.content.size());
  const std::string& name = policy_->ForClient("127.0.0.1")->default_virtual_mta();
  const auto route = ingest::LookupRoute(*policy_, name).value_or(ingest::Route{"default", ""});
  for (const std::string& address : each.mail.recipients) {
    common::v1::Delivery& delivery = *made.add_deliveries()->mutable_delivery();
    delivery.set_rcpt_given(address);
    delivery.set_rcpt(address);
    delivery.set_vmta(route.vmta);
    delivery.set_pool(route.pool);
    // The address may be anybody's: the queue is that of its own domain.
    const std::string_view domain = std::string_view(address).substr(address.rfind('@') + 1);
    delivery.set_queue_domain(absl::StrCat(config::kTlsReportMark.data(), std::string(domain)));
  }
  each.submitted = true;
  shard->Submit(std::move(made), Body(each.mail.content), &each);
}

void ReportMailer::OnSubmitted(Waiting& each, const ingest::SubmitResult& result) {
  switch (result.outcome) {
    case ingest::SubmitOutcome::kBusy:
    case ingest::SubmitOutcome::kFull:
    case ingest::SubmitOutcome::kStoreFailed:
    case ingest::SubmitOutcome::kInFlight:
    case ingest::SubmitOutcome::kUnreachable:
      each.submitted = false;  // tried again in its time
      return;
    case ingest::SubmitOutcome::kInvalid:
      Warn(each, result.detail);
      break;
    case ingest::SubmitOutcome::kUnknown:  // a second copy would be worse than none
    case ingest::SubmitOutcome::kQueued:
    case ingest::SubmitOutcome::kDuplicate:
      break;
  }
  waiting_.remove_if([&each](const Waiting& other) { return &other == &each; });
}

void ReportMailer::Warn(const Waiting& each, std::string_view why) const {
  if (log_ == nullptr) return;
  log_->Warn("tls_report_not_sent", std::string(why), {{"domain", each.mail.domain}});
}

}  // namespace sluice::node
