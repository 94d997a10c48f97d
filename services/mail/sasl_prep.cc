#include "services/mail/sasl_prep.h"

#include <stringprep.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "services/mail/address.h"

namespace sluice::mail {
namespace {

struct Free {
  void operator()(char* text) const { std::free(text); }
};

}  // namespace

std::optional<std::string> SaslPrep(std::string_view text) {
  if (text.empty()) return std::nullopt;
  if (std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; })) {
    return std::string(text);
  }
  // The library takes texts that end at a NUL, and trusts them to be UTF-8.
  if (text.find('\0') != std::string_view::npos || !IsValidUtf8(text)) return std::nullopt;
  char* made = nullptr;
  if (stringprep_profile(std::string(text).c_str(), &made, "SASLprep",
                         Stringprep_profile_flags{}) != STRINGPREP_OK) {
    return std::nullopt;
  }
  const std::unique_ptr<char, Free> owned(made);
  if (*made == '\0') return std::nullopt;
  return std::string(made);
}

}  // namespace sluice::mail
