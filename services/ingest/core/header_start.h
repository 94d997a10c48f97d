// Keeps a text that begins without a header section apart from the fields put before it.
#pragma once

#include <string>
#include <string_view>

#include "services/mail/header_fields.h"

namespace sluice::ingest {

// Puts an empty line at `begin` of `text` where what stands there is neither a field nor the empty
// line: a fold of whatever is put before it, or text; nobody writes on in a field of ours. The
// "From " line of a mailbox is left to those who read it. The bytes put in.
inline size_t SeparateFromFields(size_t begin, std::string& text) {
  const std::string_view rest = std::string_view(text).substr(begin);
  if (rest.starts_with("From ") || rest.starts_with(">From ")) return 0;
  mail::HeaderField field;
  if (!mail::HeaderFieldReader(rest).Next(field) || !field.name.empty()) return 0;
  text.insert(begin, "\r\n");
  return 2;
}

}  // namespace sluice::ingest
