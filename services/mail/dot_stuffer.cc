#include "services/mail/dot_stuffer.h"

#include <cstring>

namespace sluice::mail {

void DotStuffer::Write(std::string_view piece, absl::FunctionRef<void(std::string_view)> slice,
                       absl::FunctionRef<void(std::string_view)> text) {
  if (piece.empty()) return;
  size_t begin = 0;
  if (at_line_start_ && piece[0] == '.') text(".");
  // The only other places are CRLF followed by a dot, the CRLF perhaps in the last piece.
  if (after_cr_ && piece[0] == '\n' && piece.size() > 1 && piece[1] == '.') {
    slice(piece.substr(0, 1));
    text(".");
    begin = 1;
  }
  // Dots are rare in a text and a byte is found several times faster than three.
  const char* const data = piece.data();
  size_t at = begin;
  while (const void* found = memchr(data + at, '.', piece.size() - at)) {
    const size_t dot = static_cast<size_t>(static_cast<const char*>(found) - data);
    at = dot + 1;
    if (dot < 2 || data[dot - 1] != '\n' || data[dot - 2] != '\r') continue;
    slice(piece.substr(begin, dot - begin));
    text(".");
    begin = dot;
  }
  slice(piece.substr(begin));
  if (piece.size() == 1) {
    at_line_start_ = piece[0] == '\n' && after_cr_;
  } else {
    at_line_start_ = piece.ends_with("\r\n");
  }
  after_cr_ = piece.back() == '\r';
}

}  // namespace sluice::mail
