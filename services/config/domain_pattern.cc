#include "services/config/domain_pattern.h"

#include <optional>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "services/base/net/ip_address.h"

namespace sluice::config {

bool IsPlainDomain(std::string_view pattern) {
  // An IPv6 literal is written in more than one way, and is found by matching.
  if (pattern.starts_with('[')) {
    return pattern.ends_with(']') && pattern.find_first_of("/:") == pattern.npos;
  }
  return pattern.find('*') == std::string_view::npos;
}

namespace {

// What stands between the brackets of an address literal: "192.0.2.1", "ipv6:2001:db8::1".
std::optional<IpAddress> LiteralOf(std::string_view domain) {
  if (!domain.starts_with('[') || !domain.ends_with(']')) return std::nullopt;
  std::string_view inside = domain.substr(1, domain.size() - 2);
  if (inside.starts_with("ipv6:")) inside.remove_prefix(5);
  return IpAddress::Parse(inside);
}

// The name in the pattern, without what stands before it.
std::string_view NameIn(std::string_view pattern) {
  if (pattern.starts_with("[*.]")) return pattern.substr(4);
  if (pattern.starts_with("*.")) return pattern.substr(2);
  return pattern;
}

}  // namespace

bool PatternMatches(std::string_view pattern, std::string_view domain) {
  if (pattern == "*") return true;
  if (pattern.starts_with('[') && pattern.ends_with(']')) {
    const auto address = LiteralOf(domain);
    const auto network = Cidr::Parse(pattern.substr(1, pattern.size() - 2));
    return address && network && network->Contains(*address);
  }
  bool itself = true;
  bool below = false;
  std::string_view name = pattern;
  if (pattern.starts_with("[*.]")) {
    name = pattern.substr(4);
    below = true;
  } else if (pattern.starts_with("*.")) {
    name = pattern.substr(2);
    below = true;
    itself = false;
  }
  if (itself && domain == name) return true;
  return below && domain.size() > name.size() + 1 && domain.ends_with(name) &&
         domain[domain.size() - name.size() - 1] == '.';
}

std::pair<int, int> PatternRank(std::string_view pattern, bool from_macro) {
  if (pattern == "*") return {0, 0};
  const int kind = IsPlainDomain(pattern) ? (from_macro ? 2 : 3) : 1;
  // A plain name is more particular than any pattern that matches it.
  if (kind != 1) return {kind, 0};
  const int below_only = pattern.starts_with("*.") ? 1 : 0;
  if (!pattern.ends_with(']')) {
    return {1, 2 * static_cast<int>(NameIn(pattern).size()) + below_only};
  }
  const auto network = Cidr::Parse(pattern.substr(1, pattern.size() - 2));
  return {1, network ? network->prefix_bits() : 0};
}

std::string ExampleOf(const std::string& pattern) {
  constexpr std::string_view kUnlikely = "sluice-example";
  if (pattern == "*") return std::string(kUnlikely) + ".invalid";
  if (pattern.starts_with("[*.]")) return pattern.substr(4);
  if (pattern.starts_with("*.")) return std::string(kUnlikely) + pattern.substr(1);
  if (pattern.starts_with('[') && pattern.find('/') != pattern.npos) {
    return pattern.substr(0, pattern.find('/')) + "]";
  }
  return pattern;
}

bool WildcardMatches(std::string_view pattern, std::string_view text) {
  size_t p = 0;
  size_t t = 0;
  size_t star = std::string_view::npos;
  size_t star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

void OverlaySettings(const google::protobuf::Message& particular,
                     google::protobuf::Message* settings) {
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  particular.GetReflection()->ListFields(particular, &fields);
  for (const auto* field : fields) settings->GetReflection()->ClearField(settings, field);
  settings->MergeFrom(particular);
}

}  // namespace sluice::config
