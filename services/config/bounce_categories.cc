#include "services/config/bounce_categories.h"

#include <utility>

namespace sluice::config {

BounceCategories::BounceCategories(const policy::v1::BounceCategorySection& section) {
  for (const policy::v1::BounceCategoryRule& rule : section.rules()) {
    auto matcher = RegexMatcher::Compile(rule.regex());
    if (matcher.ok()) rules_.push_back({*std::move(matcher), {rule.category(), rule.regex()}});
  }
}

BounceCategories::Found BounceCategories::Match(std::string_view status,
                                                std::string_view text) const {
  if (rules_.empty()) return {};
  std::string line(status);
  line.append(line.empty() ? "" : " ").append(text);
  for (const Rule& rule : rules_) {
    if (rule.matcher.Matches(line)) return rule.found;
  }
  return {};
}

}  // namespace sluice::config
