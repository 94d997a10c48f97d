// What a client is told about the outcome of its message: the one place that maps outcomes to SMTP
// replies and to Status.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "services/ingest/core/shard_client.h"
#include "services/mail/server_reply.h"

namespace sluice::ingest {

// 250 only for what is durable. Details of a shard stay inside.
mail::ServerReply ReplyFor(const SubmitResult& result);

// OK for what is durable. UNAVAILABLE with "outcome unknown" in its text where the client should
// repeat with the same idempotency key; RESOURCE_EXHAUSTED for back-pressure.
absl::Status StatusFor(const SubmitResult& result);

// The refusal of a policy decision, as the gRPC interface says it.
absl::Status StatusFor(const mail::ServerReply& refusal);

}  // namespace sluice::ingest
