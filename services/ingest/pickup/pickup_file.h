// A file of a pickup folder: the envelope in its first lines, then the message.
//
//   x-sender: <a@example.com>
//   x-receiver: <b@example.org>
//   x-receiver: c@example.org
//   x-virtual-mta: news          (and x-envid:, x-job:)
//   From: ...
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "sluice/ingest/v1/ingest_service.pb.h"

namespace sluice::ingest {

// The message to inject. INVALID_ARGUMENT: no sender or no receiver in front, or a line that cannot
// be read. Line ends may be LF or CR LF. With `remove_dot` the message is written as for DATA
// (RFC 5321 section 4.5.2): it ends before a line of one dot, and where it has none with the file.
// Addresses are checked by who takes the message. Pure.
absl::StatusOr<v1::InjectRequest> ReadPickupFile(std::string_view text, bool remove_dot = false);

}  // namespace sluice::ingest
