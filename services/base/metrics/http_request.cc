#include "services/base/metrics/http_request.h"

#include <algorithm>

namespace sluice {
namespace {
constexpr std::string_view kEnd = "\r\n\r\n";
}  // namespace

HttpRequestReader::State HttpRequestReader::OnBytes(std::string_view bytes) {
  if (state_ != State::kMore) return state_;
  // Only what is new can end it.
  const size_t searched = text_.size() - std::min(text_.size(), kEnd.size() - 1);
  text_.append(bytes.substr(0, kMaxBytes - text_.size()));
  if (text_.find(kEnd, searched) != std::string::npos) {
    state_ = State::kWhole;
  } else if (text_.size() == kMaxBytes) {
    state_ = State::kTooLarge;
  }
  return state_;
}

std::string_view HttpRequestReader::Line() const {
  return std::string_view(text_).substr(0, text_.find("\r\n"));
}

std::string_view HttpRequestReader::method() const {
  const std::string_view line = Line();
  return line.substr(0, line.find(' '));
}

std::string_view HttpRequestReader::path() const {
  std::string_view line = Line();
  line.remove_prefix(std::min(line.size(), method().size() + 1));
  return line.substr(0, line.find_first_of(" ?"));
}

}  // namespace sluice
