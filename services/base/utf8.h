// Text that others see: fields of protobuf type string hold UTF-8 and nothing else, or the whole
// message that they are in cannot be read again.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sluice {

// Bytes of the character at the front of `text`, which is not empty; 0 where it is none. Well
// formed by RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
size_t Utf8CharacterBytes(std::string_view text);

bool IsUtf8(std::string_view text);

// Each byte that is in no character becomes "?".
std::string ToUtf8(std::string_view text);

}  // namespace sluice
