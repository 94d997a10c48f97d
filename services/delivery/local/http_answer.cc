#include "services/delivery/local/http_answer.h"

#include <algorithm>
#include <charconv>

namespace sluice::delivery {
namespace {

constexpr size_t kReasonBytes = 200;
constexpr size_t kBodyBytes = 500;

std::string Printable(std::string_view text, size_t most) {
  std::string out(text.substr(0, most));
  std::replace_if(
      out.begin(), out.end(),
      [](char c) { return static_cast<unsigned char>(c) < ' ' || c == 0x7f; }, ' ');
  while (out.ends_with(' ')) out.pop_back();
  return out;
}

// "HTTP/1.1 200 OK"
std::optional<HttpAnswer> ReadStatusLine(std::string_view line) {
  if (!line.starts_with("HTTP/1.") || line.size() < 12 || line[8] != ' ' ||
      (line.size() > 12 && line[12] != ' ')) {
    return std::nullopt;
  }
  HttpAnswer answer;
  const auto parsed = std::from_chars(line.data() + 9, line.data() + 12, answer.status);
  if (parsed.ec != std::errc() || parsed.ptr != line.data() + 12 || answer.status < 100) {
    return std::nullopt;
  }
  answer.reason = Printable(line.substr(std::min<size_t>(13, line.size())), kReasonBytes);
  return answer;
}

// How much of the body is worth waiting for, by the answer's own fields: some receivers keep the
// connection open though they were asked not to.
size_t BodyBytes(int status, std::string head) {
  if (status == 204 || status == 304) return 0;
  std::transform(head.begin(), head.end(), head.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  constexpr std::string_view kField = "\r\ncontent-length:";
  size_t length = kBodyBytes;
  if (const size_t at = head.find(kField); at != head.npos) {
    const size_t digits = head.find_first_not_of(" \t", at + kField.size());
    if (digits != head.npos) {
      std::from_chars(head.data() + digits, head.data() + head.size(), length);
    }
  }
  return std::min(length, kBodyBytes);
}

}  // namespace

bool HttpAnswerReader::OnBytes(std::string_view bytes) {
  if (done_) return true;
  taken_ += bytes.size();
  text_.append(bytes);
  while (!done_ && body_ == 0) {
    const size_t end = text_.find("\r\n\r\n", searched_);
    const bool whole = end != text_.npos;
    if ((whole ? dropped_ + end + 4 : taken_) > kMaxHttpHeadBytes) {
      problem_ = "the receiver's answer is too long";
      done_ = true;
      return true;
    }
    if (!whole) {
      searched_ = text_.size() < 3 ? 0 : text_.size() - 3;
      return false;
    }
    const auto answer = ReadStatusLine(std::string_view(text_).substr(0, text_.find("\r\n")));
    if (!answer) {
      done_ = true;
    } else if (answer->status < 200) {
      // Interim answers go before the real one.
      text_.erase(0, end + 4);
      dropped_ += end + 4;
      searched_ = 0;
    } else {
      answer_ = *answer;
      body_ = end + 4;
      body_wanted_ = BodyBytes(answer_.status, text_.substr(0, end + 2));
    }
  }
  if (body_ != 0) done_ = text_.size() - body_ >= body_wanted_;
  return done_;
}

std::optional<HttpAnswer> HttpAnswerReader::Finish(std::string* problem) const {
  if (body_ != 0) {
    HttpAnswer answer = answer_;
    answer.body = Printable(std::string_view(text_).substr(body_), body_wanted_);
    return answer;
  }
  const size_t line = text_.find("\r\n");
  const bool http = line != text_.npos && ReadStatusLine(std::string_view(text_).substr(0, line));
  *problem = !problem_.empty() ? problem_
             : http            ? "the receiver's answer is cut off"
                               : "the receiver's answer is no HTTP";
  return std::nullopt;
}

}  // namespace sluice::delivery
