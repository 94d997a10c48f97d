// Variables in what local ends are given: ${local}, ${domain}, ${rcpt}, ${from} and ${id}.
#pragma once

#include <string>
#include <string_view>

#include "sluice/queue/v1/queue_service.pb.h"

namespace sluice::delivery {

// Whether the text differs by recipient.
bool NamesRecipient(std::string_view text);

// `text` with its variables; a name that is none stays as it is. With `for_path` what senders and
// recipients choose cannot leave the folder: no slash, no dot in front, never empty. Without
// `preserve_case` (macro-variables-preserve-case) addresses are in lower case.
std::string Expand(std::string_view text, const queue::v1::Lease& lease, int delivery,
                   bool for_path, bool preserve_case);

}  // namespace sluice::delivery
