// Any bytes as a value: nothing, or a value within its bounds that reads the same when written.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "services/base/check.h"
#include "services/config/domain_pattern.h"
#include "services/config/value.h"
#include "services/config/value_lines.h"

namespace {

using namespace sluice::config;  // NOLINT: a fuzz target's own file

template <class Parse>
void Idempotent(Parse parse, std::string_view text) {
  const auto once = parse(text);
  if (once) SLUICE_CHECK(parse(*once) == once);
}

void Numbers(std::string_view text) {
  ParseBool(text);
  ParseCount(text);
  ParseSizeBytes(text);
  if (const auto us = ParseDurationUs(text)) SLUICE_CHECK(*us >= 0);
  if (const auto list = ParseDurationListUs(text)) {
    SLUICE_CHECK(!list->empty());
    for (const int64_t us : *list) SLUICE_CHECK(us >= 0);
  }
  for (const auto& rate : {ParseRate(text), ParseVolumeRate(text)}) {
    if (rate) SLUICE_CHECK(rate->unlimited() || rate->period_us() > 0);
  }
  if (const auto line = ParseScheduleLine(text)) {
    SLUICE_CHECK(line->from_minute < line->to_minute && line->to_minute <= 1440);
  }
  if (const auto growth = ParseGrowth(text)) SLUICE_CHECK(growth->period_us > 0);
  if (const auto throttle = ParseThrottleOn(text)) SLUICE_CHECK(!throttle->codes.empty());
}

void Names(std::string_view text) {
  Idempotent([](std::string_view t) { return ParseNetwork(t); }, text);
  Idempotent([](std::string_view t) { return ParseHostName(t); }, text);
  Idempotent([](std::string_view t) { return ParseHostPort(t); }, text);
  Idempotent([](std::string_view t) { return ParseIpPort(t, 25); }, text);
  Idempotent([](std::string_view t) { return ParseEmail(t); }, text);
  Idempotent([](std::string_view t) { return ParseHeaderName(t); }, text);
  Idempotent([](std::string_view t) { return ParseDomainPattern(t); }, text);
  IsUrl(text);
  ParseIpDomain(text);
  ParseDomainKey(text);
  for (const auto& item : SplitList(text)) SLUICE_CHECK(!item.empty());
}

// The first line is a pattern, the rest a domain.
void Patterns(std::string_view text) {
  const size_t end = text.find('\n');
  const auto pattern = ParseDomainPattern(text.substr(0, end));
  if (!pattern || end == text.npos) return;
  const std::string_view domain = text.substr(end + 1);
  const bool matches = PatternMatches(*pattern, domain);
  if (IsPlainDomain(*pattern)) SLUICE_CHECK(PatternMatches(*pattern, *pattern));
  if (matches && *pattern != "*")
    SLUICE_CHECK(PatternRank(*pattern, false) > PatternRank("*", false));
  WildcardMatches(text.substr(0, end), domain);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Numbers(text);
  Names(text);
  Patterns(text);
  return 0;
}
