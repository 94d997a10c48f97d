// Whether a text begins with a header section that fields may stand before.
#pragma once

#include <string_view>

#include "services/mail/header_fields.h"

namespace sluice::ingest {

// True where what stands at the front is neither a field nor the empty line: a fold of whatever is
// put before it, or text. An empty line has to come between then, so that nobody writes on in a
// field of ours. The "From " line of a mailbox is left to those who read it. Pure.
inline bool BeginsWithoutHeader(std::string_view text) {
  if (text.starts_with("From ") || text.starts_with(">From ")) return false;
  mail::HeaderField field;
  return mail::HeaderFieldReader(text).Next(field) && field.name.empty();
}

}  // namespace sluice::ingest
