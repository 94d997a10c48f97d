#include "services/ingest/core/shard_client.h"

#include <algorithm>
#include <vector>

#include "services/base/check.h"

namespace sluice::ingest {
namespace {

using queue::v1::EnqueueResult;

SubmitOutcome FromProto(EnqueueResult::Outcome outcome) {
  switch (outcome) {
    case EnqueueResult::OUTCOME_QUEUED:
      return SubmitOutcome::kQueued;
    case EnqueueResult::OUTCOME_DUPLICATE:
      return SubmitOutcome::kDuplicate;
    case EnqueueResult::OUTCOME_REFUSED_BUSY:
      return SubmitOutcome::kBusy;
    case EnqueueResult::OUTCOME_REFUSED_FULL:
      return SubmitOutcome::kFull;
    case EnqueueResult::OUTCOME_REFUSED_INVALID:
      return SubmitOutcome::kInvalid;
    case EnqueueResult::OUTCOME_STORE_FAILED:
      return SubmitOutcome::kStoreFailed;
    case EnqueueResult::OUTCOME_IN_FLIGHT:
      return SubmitOutcome::kInFlight;
    default:
      return SubmitOutcome::kUnknown;  // from a newer shard: never taken for accepted
  }
}

}  // namespace

ShardClient::ShardClient(std::string name, Executor& executor, EnqueueClient& enqueue,
                         UploadClient& upload, const ShardClientOptions& options)
    : name_(std::move(name)),
      executor_(executor),
      enqueue_client_(enqueue),
      upload_client_(upload),
      options_(options) {}

ShardClient::~ShardClient() {
  *alive_ = false;
  for (TimerId timer : {reconnect_timer_, proving_timer_, ask_timer_, timeout_timer_}) {
    if (timer != 0) executor_.Cancel(timer);
  }
  if (enqueue_stream_) enqueue_stream_->Cancel();
  if (upload_stream_) upload_stream_->Cancel();
}

void ShardClient::Start() { Connect(); }

void ShardClient::Connect() {
  reconnect_timer_ = 0;
  spoke_ = false;
  accepting_ = true;
  congested_ = false;
  opened_at_ = executor_.clock().Now();
  enqueue_stream_ = enqueue_client_.Open(executor_);
  enqueue_stream_->Start(&enqueue_handler_);
  Frame<queue::v1::EnqueueRequest> how_are_you;
  how_are_you.header.set_shard(name_);
  enqueue_stream_->Send(std::move(how_are_you));
  proving_timer_ = executor_.After(options_.proving_time, [this] {
    proving_timer_ = 0;
    Changed();
  });
  if (!upload_stream_) {
    upload_stream_ = upload_client_.Open(executor_);
    upload_stream_->Start(&upload_handler_);
  }
}

void ShardClient::ConnectLater() {
  if (reconnect_timer_ != 0) return;
  backoff_ = std::clamp(backoff_ * 2, options_.backoff_min, options_.backoff_max);
  reconnect_timer_ = executor_.After(backoff_, [this] { Connect(); });
}

// Without messages there are no answers, so its recovery would go unnoticed.
void ShardClient::AskAgain() {
  if (ask_timer_ != 0) return;
  ask_timer_ = executor_.After(options_.ask_again, [this] {
    ask_timer_ = 0;
    if (!enqueue_stream_ || accepting_) return;
    enqueue_stream_->Send({});
    AskAgain();
  });
}

bool ShardClient::healthy() const {
  if (!enqueue_stream_ || !accepting_ || congested_) return false;
  return spoke_ || executor_.clock().Now() - opened_at_ >= options_.proving_time;
}

uint64_t ShardClient::load() const {
  const bool holds = executor_.clock().Now() - load_said_at_ <= options_.load_age_max;
  // What it says counts ours again, and is of a moment that has passed: it decides only where it is
  // large. Otherwise all clients would run to a shard that stands still while the other one syncs.
  constexpr uint64_t kSaidPerUnanswered = 16;
  return unanswered_bytes_ + (holds ? shard_queued_bytes_ / kSaidPerUnanswered : 0);
}

bool ShardClient::stalled() const {
  if (timeouts_.empty()) return false;
  const MonotonicTime submitted = timeouts_.front().first - options_.answer_timeout;
  return executor_.clock().Now() - submitted > options_.stall;
}

std::string ShardClient::unhealthy_reason() const {
  if (!enqueue_stream_) return last_error_.empty() ? "not connected" : last_error_;
  if (!accepting_) return not_accepting_reason_.empty() ? "not accepting" : not_accepting_reason_;
  if (congested_) return "congested";
  return healthy() ? "" : "connecting";
}

uint64_t ShardClient::Submit(queue::v1::NewMessage message, Body body, SubmitWaiter* waiter) {
  const uint64_t token = next_token_++;
  message.set_token(token);
  const uint64_t bytes = body.size() + 512 * (1 + message.deliveries_size());
  if (!body.empty() || message.body_case() == queue::v1::NewMessage::BODY_NOT_SET) {
    message.set_body_index(static_cast<uint32_t>(frame_.bodies.size()));
    frame_.bodies.push_back(std::move(body));
  }
  *frame_.header.add_messages() = std::move(message);
  frame_bytes_ += bytes;
  unanswered_bytes_ += bytes;
  pending_.emplace(token, Pending{waiter, bytes, false});
  timeouts_.emplace_back(executor_.clock().Now() + options_.answer_timeout, token);
  ArmTimeout();
  if (frame_bytes_ >= options_.max_frame_bytes && enqueue_stream_) {
    SendFrame();
  } else if (!flush_posted_) {
    flush_posted_ = true;
    executor_.Post([this, alive = alive_] {
      if (*alive) Flush();
    });
  }
  return token;
}

void ShardClient::Forget(uint64_t token) {
  const auto it = pending_.find(token);
  if (it != pending_.end()) it->second.waiter = nullptr;
}

void ShardClient::Flush() {
  flush_posted_ = false;
  if (frame_.header.messages_size() == 0) return;
  if (enqueue_stream_) {
    SendFrame();
    return;
  }
  // Between Submit and now the connection broke. Nothing of it was sent.
  Frame<queue::v1::EnqueueRequest> unsent = std::exchange(frame_, {});
  frame_bytes_ = 0;
  for (const queue::v1::NewMessage& message : unsent.header.messages()) {
    Answer(message.token(), {SubmitOutcome::kUnreachable, "", unhealthy_reason()});
  }
}

void ShardClient::SendFrame() {
  for (const queue::v1::NewMessage& message : frame_.header.messages()) {
    const auto it = pending_.find(message.token());
    if (it != pending_.end()) it->second.sent = true;
  }
  if (!enqueue_stream_->Send(std::exchange(frame_, {}))) {
    congested_ = true;
    Changed();
  }
  frame_bytes_ = 0;
}

void ShardClient::OnEnqueueWritable() {
  congested_ = false;
  Changed();
}

void ShardClient::OnEnqueueFrame(const queue::v1::EnqueueResponse& response) {
  const bool was_healthy = healthy();
  const bool was_accepting = accepting_;
  if (!std::exchange(spoke_, true) && options_.log != nullptr) {
    options_.log->Info("shard_connected", "",
                       {{"shard", name_}, {"peer", enqueue_stream_->peer()}});
  }
  backoff_ = Duration(0);
  outage_.Over();
  if (response.has_load()) {
    accepting_ = response.load().accepting();
    not_accepting_reason_ = response.load().not_accepting_reason();
    shard_queued_bytes_ = response.load().queued_batches_bytes();
    load_said_at_ = executor_.clock().Now();
    if (was_accepting != accepting_ && options_.log != nullptr) {
      options_.log->Write(accepting_ ? LogLevel::kInfo : LogLevel::kWarn,
                          accepting_ ? "shard_accepts" : "shard_refuses", not_accepting_reason_,
                          {{"shard", name_}});
    }
    if (!accepting_) AskAgain();
  }
  if (was_healthy != healthy()) Changed();
  for (const EnqueueResult& result : response.results()) {
    Answer(result.token(), {FromProto(result.outcome()), result.message_id(), result.detail()});
  }
}

void ShardClient::OnEnqueueClosed(const absl::Status& status) {
  last_error_ = "connection to shard " + name_ + " lost: " + std::string(status.message());
  enqueue_stream_.reset();
  const bool wrong = absl::IsFailedPrecondition(status);
  if ((spoke_ || wrong) && options_.log != nullptr) {
    options_.log->Write(wrong ? LogLevel::kError : LogLevel::kWarn,
                        wrong ? "shard_wrong" : "shard_lost", std::string(status.message()),
                        {{"shard", name_}, {"unanswered", pending_.size()}});
  }
  if (const MonotonicTime now = executor_.clock().Now();
      !wrong && outage_.Failed(now) && options_.log != nullptr) {
    options_.log->Warn("shard_unreachable", std::string(status.message()),
                       {{"shard", name_}, {"seconds", outage_.seconds(now)}});
  }
  if (proving_timer_ != 0) executor_.Cancel(std::exchange(proving_timer_, 0));
  shard_queued_bytes_ = 0;
  ConnectLater();
  Changed();
  // What was sent may be durable; what was not goes back in Flush.
  std::vector<uint64_t> lost;
  for (const auto& [token, pending] : pending_) {
    if (pending.sent) lost.push_back(token);
  }
  std::sort(lost.begin(), lost.end());
  for (uint64_t token : lost) Answer(token, {SubmitOutcome::kUnknown, "", last_error_});
}

void ShardClient::Answer(uint64_t token, const SubmitResult& result) {
  const auto it = pending_.find(token);
  if (it == pending_.end()) return;  // came after its timeout
  SubmitWaiter* const waiter = it->second.waiter;
  unanswered_bytes_ -= it->second.bytes;
  pending_.erase(it);
  while (!timeouts_.empty() && !pending_.contains(timeouts_.front().second)) timeouts_.pop_front();
  if (waiter != nullptr) waiter->OnSubmitted(result);
}

void ShardClient::ArmTimeout() {
  while (!timeouts_.empty() && !pending_.contains(timeouts_.front().second)) timeouts_.pop_front();
  if (timeout_timer_ != 0 || timeouts_.empty()) return;
  timeout_timer_ = executor_.At(timeouts_.front().first, [this] {
    timeout_timer_ = 0;
    OnTimeout();
  });
}

void ShardClient::OnTimeout() {
  const MonotonicTime now = executor_.clock().Now();
  std::vector<uint64_t> late;
  while (!timeouts_.empty() && timeouts_.front().first <= now) {
    late.push_back(timeouts_.front().second);
    timeouts_.pop_front();
  }
  for (uint64_t token : late) {
    Answer(token, {SubmitOutcome::kUnknown, "", "shard " + name_ + " gave no answer in time"});
  }
  ArmTimeout();
}

void ShardClient::OnUploadFrame(const queue::v1::UploadResponse& response) {
  if (response.has_opened()) {
    const auto it = uploads_by_token_.find(response.opened().token());
    if (it == uploads_by_token_.end()) {
      // Given up before it was named.
      if (response.opened().upload_id() == 0) return;
      Frame<queue::v1::UploadRequest> abort;
      abort.header.mutable_abort()->set_upload_id(response.opened().upload_id());
      upload_stream_->Send(std::move(abort));
      return;
    }
    ShardUpload* const upload = it->second;
    uploads_by_token_.erase(it);
    if (response.opened().upload_id() == 0) {
      upload->failed_ = true;
      upload->waiter_.OnUploadFailed(response.opened().detail());
      return;
    }
    upload->upload_id_ = response.opened().upload_id();
    uploads_by_id_.emplace(upload->upload_id_, upload);
    upload->Flush();
    return;
  }
  const auto it = uploads_by_id_.find(response.progress().upload_id());
  if (it == uploads_by_id_.end()) return;
  ShardUpload* const upload = it->second;
  if (response.progress().failed()) {
    uploads_by_id_.erase(it);
    upload->failed_ = true;
    upload->waiter_.OnUploadFailed(response.progress().detail());
    return;
  }
  upload->acknowledged_ =
      std::clamp(response.progress().chunks(), upload->acknowledged_, upload->sent_);
  upload->waiter_.OnUploadProgress();
}

void ShardClient::OnUploadClosed(const absl::Status& status) {
  upload_stream_.reset();
  FailUploads("connection to shard " + name_ + " lost: " + std::string(status.message()));
  if (enqueue_stream_) {
    // The message streams stand: only this one is opened again, with the next upload.
    return;
  }
  ConnectLater();
}

void ShardClient::FailUploads(std::string_view detail) {
  std::vector<uint64_t> tokens;
  for (const auto& [id, upload] : uploads_by_id_) tokens.push_back(upload->token_);
  for (const auto& [token, upload] : uploads_by_token_) tokens.push_back(token);
  std::sort(tokens.begin(), tokens.end());
  for (uint64_t token : tokens) {
    // A waiter may drop other uploads: each is looked up anew.
    ShardUpload* found = nullptr;
    for (auto* uploads : {&uploads_by_token_, &uploads_by_id_}) {
      for (auto it = uploads->begin(); it != uploads->end(); ++it) {
        if (it->second->token_ != token) continue;
        found = it->second;
        uploads->erase(it);
        break;
      }
      if (found != nullptr) break;
    }
    if (found == nullptr || found->complete()) continue;
    found->failed_ = true;
    found->waiter_.OnUploadFailed(detail);
  }
}

ShardUpload::ShardUpload(ShardClient& client, UploadWaiter& waiter)
    : client_(client), waiter_(waiter), token_(client.next_token_++) {
  client_.uploads_by_token_.emplace(token_, this);
  if (!client_.upload_stream_) {
    client_.upload_stream_ = client_.upload_client_.Open(client_.executor_);
    client_.upload_stream_->Start(&client_.upload_handler_);
  }
  Frame<queue::v1::UploadRequest> open;
  open.header.mutable_open()->set_token(token_);
  client_.upload_stream_->Send(std::move(open));
}

ShardUpload::~ShardUpload() {
  client_.uploads_by_token_.erase(token_);
  if (upload_id_ == 0) return;
  client_.uploads_by_id_.erase(upload_id_);
  if (committed_ || failed_ || !client_.upload_stream_) return;
  Frame<queue::v1::UploadRequest> abort;
  abort.header.mutable_abort()->set_upload_id(upload_id_);
  client_.upload_stream_->Send(std::move(abort));
}

void ShardUpload::Send(Body chunk, bool last) {
  SLUICE_CHECK(!full() && !last_given_ && chunk.size() <= kMaxInlineBodyBytes);
  held_.push_back(std::move(chunk));
  last_given_ = last;
  Flush();
}

void ShardUpload::Flush() {
  if (upload_id_ == 0 || failed_) return;
  while (!held_.empty() && client_.upload_stream_) {
    Frame<queue::v1::UploadRequest> frame;
    queue::v1::UploadChunk* const chunk = frame.header.mutable_chunk();
    chunk->set_upload_id(upload_id_);
    chunk->set_index(sent_++);
    last_sent_ = last_given_ && held_.size() == 1;
    chunk->set_last(last_sent_);
    frame.bodies.push_back(std::move(held_.front()));
    held_.pop_front();
    client_.upload_stream_->Send(std::move(frame));
  }
}

}  // namespace sluice::ingest
