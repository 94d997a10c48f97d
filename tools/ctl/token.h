// Tokens of the admin API: made here, kept as a hash there.
#pragma once

#include <string>

#include "tools/ctl/environment.h"

namespace sluice::ctl {

struct TokenOptions {
  std::string name;  // who it is for
  std::string role = "monitor";
  std::string to;  // file that the token is written to; must not be there
};

// Makes a token, writes it to a file that only its owner may read, and prints the line that the
// policy service's --admin-tokens file needs (as a field of an object with `json`).
int MakeToken(const TokenOptions& options, Environment& env, bool json);

// The token of a file. False, with what to do, where it cannot be one.
bool ReadToken(const std::string& path, std::string& token, std::string& error);

}  // namespace sluice::ctl
