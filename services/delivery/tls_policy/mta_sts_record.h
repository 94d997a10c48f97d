// Reads what a domain publishes of MTA-STS (RFC 8461): the TXT record that says that there is a
// policy, and the policy itself. Both come from the network and may be anything.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::delivery {

enum class MtaStsMode : uint8_t { kNone, kTesting, kEnforce };

// "none", "testing", "enforce".
std::string_view MtaStsModeName(MtaStsMode mode);

// RFC 8461 section 3.2: max_age is at most this.
inline constexpr uint32_t kMaxMtaStsAgeSeconds = 31'557'600;
inline constexpr size_t kMaxMtaStsPolicyBytes = 64 * 1024;
inline constexpr size_t kMaxMtaStsPatterns = 256;

struct MtaStsPolicy {
  MtaStsMode mode = MtaStsMode::kNone;
  uint32_t max_age_s = 0;
  // "mail.example.com" or "*.example.net", lower case; empty only in mode none.
  std::vector<std::string> mx;

  friend bool operator==(const MtaStsPolicy&, const MtaStsPolicy&) = default;
};

// The character-strings of one TXT record's RDATA, joined (RFC 1035 section 3.3.14). Nothing where
// the lengths do not fit.
std::optional<std::string> JoinTxt(std::string_view rdata);

// The id of the one MTA-STS record among the TXT records (joined) of _mta-sts.DOMAIN; nothing where
// there is none, more than one, or a malformed one: the domain then has no policy (section 3.1).
std::optional<std::string> FindMtaStsId(std::span<const std::string> records);

// INVALID_ARGUMENT says what is wrong. Unknown fields are passed over, of a repeated field other
// than mx the first one counts (section 3.2). At most kMaxMtaStsPolicyBytes and kMaxMtaStsPatterns.
absl::StatusOr<MtaStsPolicy> ParseMtaStsPolicy(std::string_view text);

// Whether the policy allows the host (section 4.1): a wildcard stands for exactly one label.
bool MtaStsAllows(const MtaStsPolicy& policy, std::string_view host);

}  // namespace sluice::delivery
