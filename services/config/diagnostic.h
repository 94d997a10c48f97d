// What the compiler has to say about a line of a directive file.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::config {

// A place in a file. Values; the line's text is shared.
struct Location {
  std::shared_ptr<const std::string> file;  // as the operator named it; null: no place
  int line = 0;                             // from 1
  int column = 0;                           // from 1, in bytes
  std::string line_text;                    // without the line's end
};

struct Diagnostic {
  enum class Severity { kError, kWarning };
  Severity severity = Severity::kError;
  Location where;
  std::string message;
  std::string hint;  // "did you mean ...?"; may be empty

  // "FILE:LINE:COLUMN: error: MESSAGE", then the line, a caret below the column, and the hint.
  // Without line feed at the end. Control characters of the line, and whatever is not UTF-8, are
  // shown as "?".
  std::string ToString() const;
};

bool HasErrors(const std::vector<Diagnostic>& diagnostics);
// All of them, errors first, a line feed after each.
std::string Render(const std::vector<Diagnostic>& diagnostics);

// Bytes of the UTF-8 character that begins at `at`; 0 where none does (RFC 3629). Pure.
size_t Utf8Bytes(std::string_view text, size_t at);

// The candidate that `name` was most likely meant to be: at most a third of its letters differ.
// Names longer than 64 bytes have none. Case-insensitive.
std::optional<std::string> ClosestName(std::string_view name,
                                       const std::vector<std::string_view>& candidates);

}  // namespace sluice::config
