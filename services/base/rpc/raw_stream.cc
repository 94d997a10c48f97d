#include "services/base/rpc/raw_stream.h"

#include "services/base/check.h"
#include "services/base/rpc/stream.h"

namespace sluice {

absl::Status FromGrpc(int code, const std::string& message) {
  // gRPC's codes are Abseil's.
  return absl::Status(static_cast<absl::StatusCode>(code), message);
}

void RawStream::Start(RawStreamHandler* handler) {
  SLUICE_CHECK(handler_ == nullptr);
  handler_ = handler;
  std::lock_guard lock(mutex_);
  started_ = true;
  if ((in_.empty() && !ended_ && !client_done_) || delivery_posted_) return;
  delivery_posted_ = true;
  executor_.Post([self = shared_from_this()] { self->Deliver(); });
}

bool RawStream::Send(grpc::ByteBuffer message) {
  if (closed_by_us_ || told_closed_) return true;
  const size_t bytes = message.Length();
  size_t queued = 0;
  {
    std::lock_guard lock(mutex_);
    if (ended_) return true;
    queued = out_bytes_ += bytes;
    if (queued <= kStreamHardLimitBytes) {
      out_.push_back(std::move(message));
      owner_waits_ |= queued > kStreamHighWaterBytes;
    }
  }
  if (queued > kStreamHardLimitBytes) {
    closed_by_us_ = true;
    EndOnce(absl::ResourceExhaustedError("the stream's queue is full: the peer does not read"));
    DoCancel();
    return false;
  }
  WriteNext();
  return queued <= kStreamHighWaterBytes;
}

void RawStream::Close(absl::Status status) {
  if (closed_by_us_ || told_closed_) return;
  closed_by_us_ = true;
  {
    std::lock_guard lock(mutex_);
    finishing_ = true;
    finish_status_ = status;
    // How a client's call ends after its own good close is the server's word.
    have_our_status_ = !writes_end_with_reads_ || !status.ok();
    our_status_ = std::move(status);
  }
  WriteNext();
}

void RawStream::Cancel() {
  if (told_closed_) return;
  closed_by_us_ = true;
  EndOnce(absl::CancelledError("the stream was cancelled"));
  DoCancel();
}

void RawStream::Detach() {
  handler_ = nullptr;
  const bool open = !closed_by_us_ && !told_closed_;
  told_closed_ = true;
  {
    std::lock_guard lock(mutex_);
    detached_ = true;
    started_ = false;  // nothing is posted any more: the executor may go away
    ResumeReads();
  }
  if (open) DoCancel();
}

size_t RawStream::queued_bytes() const {
  std::lock_guard lock(mutex_);
  return out_bytes_;
}

void RawStream::WriteNext() {
  std::lock_guard lock(mutex_);
  if (writing_ || finished_ || (ended_ && writes_end_with_reads_) ||
      (reads_ended_ && writes_end_with_reads_)) {
    return;
  }
  if (!out_.empty()) {
    writing_ = true;
    DoWrite(out_.front());
  } else if (finishing_) {
    finished_ = true;
    DoFinish(finish_status_);
  }
}

void RawStream::ResumeReads() {
  if (!std::exchange(read_paused_, false)) return;
  // Once a server has finished, its call may be gone; a client's waits for a read that fails.
  if (finished_ && !writes_end_with_reads_) return;
  DoRead();
}

bool RawStream::FinishNow(const absl::Status& status) {
  std::lock_guard lock(mutex_);
  if (finished_) return false;
  finished_ = true;
  DoFinish(status);
  return true;
}

void RawStream::WriteDone(bool ok) {
  bool writable = false;
  {
    std::lock_guard lock(mutex_);
    writing_ = false;
    if (!out_.empty()) {
      out_bytes_ -= out_.front().Length();
      out_.pop_front();
    }
    writable = owner_waits_ && out_bytes_ < kStreamLowWaterBytes;
    if (writable) owner_waits_ = false;
    if (writable && ok && started_) {
      executor_.Post([self = shared_from_this()] {
        if (self->handler_ != nullptr && !self->closed_by_us_ && !self->told_closed_) {
          self->handler_->OnRawWritable();
        }
      });
    }
  }
  if (ok) WriteNext();
}

void RawStream::ReadDone(bool ok, grpc::ByteBuffer message) {
  if (!ok) {
    {
      std::lock_guard lock(mutex_);
      reads_ended_ = true;
    }
    ReadsEnded();
    return;
  }
  {
    std::lock_guard lock(mutex_);
    in_bytes_ += message.Length();
    in_.push_back(std::move(message));
    const bool post = started_ && !delivery_posted_;
    delivery_posted_ |= started_;
    const bool read_on = in_bytes_ < kStreamHighWaterBytes || detached_ || ended_;
    read_paused_ = !read_on;
    if (read_on) DoRead();
    if (post) executor_.Post([self = shared_from_this()] { self->Deliver(); });
  }
}

void RawStream::ClientDone() {
  std::lock_guard lock(mutex_);
  client_done_ = true;
  const bool post = started_ && !delivery_posted_;
  delivery_posted_ |= started_;
  if (post) executor_.Post([self = shared_from_this()] { self->Deliver(); });
}

void RawStream::Ended(absl::Status status) { EndOnce(std::move(status)); }

void RawStream::EndOnce(absl::Status status) {
  {
    std::lock_guard lock(mutex_);
    if (ended_) return;
    ended_ = true;
    end_status_ =
        have_our_status_ && !status.ok() && status.code() != absl::StatusCode::kUnavailable
            ? our_status_
            : std::move(status);
    // gRPC may still hold a pointer to the one that is being written.
    out_.resize(writing_ ? 1 : 0);
    out_bytes_ = writing_ ? out_.front().Length() : 0;
    const bool post = started_ && !delivery_posted_;
    delivery_posted_ |= started_;
    if (post) executor_.Post([self = shared_from_this()] { self->Deliver(); });
  }
}

void RawStream::Deliver() {
  std::vector<grpc::ByteBuffer> messages;
  bool ended = false;
  bool client_done = false;
  absl::Status status;
  {
    std::lock_guard lock(mutex_);
    delivery_posted_ = false;
    messages.swap(in_);
    in_bytes_ = 0;
    ended = ended_;
    status = end_status_;
    client_done = client_done_;
    ResumeReads();
  }
  for (grpc::ByteBuffer& message : messages) {
    if (handler_ == nullptr || told_closed_) return;
    handler_->OnRawMessage(std::move(message));
  }
  if (handler_ == nullptr || told_closed_) return;
  if (client_done && !ended && !std::exchange(told_client_done_, true)) {
    if (!handler_->OnRawClientDone()) Close(absl::OkStatus());
  }
  if (!ended) return;
  told_closed_ = true;
  handler_->OnRawClosed(status);
}

}  // namespace sluice
