// Message ids between their 16 bytes and the 26 Crockford base32 characters that people see: the
// number in base 32, most significant digit first, padded to 26 digits.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sluice::ctl {

// What is not 16 bytes long is shown in hexadecimal, so that nothing a server says is lost.
std::string MessageIdText(std::string_view bytes);

// Any case; I and L read as 1, O as 0, as Crockford wants it. Nothing where `text` is no id.
std::optional<std::string> ParseMessageId(std::string_view text);

}  // namespace sluice::ctl
