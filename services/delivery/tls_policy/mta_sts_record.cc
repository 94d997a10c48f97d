#include "services/delivery/tls_policy/mta_sts_record.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace sluice::delivery {
namespace {

bool IsAlnum(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)); }

std::string_view Trim(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// sts-ext-name of RFC 8461 section 3.1, also that of policy fields.
bool IsName(std::string_view text) {
  return !text.empty() && text.size() <= 32 && IsAlnum(text[0]) &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return IsAlnum(c) || c == '_' || c == '-' || c == '.'; });
}

bool IsExtensionValue(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return c > 0x20 && c < 0x7f && c != ';' && c != '=';
  });
}

// Labels of letters, digits and hyphens; underscores occur in real host names.
bool IsHostName(std::string_view text) {
  if (text.empty() || text.size() > 253) return false;
  size_t label = 0;
  for (char c : text) {
    if (c == '.') {
      if (label == 0) return false;
      label = 0;
      continue;
    }
    if (!IsAlnum(c) && c != '-' && c != '_') return false;
    if (++label > 63) return false;
  }
  return label > 0;
}

std::string Lower(std::string_view text) {
  return absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
}

absl::Status Bad(std::string_view what) {
  return absl::InvalidArgumentError(
      absl::StrCat("MTA-STS policy: ", absl::string_view(what.data(), what.size())));
}

}  // namespace

std::string_view MtaStsModeName(MtaStsMode mode) {
  switch (mode) {
    case MtaStsMode::kNone:
      return "none";
    case MtaStsMode::kTesting:
      return "testing";
    case MtaStsMode::kEnforce:
      return "enforce";
  }
  return "?";
}

std::optional<std::string> JoinTxt(std::string_view rdata) {
  std::string text;
  while (!rdata.empty()) {
    const size_t length = static_cast<unsigned char>(rdata[0]);
    if (rdata.size() < 1 + length) return std::nullopt;
    text.append(rdata.substr(1, length));
    rdata.remove_prefix(1 + length);
  }
  return text;
}

std::optional<std::string> FindMtaStsId(std::span<const std::string> records) {
  constexpr std::string_view kVersion = "v=STSv1";
  const std::string* only = nullptr;
  for (const std::string& record : records) {
    std::string_view rest(record);
    if (!rest.starts_with(kVersion)) continue;
    rest = Trim(rest.substr(kVersion.size()));
    if (rest.empty() || rest[0] != ';') continue;
    if (only != nullptr) return std::nullopt;
    only = &record;
  }
  if (only == nullptr) return std::nullopt;
  std::string_view rest = Trim(std::string_view(*only).substr(kVersion.size()));
  std::optional<std::string> id;
  while (!rest.empty()) {
    if (rest[0] != ';') return std::nullopt;
    rest = Trim(rest.substr(1));
    if (rest.empty()) break;
    const size_t end = std::min(rest.find(';'), rest.size());
    const std::string_view field = Trim(rest.substr(0, end));
    rest.remove_prefix(end);
    const size_t equals = field.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string_view name = field.substr(0, equals);
    const std::string_view value = field.substr(equals + 1);
    if (!IsName(name)) return std::nullopt;
    if (name == "id") {
      if (value.empty() || value.size() > 32 || !std::all_of(value.begin(), value.end(), IsAlnum)) {
        return std::nullopt;
      }
      if (!id) id = std::string(value);
    } else if (!IsExtensionValue(value)) {
      return std::nullopt;
    }
  }
  return id;
}

absl::StatusOr<MtaStsPolicy> ParseMtaStsPolicy(std::string_view text) {
  if (text.size() > kMaxMtaStsPolicyBytes) return Bad("longer than 64 KiB");
  MtaStsPolicy policy;
  bool versioned = false;
  bool moded = false;
  bool aged = false;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), end + 1));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    line = Trim(line);
    if (line.empty()) continue;
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return Bad("a line without a colon");
    const std::string_view name = Trim(line.substr(0, colon));
    const std::string_view value = Trim(line.substr(colon + 1));
    if (!IsName(name)) return Bad("a field name that is none");
    if (name == "version") {
      if (versioned) continue;
      if (value != "STSv1") return Bad("its version is not STSv1");
      versioned = true;
    } else if (name == "mode") {
      if (moded) continue;
      moded = true;
      if (value == "enforce") {
        policy.mode = MtaStsMode::kEnforce;
      } else if (value == "testing") {
        policy.mode = MtaStsMode::kTesting;
      } else if (value != "none") {
        return Bad("its mode is none of enforce, testing, none");
      }
    } else if (name == "max_age") {
      if (aged) continue;
      aged = true;
      uint64_t seconds = 0;
      const auto [stop, error] =
          std::from_chars(value.data(), value.data() + value.size(), seconds);
      if (error != std::errc() || stop != value.data() + value.size() || value.size() > 10) {
        return Bad("its max_age is no number of seconds");
      }
      policy.max_age_s = static_cast<uint32_t>(std::min<uint64_t>(seconds, kMaxMtaStsAgeSeconds));
    } else if (name == "mx") {
      if (!IsHostName(value.starts_with("*.") ? value.substr(2) : value)) {
        return Bad("an mx that is neither a host name nor a wildcard with one");
      }
      if (policy.mx.size() >= kMaxMtaStsPatterns) return Bad("more than 256 mx");
      policy.mx.push_back(Lower(value));
    }
  }
  if (!versioned) return Bad("no version");
  if (!moded) return Bad("no mode");
  if (!aged) return Bad("no max_age");
  if (policy.mode != MtaStsMode::kNone && policy.mx.empty()) return Bad("no mx");
  return policy;
}

bool MtaStsAllows(const MtaStsPolicy& policy, std::string_view host) {
  if (!host.empty() && host.back() == '.') host.remove_suffix(1);
  const std::string name = Lower(host);
  const size_t dot = name.find('.');
  return std::any_of(policy.mx.begin(), policy.mx.end(), [&](const std::string& pattern) {
    if (!pattern.starts_with("*.")) return pattern == name;
    return dot != std::string::npos && dot > 0 &&
           std::string_view(name).substr(dot) == std::string_view(pattern).substr(1);
  });
}

}  // namespace sluice::delivery
