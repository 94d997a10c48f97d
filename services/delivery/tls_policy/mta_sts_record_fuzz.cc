// Hostile MTA-STS records and policies: any bytes give a policy within bounds, or none.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "services/base/check.h"
#include "services/delivery/tls_policy/mta_sts_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice::delivery;  // NOLINT(build/namespaces): the subject of this file
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto txt = JoinTxt(input);
  SLUICE_CHECK(!txt || txt->size() <= size);
  const std::vector<std::string> records = {std::string(input)};
  if (const auto id = FindMtaStsId(records)) SLUICE_CHECK(!id->empty() && id->size() <= 32);
  const auto policy = ParseMtaStsPolicy(input);
  if (policy.ok()) {
    SLUICE_CHECK(policy->max_age_s <= kMaxMtaStsAgeSeconds);
    SLUICE_CHECK(policy->mx.size() <= kMaxMtaStsPatterns);
    SLUICE_CHECK(policy->mode == MtaStsMode::kNone || !policy->mx.empty());
    // No pattern allows what has no dot, or the pattern itself taken as a name.
    for (const std::string& pattern : policy->mx) {
      if (pattern[0] != '*') SLUICE_CHECK(MtaStsAllows(*policy, pattern));
    }
    SLUICE_CHECK(!MtaStsAllows(*policy, ""));
  }
  return 0;
}
