// The grammars of values that are kept as texts: host names, addresses, header names and the like.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "services/config/registry.h"

namespace sluice::config {

// As it is kept, of a whole value (kHostName), or of one item of a list (kDomains); nothing where
// it is not written so. Of grammars that are no texts, and of kText, it is `text` itself. That a
// regex compiles, and that what is named exists, is not looked at. Pure.
std::optional<std::string> ReadTextValue(const Directive& directive, std::string_view text);

// What is put into SMTP replies and headers stays on its line: a byte below 0x20, or DEL.
bool HasControls(std::string_view text);

// A word in lower case that takes the place of what the grammar asks for: "by-smtp-source-ip" of
// the name of a virtual MTA. A field that has it is a text. Pure.
bool StandsForValue(const Directive& directive, std::string_view word);

}  // namespace sluice::config
