// Test messages for `inject`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::ctl {

// `pattern` with every "%n" replaced by `number`; "%%" is a percent sign.
std::string FillIn(std::string_view pattern, uint64_t number);

// An RFC 5322 message with CRLF line ends: usual headers, then lines of text until it is
// `size_bytes` long (or as long as its headers, where that is more). Equal arguments give equal
// text.
std::string GenerateMessage(std::string_view from, std::string_view to, uint64_t number,
                            int64_t now_us, size_t size_bytes);

}  // namespace sluice::ctl
