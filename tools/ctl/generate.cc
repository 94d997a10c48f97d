#include "tools/ctl/generate.h"

#include <algorithm>
#include <ctime>

#include "tools/ctl/text.h"

namespace sluice::ctl {
namespace {

constexpr std::string_view kLine =
    "The quick brown fox jumps over the lazy dog while the mail goes through.\r\n";

std::string DateText(int64_t now_us) {
  const std::time_t seconds = now_us / 1'000'000;
  std::tm parts{};
  char text[64];
  gmtime_r(&seconds, &parts);
  std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S +0000", &parts);
  return text;
}

}  // namespace

std::string FillIn(std::string_view pattern, uint64_t number) {
  std::string text;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%' || i + 1 == pattern.size()) {
      text.push_back(pattern[i]);
    } else if (pattern[i + 1] == 'n') {
      text += std::to_string(number);
      ++i;
    } else {
      text.push_back('%');
      if (pattern[i + 1] == '%') ++i;
    }
  }
  return text;
}

std::string GenerateMessage(std::string_view from, std::string_view to, uint64_t number,
                            int64_t now_us, size_t size_bytes) {
  std::string text;
  text.reserve(size_bytes + 512);
  const std::string n = std::to_string(number);
  text.append("From: <").append(from).append(">\r\nTo: <").append(to).append(">\r\n");
  text.append("Subject: Test message ").append(n).append("\r\nDate: ").append(DateText(now_us));
  text.append("\r\nMessage-ID: <").append(std::to_string(now_us)).append(".").append(n);
  text.append("@sluicectl.invalid>\r\nMIME-Version: 1.0\r\n");
  text.append("Content-Type: text/plain; charset=us-ascii\r\n\r\n");
  while (text.size() < size_bytes) {
    const size_t missing = size_bytes - text.size();
    if (missing >= kLine.size() + 2 || missing == kLine.size()) {
      text.append(kLine);
    } else {
      // The last line ends the message at the byte asked for; a lone byte cannot be a line.
      const size_t letters = missing < 2 ? 0 : missing - 2;
      text.append(kLine.substr(0, std::min(letters, kLine.size() - 2)));
      if (letters > kLine.size() - 2) text.append(letters - (kLine.size() - 2), '.');
      text.append("\r\n");
    }
  }
  return text;
}

}  // namespace sluice::ctl
