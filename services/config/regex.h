// How the configuration writes regular expressions: /text/flags, as PCRE has it; RE2 does the work.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice::config {

// The expression in RE2's writing, with its flags in front. Without the flag I case does not
// matter, as PowerMTA has it; flags i, s and m are PCRE's. `text` begins with "/"; it is moved
// behind the expression and its flags. INVALID_ARGUMENT says what is wrong. `needs_pcre`: RE2 lacks
// what is asked for (back references, look-around), and PCRE2 has it; where it is nullptr, that is
// an error too. Pure.
absl::StatusOr<std::string> ConsumeRegex(std::string_view& text, bool* needs_pcre = nullptr);

// What its author most likely did not mean, or nothing: "^4[0-9]2". `expression` as ConsumeRegex
// gives it. Pure.
std::optional<std::string> DoubtAbout(std::string_view expression);
// True where every text of one line matches, so that no later line is ever looked at. Pure.
bool MatchesEverything(std::string_view expression);

}  // namespace sluice::config
