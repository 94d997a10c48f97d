#include "services/mail/reply_parser.h"

#include <algorithm>
#include <utility>

namespace sluice::mail {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// A bare CR or an escape sequence would make lines of its own in logs, reports and bounces.
void AppendWithoutControls(std::string_view text, std::string* out) {
  for (char c : text) {
    const bool control = (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
    out->push_back(control ? ' ' : c);
  }
}

// "5.1.1" at the start of `text`, followed by a space or the end; its class must be the code's.
size_t EnhancedLength(std::string_view text, int code) {
  if (text.size() < 5 || text[0] != '0' + code / 100 || text[1] != '.') return 0;
  size_t i = 2;
  for (int part = 0; part < 2; ++part) {
    const size_t begin = i;
    while (i < text.size() && i - begin < 3 && IsDigit(text[i])) ++i;
    if (i == begin) return 0;
    if (part == 0) {
      if (i >= text.size() || text[i] != '.') return 0;
      ++i;
    }
  }
  return i == text.size() || text[i] == ' ' ? i : 0;
}

}  // namespace

size_t ReplyParser::Consume(std::string_view bytes) {
  size_t used = 0;
  while (used < bytes.size() && !complete_ && !broken()) {
    const std::string_view rest = bytes.substr(used);
    const size_t newline = rest.find('\n');
    const size_t take = newline == std::string_view::npos ? rest.size() : newline + 1;
    used += take;
    bytes_ += take;
    if (line_.size() + take > kMaxReplyLineBytes) {
      problem_ = "a reply line is longer than 4096 bytes";
    } else if (bytes_ > kMaxReplyBytes) {
      problem_ = "a reply is longer than 65536 bytes";
    } else {
      line_.append(rest.substr(0, take));
      if (newline != std::string_view::npos) TakeLine();
    }
  }
  return used;
}

void ReplyParser::TakeLine() {
  std::string_view line(line_);
  line.remove_suffix(1);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  const bool coded = line.size() >= 3 && line[0] >= '2' && line[0] <= '5' && IsDigit(line[1]) &&
                     IsDigit(line[2]) && (line.size() == 3 || line[3] == ' ' || line[3] == '-');
  if (!coded) {
    problem_ = "not an SMTP reply: ";
    AppendWithoutControls(line.substr(0, 100), &problem_);
    return;
  }
  const int code = (line[0] - '0') * 100 + (line[1] - '0') * 10 + (line[2] - '0');
  if (reply_.code != 0 && code != reply_.code) {
    problem_ = "the lines of one reply have different codes";
    return;
  }
  const bool first = reply_.code == 0;
  reply_.code = code;
  std::string_view text = line.size() > 4 ? line.substr(4) : std::string_view();
  if (const size_t length = EnhancedLength(text, code); length > 0) {
    if (reply_.enhanced.empty()) reply_.enhanced = std::string(text.substr(0, length));
    text.remove_prefix(std::min(text.size(), length + 1));
  }
  if (reply_.text.size() < kMaxReplyTextBytes) {
    if (!first) reply_.text.push_back('\n');
    AppendWithoutControls(text.substr(0, kMaxReplyTextBytes - reply_.text.size()), &reply_.text);
  }
  complete_ = line.size() == 3 || line[3] == ' ';
  line_.clear();
}

SmtpReply ReplyParser::Take() {
  complete_ = false;
  bytes_ = 0;
  return std::exchange(reply_, {});
}

}  // namespace sluice::mail
