// Users who may authenticate. Private to the compiler.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "services/config/draft.h"

namespace sluice::config {

struct AuthFileError {
  int line = 0;
  std::string message;
};

// The text of an auth-plain file: lines "user:hash", empty ones, and comments that begin with "#".
// A hash is a crypt(5) one or a SCRAM-SHA-256 verifier; a password itself is refused, and not
// repeated in the error.
std::optional<AuthFileError> ParseAuthFile(std::string_view text,
                                           policy::v1::AuthFileSection* section);

// Of <smtp-user NAME>.
bool IsUserName(std::string_view name);

}  // namespace sluice::config
