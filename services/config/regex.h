// How the configuration writes regular expressions: /text/flags, as PCRE has it; RE2 does the work.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice::config {

// The expression in RE2's writing, with its flags in front. Without the flag I case does not
// matter, as PowerMTA has it; flags i, s and m are PCRE's. `text` begins with "/"; it is moved
// behind the expression and its flags. INVALID_ARGUMENT says what is wrong, also where RE2 lacks
// what is asked for (back references, look-around). Pure.
absl::StatusOr<std::string> ConsumeRegex(std::string_view& text);

}  // namespace sluice::config
