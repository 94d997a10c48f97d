// Any definitions and any text: what is defined expands to itself, line by line, and values bring
// neither CR nor LF nor NUL.
#include <algorithm>
#include <cstdint>
#include <string>

#include "services/base/check.h"
#include "services/mail/mail_merge.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice::mail;
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\n');
  const std::string_view line = input.substr(0, end);
  const std::string_view text = end == input.npos ? std::string_view() : input.substr(end + 1);
  ParsePartCommand(line);
  MergeDefinitions definitions;
  ParseMergeDefinitions(line, definitions);
  SLUICE_CHECK(definitions.bytes() <= kMaxMergeBytes);
  SLUICE_CHECK(definitions.parts.size() <= kMaxMergeParts);
  size_t longest = 0;
  for (const auto& [name, value] : definitions.variables) {
    SLUICE_CHECK(value.find_first_of(std::string_view("\r\n\0", 3)) == value.npos);
    longest = std::max(longest, value.size());
  }
  std::string out;
  ExpandMerge(
      text,
      [&](std::string_view wanted) -> std::optional<std::string_view> {
        for (const auto& [name, value] : definitions.variables) {
          if (name == wanted) return value;
        }
        return std::nullopt;
      },
      true, out);
  const auto lines = [](std::string_view s) { return std::count(s.begin(), s.end(), '\n'); };
  SLUICE_CHECK(lines(out) <= lines(text));
  SLUICE_CHECK(out.size() <= text.size() + text.size() / 3 * longest);
  return 0;
}
