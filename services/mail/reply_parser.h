// Reads SMTP replies (RFC 5321 section 4.2) from bytes that a remote server controls.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::mail {

struct SmtpReply {
  int code = 0;          // 0: there was none
  std::string enhanced;  // "5.1.1", or empty (RFC 2034)
  std::string text;      // lines joined by "\n", without codes; cut at kMaxReplyTextBytes

  // It is done. 3xx is not: of those only 354 has a meaning, and only after DATA.
  bool positive() const { return code >= 200 && code < 300; }
  bool transient() const { return code >= 400 && code < 500; }
  bool permanent() const { return code >= 500; }
};

inline constexpr size_t kMaxReplyTextBytes = 8 * 1024;
inline constexpr size_t kMaxReplyLineBytes = 4 * 1024;
inline constexpr size_t kMaxReplyBytes = 64 * 1024;  // of one reply, all lines

// Thread-safety: none. Memory: at most kMaxReplyLineBytes and kMaxReplyTextBytes.
class ReplyParser {
 public:
  // Reads until a reply is complete or `bytes` are used up; returns how many were. After broken()
  // it takes nothing.
  size_t Consume(std::string_view bytes);
  // A whole reply is there: Take it before the next Consume.
  bool complete() const { return complete_; }
  SmtpReply Take();
  // What came is no reply, or too long: problem() says why.
  bool broken() const { return !problem_.empty(); }
  const std::string& problem() const { return problem_; }
  // Part of a reply has been read.
  bool in_reply() const { return !line_.empty() || reply_.code != 0; }

 private:
  void TakeLine();

  std::string line_;
  SmtpReply reply_;
  size_t bytes_ = 0;
  bool complete_ = false;
  std::string problem_;
};

}  // namespace sluice::mail
