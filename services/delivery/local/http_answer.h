// Reads the answer to an HTTP/1.1 request without IO (RFC 9112): as much of it as says what became
// of the message. The receiver may send anything.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace sluice::delivery {

struct HttpAnswer {
  int status = 0;      // 200 to 999
  std::string reason;  // at most 200 bytes, printable
  std::string body;    // its first 500 bytes, printable
  bool operator==(const HttpAnswer&) const = default;
};

// All of a header, and of all interim answers together.
inline constexpr size_t kMaxHttpHeadBytes = 64 * 1024;

// Thread-safety: none. Memory: kMaxHttpHeadBytes and one piece.
class HttpAnswerReader {
 public:
  // True once no more is needed; what comes then is not looked at.
  bool OnBytes(std::string_view bytes);
  // What it says; nothing where it is no HTTP, or its header has no end. `problem` says why.
  std::optional<HttpAnswer> Finish(std::string* problem) const;
  bool empty() const { return taken_ == 0; }

 private:
  std::string text_;     // of the answer that is being read
  size_t taken_ = 0;     // bytes so far
  size_t dropped_ = 0;   // of these, interim answers
  size_t searched_ = 0;  // no end of the header before it
  size_t body_ = 0;      // where it begins; 0: not yet
  size_t body_wanted_ = 0;
  bool done_ = false;
  std::string problem_;
  HttpAnswer answer_;
};

}  // namespace sluice::delivery
