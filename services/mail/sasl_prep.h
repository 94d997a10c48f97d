// SASLprep (RFC 4013): the one form of user names and passwords that people type in several.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sluice::mail {

// Nothing where `text` is not UTF-8, holds a prohibited character (controls among them), mixes
// directions, or where nothing is left. Characters that Unicode 3.2 did not know are let be, also
// in passwords that are kept (RFC 3454 7 would refuse them there): who has one could never come in.
// Any thread. Printable ASCII stays as it is, cheaply.
std::optional<std::string> SaslPrep(std::string_view text);

}  // namespace sluice::mail
