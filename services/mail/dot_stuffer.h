// Writes a message as SMTP data (RFC 5321 section 4.5.2): a dot before each dot that begins a line,
// and the final CRLF.CRLF. Bodies are given on as slices; only what must change is text of our own.
#pragma once

#include <string_view>

#include "absl/functional/function_ref.h"

namespace sluice::mail {

// Thread-safety: none. One message an object; pieces in order.
class DotStuffer {
 public:
  // `slice` is called with parts of `piece`, `text` with constant bytes, in the order to send.
  void Write(std::string_view piece, absl::FunctionRef<void(std::string_view)> slice,
             absl::FunctionRef<void(std::string_view)> text);
  // What ends the data, given all pieces.
  std::string_view Finish() const {
    if (at_line_start_) return ".\r\n";
    // A CR at the end must not join our LF to a line end that the message did not have.
    return "\r\n.\r\n";
  }

 private:
  bool at_line_start_ = true;  // nothing, or CRLF, came last
  bool after_cr_ = false;
};

}  // namespace sluice::mail
