// xtext, the encoding of ESMTP parameter values such as ENVID= and ORCPT= (RFC 3461 4).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sluice::mail {

// What a parameter may be long, encoded (RFC 3461 4.4 and 4.2).
inline constexpr size_t kMaxEnvidBytes = 100;
inline constexpr size_t kMaxOrcptBytes = 500;

// Every byte outside "!" to "~", and "+" and "=", becomes "+XX".
std::string EncodeXtext(std::string_view bytes);

// Nothing where `text` is not xtext. "+" needs two capital hex digits.
std::optional<std::string> DecodeXtext(std::string_view text);

// Whether a byte of `text`, once decoded, could end a line, or is no text for other reasons.
bool HoldsControl(std::string_view text);

}  // namespace sluice::mail
