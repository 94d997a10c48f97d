#include "services/ingest/core/submit_reply.h"

#include <string>

#include "services/mail/message_id.h"

namespace sluice::ingest {
namespace {

absl::string_view Absl(std::string_view s) { return {s.data(), s.size()}; }

}  // namespace

mail::ServerReply ReplyFor(const SubmitResult& result) {
  switch (result.outcome) {
    case SubmitOutcome::kQueued:
    case SubmitOutcome::kDuplicate:
      if (result.message_id.size() != mail::kMessageIdBytes) break;
      return {250, {2, 0, 0}, "OK, queued as " + mail::FormatMessageId(result.message_id)};
    case SubmitOutcome::kBusy:
      return {451, {4, 3, 1}, "The queue is busy, try again later"};
    case SubmitOutcome::kFull:
      return {452, {4, 3, 1}, "The queue's storage is full, try again later"};
    case SubmitOutcome::kInvalid:
      return {554, {5, 6, 0}, "The queue refuses this message"};
    case SubmitOutcome::kStoreFailed:
      return {451, {4, 3, 0}, "The queue's storage failed, try again later"};
    case SubmitOutcome::kInFlight:
      return {451, {4, 3, 0}, "This message is being taken already"};
    case SubmitOutcome::kUnreachable:
      return {451, {4, 3, 2}, "The queue cannot be reached, try again later"};
    case SubmitOutcome::kUnknown:
      break;
  }
  return {451, {4, 3, 0}, "The queue gave no answer; the message may be accepted, try again later"};
}

absl::Status StatusFor(const SubmitResult& result) {
  switch (result.outcome) {
    case SubmitOutcome::kQueued:
    case SubmitOutcome::kDuplicate:
      if (result.message_id.size() != mail::kMessageIdBytes) break;
      return absl::OkStatus();
    case SubmitOutcome::kBusy:
    case SubmitOutcome::kFull:
      return absl::ResourceExhaustedError(
          Absl(result.detail.empty() ? "the queue is busy" : result.detail));
    case SubmitOutcome::kInvalid:
      return absl::InvalidArgumentError(
          Absl(result.detail.empty() ? "the queue refuses this message" : result.detail));
    case SubmitOutcome::kStoreFailed:
      return absl::UnavailableError("not accepted: the queue's storage failed");
    case SubmitOutcome::kInFlight:
      return absl::AbortedError("the same idempotency key is being injected, repeat later");
    case SubmitOutcome::kUnreachable:
      return absl::UnavailableError(Absl("not accepted: " + result.detail));
    case SubmitOutcome::kUnknown:
      break;
  }
  return absl::UnavailableError(
      Absl("outcome unknown, repeat with the same key: " + result.detail));
}

absl::Status StatusFor(const mail::ServerReply& refusal) {
  if (refusal.code >= 400 && refusal.code < 500) {
    return absl::ResourceExhaustedError(Absl(refusal.text));
  }
  if (refusal.enhanced.subject == 7 && refusal.code != 554) {
    return absl::PermissionDeniedError(Absl(refusal.text));
  }
  return absl::InvalidArgumentError(Absl(refusal.text));
}

}  // namespace sluice::ingest
