// A reply that our SMTP server gives: code, enhanced status code (RFC 3463), text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/clock.h"

namespace sluice::mail {

// "5.1.1"; status_class 0: none, as in 220, 250 to EHLO and 354.
struct EnhancedCode {
  uint8_t status_class = 0;
  uint8_t subject = 0;
  uint16_t detail = 0;
  friend bool operator==(const EnhancedCode&, const EnhancedCode&) = default;
};

struct ServerReply {
  uint16_t code = 0;  // 200 to 599
  EnhancedCode enhanced;
  std::string text;  // lines separated by "\n"; anything may be in it
  Duration delay{};  // how long the session waits before it gives the reply

  bool positive() const { return code < 400; }
  bool operator==(const ServerReply&) const = default;
};

// Longest text that one reply line carries; the rest of a line is cut (RFC 5321 4.5.3.1.5: 512 in
// all).
inline constexpr size_t kMaxServerReplyTextBytes = 480;

// Appends the reply as it goes to the client. Text cannot break out of its line: bytes other than
// printable ASCII become "?", so a peer's words may be quoted in it.
void AppendReply(int code, EnhancedCode enhanced, std::string_view text, std::string& out);

inline void AppendReply(const ServerReply& reply, std::string& out) {
  AppendReply(reply.code, reply.enhanced, reply.text, out);
}

}  // namespace sluice::mail
