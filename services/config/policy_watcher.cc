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
}

void PolicyWatcher::Start() {
  if (!options_.snapshot_file.empty()) ReadFile();
  Connect();
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
  stream_.reset();
  retry_ = executor_.After(backoff_, [this] { Connect(); });
  backoff_ = std::min(backoff_ * 2, options_.max_backoff);
}

void PolicyWatcher::OnFrame(Frame<Response> frame) {
  connected_ = true;
  backoff_ = options_.min_backoff;
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
  if (!status.ok() || options_.snapshot_file.empty() || !changed) return;
  // Not synced: a file that a power cut damages is noticed by its hashes, and it is only a copy.
  const absl::Status written =
      ReplaceFile(options_.snapshot_file, snapshot_.SerializeAsString(), false);
  if (!written.ok()) Failed(std::string(written.message()));
}

absl::Status PolicyWatcher::Use(policy::v1::PolicySnapshot snapshot) {
  auto view = PolicyView::Build(snapshot);
  if (!view.ok()) return view.status();
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
  return absl::OkStatus();
}

}  // namespace sluice::config
