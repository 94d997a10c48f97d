// <bounce-category-patterns>, compiled: which class a failure is of.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "services/config/regex_matcher.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// Thread-safety: immutable.
class BounceCategories {
 public:
  struct Found {
    std::string category;  // empty: no line matches
    std::string rule;      // the line's expression
  };

  BounceCategories() = default;
  // Lines that do not compile count as not written; the compiler has refused them.
  explicit BounceCategories(const policy::v1::BounceCategorySection& section);

  // By the first line that matches "STATUS TEXT", such as "5.1.1 550 no such user".
  Found Match(std::string_view status, std::string_view text) const;

 private:
  struct Rule {
    RegexMatcher matcher;
    Found found;
  };
  std::vector<Rule> rules_;
};

}  // namespace sluice::config
