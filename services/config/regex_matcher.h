// A regular expression of the configuration, compiled.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace sluice::config {

// RE2, in time linear in the text; where the expression uses what RE2 lacks (back references,
// look-around), PCRE2 with bounds on its steps and memory. Thread-safety: immutable. Copies share
// the compiled expression. Text that is not UTF-8 is matched byte by byte.
class RegexMatcher {
 public:
  // `expression` as ConsumeRegex gives it. INVALID_ARGUMENT where neither can use it.
  static absl::StatusOr<RegexMatcher> Compile(std::string_view expression);

  // Anywhere in the text. False also where a bound of PCRE2 was hit.
  bool Matches(std::string_view text) const;
  bool uses_pcre() const;

 private:
  struct Impl;
  explicit RegexMatcher(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

  std::shared_ptr<const Impl> impl_;
};

}  // namespace sluice::config
