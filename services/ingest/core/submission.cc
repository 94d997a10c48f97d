#include "services/ingest/core/submission.h"

#include <utility>

#include "services/base/check.h"

namespace sluice::ingest {

Submission::~Submission() {
  if (token_ != 0) shard_.Forget(token_);
}

void Submission::AddChunk(std::string chunk) {
  SLUICE_CHECK(!finished_ && chunk.size() <= kMaxInlineBodyBytes);
  if (!upload_) upload_.emplace(shard_, static_cast<UploadWaiter&>(*this));
  chunks_.emplace_back(std::move(chunk));
  Pump();
}

void Submission::Pump() {
  while (!chunks_.empty() && (finished_ || chunks_.size() > 1) && !upload_->full()) {
    const bool last = finished_ && chunks_.size() == 1;
    upload_->Send(std::move(chunks_.front()), last);
    chunks_.pop_front();
  }
}

void Submission::Finish(queue::v1::NewMessage message, std::string rest) {
  SLUICE_CHECK(!finished_ && rest.size() <= kMaxInlineBodyBytes);
  finished_ = true;
  if (!upload_) {
    token_ = shard_.Submit(std::move(message), Body(std::move(rest)), this);
    return;
  }
  message_ = std::move(message);
  if (!rest.empty()) chunks_.emplace_back(std::move(rest));
  Pump();
  if (upload_->complete()) SubmitLarge();
}

void Submission::SubmitLarge() {
  message_.set_upload_id(upload_->upload_id());
  upload_->Commit();
  token_ = shard_.Submit(std::move(message_), Body(), this);
}

void Submission::OnUploadProgress() {
  const bool was_congested = congested();
  Pump();
  if (finished_) {
    if (token_ == 0 && upload_->complete()) SubmitLarge();
    return;
  }
  if (was_congested && !congested()) owner_.OnSubmissionWritable();
}

void Submission::OnUploadFailed(std::string_view detail) {
  if (token_ != 0) return;  // the message is out, and its answer decides
  owner_.OnSubmissionDone({SubmitOutcome::kUnreachable, "", std::string(detail)});
}

void Submission::OnSubmitted(const SubmitResult& result) {
  token_ = 0;
  owner_.OnSubmissionDone(result);
}

}  // namespace sluice::ingest
