#include "services/mail/server_reply.h"

#include <charconv>

namespace sluice::mail {
namespace {

void AppendNumber(unsigned value, std::string& out) {
  char digits[10];
  const auto result = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, result.ptr);
}

}  // namespace

void AppendReply(int code, EnhancedCode enhanced, std::string_view text, std::string& out) {
  while (true) {
    const size_t newline = text.find('\n');
    const bool last = newline == std::string_view::npos;
    AppendNumber(static_cast<unsigned>(code), out);
    out.push_back(last ? ' ' : '-');
    if (enhanced.status_class != 0) {
      AppendNumber(enhanced.status_class, out);
      out.push_back('.');
      AppendNumber(enhanced.subject, out);
      out.push_back('.');
      AppendNumber(enhanced.detail, out);
      out.push_back(' ');
    }
    for (char c : text.substr(0, newline).substr(0, kMaxServerReplyTextBytes)) {
      out.push_back(c >= ' ' && c <= '~' ? c : '?');
    }
    out.append("\r\n");
    if (last) return;
    text.remove_prefix(newline + 1);
  }
}

}  // namespace sluice::mail
