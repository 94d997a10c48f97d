// One asynchronous question and answer, for control and admin calls. The in-process transport posts
// to the service's executor; gRPC sits in grpc_unary.h.
#pragma once

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"

namespace sluice {

// Called exactly once, on whatever executor the callee documents.
template <class Response>
using Done = absl::AnyInvocable<void(absl::StatusOr<Response>)>;

}  // namespace sluice
