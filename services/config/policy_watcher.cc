#include "services/config/policy_watcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/config/durable_file.h"
#include "services/config/snapshot_delta.h"
#include "services/config/snapshot_hash.h"

namespace sluice::config {
namespace {
// A policy service that never says "last chunk" may not fill our memory.
constexpr size_t kMaxDeltaBytes = size_t{512} << 20;
}  // namespace

PolicyWatcher::PolicyWatcher(Executor& executor, WatchPolicyClient& client,
                             PolicyWatcherOptions options, Callback on_policy)
    : executor_(executor),
      client_(client),
      options_(std::move(options)),
      on_policy_(std::move(on_policy)),
      backoff_(options_.min_backoff) {}

PolicyWatcher::~PolicyWatcher() {
  if (retry_ != 0) executor_.Cancel(retry_);
  if (report_timer_ != 0) executor_.Cancel(report_timer_);
}

void PolicyWatcher::Start() {
  if (!options_.snapshot_file.empty()) ReadFile();
  Connect();
  if (options_.report_every.count() > 0) ReportAgain();
}

void PolicyWatcher::ReportAgain() {
  if (report_timer_ != 0) SendReport();
  report_timer_ = executor_.After(options_.report_every, [this] { ReportAgain(); });
}

void PolicyWatcher::SetReport(policy::v1::ServiceReport report) {
  report_ = std::move(report);
  has_report_ = true;
  SendReport();
}

void PolicyWatcher::SendReport() {
  if (!has_report_ || stream_ == nullptr) return;
  Frame<policy::v1::WatchPolicyRequest> frame;
  *frame.header.mutable_report() = report_;
  if (options_.report_every.count() > 0 && on_lease_) {
    constexpr size_t kMostUnanswered = 1000;  // of a policy service that gives none
    if (lease_requests_.size() >= kMostUnanswered) lease_requests_.pop_front();
    lease_requests_.emplace_back(++last_lease_request_, executor_.clock().Now());
    frame.header.mutable_report()->set_lease_request(last_lease_request_);
  }
  stream_->Send(std::move(frame));
}

void PolicyWatcher::Failed(std::string error) {
  last_error_ = std::move(error);
  if (options_.log == nullptr) return;
  options_.log->Error("policy_refused", last_error_,
                      {{"for", options_.hello.service()}, {"kept_version", snapshot_.version()}});
}

void PolicyWatcher::ReadFile() {
  const auto bytes = ReadWholeFile(options_.snapshot_file);
  if (!bytes.ok()) {
    if (!absl::IsNotFound(bytes.status())) Failed(std::string(bytes.status().message()));
    return;
  }
  policy::v1::PolicySnapshot snapshot;
  if (!snapshot.ParseFromString(*bytes) || snapshot.version() == 0 || !IsIntact(snapshot)) {
    Failed(absl::StrCat(options_.snapshot_file, " is damaged and was not used"));
    return;
  }
  if (const absl::Status status = Use(std::move(snapshot)); !status.ok()) {
    Failed(absl::StrCat(options_.snapshot_file, ": ", status.message()));
  }
}

void PolicyWatcher::Connect() {
  retry_ = 0;
  parts_.Clear();
  parts_bytes_ = 0;
  lease_requests_.clear();
  stream_ = client_.Open(executor_);
  stream_->Start(this);
  Frame<policy::v1::WatchPolicyRequest> frame;
  *frame.header.mutable_hello() = options_.hello;
  if (!ask_for_all_ && snapshot_.version() != 0) {
    frame.header.mutable_hello()->set_have_version(snapshot_.version());
    frame.header.mutable_hello()->set_have_sections_hash(SectionsHash(snapshot_));
  }
  stream_->Send(std::move(frame));
  SendReport();
}

void PolicyWatcher::OnClosed(absl::Status status) {
  if (std::exchange(connected_, false) && options_.log != nullptr) {
    options_.log->Warn("policy_lost", std::string(status.message()),
                       {{"for", options_.hello.service()}, {"kept_version", snapshot_.version()}});
  }
  if (const MonotonicTime now = executor_.clock().Now();
      outage_.Failed(now) && options_.log != nullptr) {
    options_.log->Warn("policy_unreachable", std::string(status.message()),
                       {{"for", options_.hello.service()},
                        {"kept_version", snapshot_.version()},
                        {"seconds", outage_.seconds(now)}});
  }
  stream_.reset();
  retry_ = executor_.After(backoff_, [this] { Connect(); });
  backoff_ = std::min(backoff_ * 2, options_.max_backoff);
}

void PolicyWatcher::OnFrame(Frame<Response> frame) {
  connected_ = true;
  outage_.Over();
  backoff_ = options_.min_backoff;
  if (frame.header.has_owners()) OnOwners(std::move(*frame.header.mutable_owners()));
  if (frame.header.has_lease()) OnLease(frame.header.lease());
  if (!frame.header.has_delta()) return;
  policy::v1::SnapshotDelta& delta = *frame.header.mutable_delta();
  parts_bytes_ += delta.ByteSizeLong();
  if (parts_bytes_ > kMaxDeltaBytes ||
      (parts_.version() != 0 && parts_.version() != delta.version())) {
    stream_->Close(absl::InvalidArgumentError("chunks of one delta do not fit together"));
    return;
  }
  if (parts_.version() == 0) {
    parts_ = std::move(delta);
  } else {
    for (auto& section : *delta.mutable_changed()) *parts_.add_changed() = std::move(section);
    for (auto& name : *delta.mutable_removed()) *parts_.add_removed() = std::move(name);
  }
  if (!frame.header.last_chunk()) return;
  parts_bytes_ = 0;
  OnDelta(std::exchange(parts_, {}));
}

void PolicyWatcher::OnDelta(policy::v1::SnapshotDelta delta) {
  const uint64_t version = delta.version();
  auto snapshot = ApplyDelta(snapshot_, std::move(delta));
  if (!snapshot.ok()) {
    // We and the policy service do not agree on what we have.
    Failed(std::string(snapshot.status().message()));
    ask_for_all_ = true;
    stream_->Close(snapshot.status());
    return;
  }
  const bool changed = snapshot->version() != snapshot_.version() ||
                       SectionsHash(*snapshot) != SectionsHash(snapshot_);
  const absl::Status status = changed ? Use(*std::move(snapshot)) : absl::OkStatus();
  Frame<policy::v1::WatchPolicyRequest> frame;
  frame.header.mutable_ack()->set_version(version);
  if (status.ok()) {
    ask_for_all_ = false;
    last_error_.clear();
  } else {
    Failed(std::string(status.message()));
    frame.header.mutable_ack()->set_error(last_error_);
    // The next delta would begin with what we have just refused.
    ask_for_all_ = true;
  }
  if (stream_ != nullptr) stream_->Send(std::move(frame));
  if (status.ok() && changed) Keep(false).IgnoreError();
}

void PolicyWatcher::OnOwners(policy::v1::OwnersTable table) {
  // One that is older comes from a policy service that lost its data; it will hear of ours.
  if (table.epoch() <= snapshot_.owners().epoch()) return;
  policy::v1::OwnersTable before = std::exchange(*snapshot_.mutable_owners(), std::move(table));
  // After a power cut it is this one that we know, or none. Before the first snapshot there is no
  // file that could be used.
  if (snapshot_.version() != 0 && !Keep(true).ok() && !Forget()) {
    *snapshot_.mutable_owners() = std::move(before);
    return;
  }
  if (on_owners_) on_owners_(Owners::Build(snapshot_.owners()));
}

void PolicyWatcher::OnLease(const policy::v1::SourceLease& lease) {
  while (!lease_requests_.empty() && lease_requests_.front().first < lease.request()) {
    lease_requests_.pop_front();
  }
  if (lease_requests_.empty() || lease_requests_.front().first != lease.request()) return;
  const MonotonicTime until = lease_requests_.front().second + Duration(lease.lease_us());
  lease_requests_.pop_front();
  if (on_lease_) on_lease_(until, lease);
}

// A snapshot is not synced: a file that a power cut damages is noticed by its hashes, and it is
// only a copy.
absl::Status PolicyWatcher::Keep(bool sync) {
  if (options_.snapshot_file.empty()) return absl::OkStatus();
  absl::Status written = ReplaceFile(options_.snapshot_file, snapshot_.SerializeAsString(), sync);
  if (!written.ok()) Failed(std::string(written.message()));
  return written;
}

// On a full disk: no file is better than an old one.
bool PolicyWatcher::Forget() {
  const absl::Status removed = RemoveFile(options_.snapshot_file);
  if (!removed.ok()) Failed(std::string(removed.message()));
  return removed.ok();
}

absl::Status PolicyWatcher::Use(policy::v1::PolicySnapshot snapshot) {
  auto view = PolicyView::Build(snapshot);
  if (!view.ok()) return view.status();
  const bool newer = snapshot.owners().epoch() > snapshot_.owners().epoch();  // from the file
  if (!newer) *snapshot.mutable_owners() = snapshot_.owners();
  snapshot_ = std::move(snapshot);
  since_ = executor_.clock().Now();
  if (options_.log != nullptr) {
    options_.log->Info("policy_applied", "",
                       {{"for", options_.hello.service()},
                        {"version", snapshot_.version()},
                        {"sections", snapshot_.sections_size()},
                        {"from", connected_ ? "policy" : "file"}});
  }
  on_policy_(*std::move(view));
  if (newer && on_owners_) on_owners_(Owners::Build(snapshot_.owners()));
  return absl::OkStatus();
}

}  // namespace sluice::config
