// The header section of a message, field by field (RFC 5322 2.2), without copies.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::mail {

struct HeaderField {
  std::string_view name;   // without the colon and blanks before it; empty: the line is no field
  std::string_view value;  // as it stands behind the colon, with its folds, without the last CR LF
  size_t begin = 0;        // the whole field is text[begin, end), with its line ends
  size_t end = 0;
};

// Walks over the fields of a text with CR LF line ends. Stops before the empty line. A line that is
// no field is given with an empty name, so that nothing is passed over. Thread-safety: none.
// Lifetime: the text outlives the reader.
class HeaderFieldReader {
 public:
  explicit HeaderFieldReader(std::string_view text) : text_(text) {}

  // False at the end of the header section.
  bool Next(HeaderField& field);

  // Where the empty line begins, or the text's size; known when Next has returned false.
  size_t position() const { return position_; }

 private:
  std::string_view text_;
  size_t position_ = 0;
};

// Header names are compared without case (ASCII).
bool HeaderNameEquals(std::string_view a, std::string_view b);

// The value in one line: folds taken out (RFC 5322 2.2.3), blanks around it dropped, cut to
// `max_bytes`.
std::string UnfoldHeaderValue(std::string_view value, size_t max_bytes);

// The first address in the value of From or Sender, canonical (address.h); empty where there is
// none that can be read.
std::string FirstAddress(std::string_view unfolded_value);

}  // namespace sluice::mail
