// Names with letters beyond ASCII in the form that DNS has (IDNA 2008, RFC 5891).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sluice {

// "b\u00fccher.example" as "xn--bcher-kva.example", lower case. Nothing where it is no such name. A
// name that is ASCII already comes back in lower case. Never holds other bytes than letters,
// digits, "-", "_" and ".".
std::optional<std::string> HostNameToAscii(std::string_view name);

}  // namespace sluice
