#include "services/config/compiler_auth.h"

#include <algorithm>

#include "services/base/utf8.h"

namespace sluice::config {
namespace {

constexpr size_t kMaxUserBytes = 256;
constexpr size_t kMaxHashBytes = 1024;

std::string_view TrimBlanks(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace

bool IsUserName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxUserBytes && IsUtf8(name) &&
         std::none_of(name.begin(), name.end(),
                      [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 127; });
}

std::optional<AuthFileError> ParseAuthFile(std::string_view text,
                                           policy::v1::AuthFileSection* section) {
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    const std::string_view line = TrimBlanks(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty() || line[0] == '#') continue;
    if (!IsUtf8(line)) return AuthFileError{number, "this is not UTF-8"};
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || !IsUserName(line.substr(0, colon))) {
      return AuthFileError{number, "a line is written user:hash"};
    }
    std::string_view hash = line.substr(colon + 1);
    // SCRAM verifiers have ":" in them, lines of /etc/shadow have fields behind the hash.
    if (hash.starts_with('$')) hash = hash.substr(0, hash.find(':'));
    if ((!hash.starts_with('$') && !hash.starts_with("SCRAM-SHA-256$")) || hash.size() < 8 ||
        hash.size() > kMaxHashBytes) {
      return AuthFileError{number,
                           "a password is written as a crypt(5) hash ($6$..., $y$...) or a "
                           "SCRAM-SHA-256 verifier, never as it is"};
    }
    const std::string name(line.substr(0, colon));
    if (!section->mutable_hashes()->insert({name, std::string(hash)}).second) {
      return AuthFileError{number, "the user \"" + name + "\" is there twice"};
    }
  }
  return std::nullopt;
}

}  // namespace sluice::config
