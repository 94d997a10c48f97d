// Hostile replies: bounded memory, the same replies however they are cut, and a text without what
// a terminal or a log would obey.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "services/base/check.h"
#include "services/mail/reply_parser.h"

namespace {
void CheckText(std::string_view text, bool lines) {
  for (const char c : text) {
    const bool blank = c == '\t' || (lines && c == '\n');
    SLUICE_CHECK(blank || (static_cast<unsigned char>(c) >= ' ' && c != 127));
  }
}

std::string Run(std::string_view bytes, size_t step) {
  sluice::mail::ReplyParser parser;
  std::string out;
  for (size_t begin = 0; begin < bytes.size(); begin += step) {
    std::string_view piece = bytes.substr(begin, step);
    while (!piece.empty() && !parser.broken()) {
      piece.remove_prefix(parser.Consume(piece));
      if (!parser.complete()) continue;
      const auto reply = parser.Take();
      SLUICE_CHECK(reply.code >= 200 && reply.code < 600);
      SLUICE_CHECK(reply.text.size() <= sluice::mail::kMaxReplyTextBytes);
      CheckText(reply.text, true);
      out += std::to_string(reply.code) + reply.enhanced + reply.text + "\n";
    }
  }
  SLUICE_CHECK(parser.problem().size() < 200);
  CheckText(parser.problem(), false);
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  SLUICE_CHECK(Run(bytes, 1) == Run(bytes, size % 2 == 0 ? 97 : size % 7 + 2));
  return 0;
}
