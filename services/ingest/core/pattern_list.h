// A <pattern-list>, compiled: the first of its lines that matches a message chooses the virtual
// MTA.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "services/config/policy_view.h"
#include "services/config/regex_matcher.h"
#include "services/ingest/core/route.h"

namespace sluice::ingest {

// Thread-safety: immutable. Matching takes time linear in the text (RE2), or
// is bounded (PCRE2).
class PatternList {
 public:
  // No line; larger than the number of any line.
  static constexpr size_t kNone = SIZE_MAX;

  // Lines that this version cannot read, or whose virtual MTA is not there, are left out.
  PatternList(const policy::v1::PatternListSection& section, const config::PolicyView& policy);

  // The number of the first line of that kind that matches, if it is below `before`; else `before`.
  size_t MatchSender(std::string_view address, size_t before = kNone) const;
  size_t MatchRecipient(std::string_view address, size_t before = kNone) const;
  size_t MatchHeader(std::string_view name, std::string_view unfolded, size_t before) const;

  bool WantsHeader(std::string_view name) const;
  bool has_headers() const { return !headers_.empty(); }
  bool has_recipients() const { return !recipients_.empty(); }
  const Route& route(size_t line) const { return routes_[line]; }

 private:
  struct Rule {
    size_t line;
    std::string header;
    config::RegexMatcher regex;
  };
  static size_t Match(const std::vector<Rule>& rules, std::string_view text, size_t before);

  std::vector<Route> routes_;  // by line
  std::vector<Rule> senders_;
  std::vector<Rule> recipients_;
  std::vector<Rule> headers_;
};

}  // namespace sluice::ingest
