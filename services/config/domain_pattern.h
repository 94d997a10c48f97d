// Patterns of <domain> sections, and how settings of several sections become one.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "google/protobuf/message.h"

namespace sluice::config {

// "*" any domain; "d" itself; "*.d" its subdomains; "[*.]d" both; "[ip]" and "[ip/mask]" address
// literals. Case-insensitive: `domain` and pattern are in lower case. Pure.
bool PatternMatches(std::string_view pattern, std::string_view domain);
bool IsPlainDomain(std::string_view pattern);
// Greater is more particular: longer names before shorter ones, of one name "*.d" before "[*.]d", a
// literal before a macro's.
std::pair<int, int> PatternRank(std::string_view pattern, bool from_macro);

// A domain that the pattern matches and, most likely, no more particular one.
std::string ExampleOf(const std::string& pattern);

// * and ? over the whole text. Pure.
bool WildcardMatches(std::string_view pattern, std::string_view text);

// Fields that are set in `particular` replace those of `settings` whole, lists too.
void OverlaySettings(const google::protobuf::Message& particular,
                     google::protobuf::Message* settings);

}  // namespace sluice::config
