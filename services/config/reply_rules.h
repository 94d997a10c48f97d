// What a remote site's reply does to a queue: the lines of its <smtp-pattern-list>, its
// backoff-trigger-patterns and its <smtp-pattern> sections, compiled.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "services/config/regex_matcher.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

// What the lines that match say together: all of them are looked at, and of two that contradict
// each other the first one counts.
struct ReplyActions {
  enum class Mode { kAsItIs, kBackoff, kNormal };
  Mode mode = Mode::kAsItIs;
  int64_t backoff_to_normal_after_us = 0;  // 0: as the queue's settings say
  bool bounce_queue = false;               // every recipient of the queue fails
  bool defer_queue = false;                // the queue waits as if no host had been reached
  bool bounce_recipient = false;           // a temporary refusal is a permanent one
  bool skip_mx = false;                    // the mail goes on by another host
  bool disable_source = false;
  int64_t reenable_after_us = 0;  // 0: as the queue's settings say
  std::string bounce_category;    // of what such a reply bounces; empty: not said
  // Which line says the mode, and which one disables the source: "(?i)too many of blocking".
  std::string mode_rule;
  std::string source_rule;
  // Of defer_queue: for how long, first and at the most; 0: as the queue's retry-after says.
  int64_t penalty_us = 0;
  int64_t penalty_most_us = 0;

  // Takes what `other`, which comes later, says beside it.
  void Add(const ReplyActions& other);
  bool any() const {
    return mode != Mode::kAsItIs || bounce_queue || defer_queue || bounce_recipient || skip_mx ||
           disable_source || !bounce_category.empty();
  }
};

// Thread-safety: immutable.
class ReplyRules {
 public:
  // `list` may be nullptr. Patterns are as the configuration writes them, /.../flags or bare. What
  // does not compile is left out: the compiler of the configuration has refused it.
  ReplyRules(const policy::v1::SmtpPatternListSection* list,
             const policy::v1::StringList& backoff_patterns,
             const policy::v1::Penalties& penalties = policy::v1::Penalties::default_instance());

  // `reply` as the remote site said it in one line: "421 4.7.0 Too many connections".
  ReplyActions Match(std::string_view reply) const;
  bool empty() const { return rules_.empty(); }
  // Whether any line names mode=normal: then what a site says of mail that it takes matters, too.
  bool may_end_backoff() const { return may_end_backoff_; }

 private:
  struct Rule {
    RegexMatcher regex;
    ReplyActions actions;  // with its name in both
  };
  std::vector<Rule> rules_;
  bool may_end_backoff_ = false;
};

// The subject of reply patterns.
std::string ReplyLine(uint32_t code, std::string_view enhanced, std::string_view text);

}  // namespace sluice::config
