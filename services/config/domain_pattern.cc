#include "services/config/domain_pattern.h"

#include <vector>

#include "google/protobuf/descriptor.h"

namespace sluice::config {

bool IsPlainDomain(std::string_view pattern) {
  return pattern.find('*') == std::string_view::npos && !pattern.starts_with('[');
}

bool PatternMatches(std::string_view pattern, std::string_view domain) {
  if (pattern == "*") return true;
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
  return kind == 1 ? std::pair<int, int>{1, static_cast<int>(pattern.size())}
                   : std::pair<int, int>{kind, 0};
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
