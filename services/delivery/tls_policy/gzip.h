// gzip (RFC 1952), as reports on TLS travel (RFC 8460 section 5.2).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sluice::delivery {

// Nothing where zlib has no memory.
std::optional<std::string> Gzip(std::string_view text);

}  // namespace sluice::delivery
