// A regex literal and, behind it, a text: an answer within bounds, or what is wrong.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "services/base/check.h"
#include "services/config/regex.h"
#include "services/config/regex_matcher.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view text(reinterpret_cast<const char*>(data), size);
  bool needs_pcre = false;
  const auto expression = sluice::config::ConsumeRegex(text, &needs_pcre);
  if (!expression.ok()) return 0;
  const auto matcher = sluice::config::RegexMatcher::Compile(*expression);
  SLUICE_CHECK(matcher.ok());
  SLUICE_CHECK(matcher->uses_pcre() == needs_pcre);
  const bool matches = matcher->Matches(text);
  // Every text of one line.
  if (sluice::config::MatchesEverything(*expression)) {
    SLUICE_CHECK(matches || text.find('\n') != text.npos);
  }
  sluice::config::DoubtAbout(*expression);
  return 0;
}
