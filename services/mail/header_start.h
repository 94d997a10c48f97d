// Where a header section begins and ends in a whole text.
#pragma once

#include <string>
#include <string_view>

#include "services/mail/header_fields.h"

namespace sluice::mail {

// Bytes of the header section at the front of `text`, with its empty line. Without an empty line
// all of it.
inline size_t HeaderSize(std::string_view text) {
  if (text.starts_with("\r\n")) return 2;
  const size_t empty_line = text.find("\r\n\r\n");
  return empty_line == std::string_view::npos ? text.size() : empty_line + 4;
}

// Puts an empty line at `begin` of `text` where what stands there is neither a field nor the empty
// line: a fold of whatever is put before it, or text; nobody writes on in a field of ours. The
// "From " line of a mailbox is left to those who read it. The bytes put in.
inline size_t SeparateFromFields(size_t begin, std::string& text) {
  const std::string_view rest = std::string_view(text).substr(begin);
  if (rest.starts_with("From ") || rest.starts_with(">From ")) return 0;
  HeaderField field;
  if (!HeaderFieldReader(rest).Next(field) || !field.name.empty()) return 0;
  text.insert(begin, "\r\n");
  return 2;
}

}  // namespace sluice::mail
