// Message ids for people, also those that are none.
#pragma once

#include <string>
#include <string_view>

namespace sluice::ctl {

// As mail::FormatMessageId; what is not 16 bytes long is shown in hexadecimal, so that nothing a
// server says is lost.
std::string MessageIdText(std::string_view bytes);

}  // namespace sluice::ctl
