// Lines of <smtp-pattern-list>, <bounce-category-patterns> and <mx-rollup-list>. Private to the
// compiler.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "services/config/compiler_ingress.h"
#include "services/config/lexer.h"
#include "services/config/registry.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

inline constexpr char kPcreWarning[] =
    "RE2 cannot do this regular expression; PCRE2 does, with bounds on its time";

// `reply /REGEX/ ACTION [ACTION ...]`. `every_reply`: the list's lines that match every reply.
std::optional<LineError> AddReplyRule(const Statement& statement,
                                      policy::v1::SmtpPatternListSection* list,
                                      std::vector<policy::v1::ReplyRule>* every_reply);

// `/REGEX/ CATEGORY`.
std::optional<LineError> AddBounceCategory(const Statement& statement,
                                           policy::v1::BounceCategorySection* section);

// `mx PATTERN QUEUE-NAME`.
std::optional<LineError> AddMxRollup(const Statement& statement,
                                     policy::v1::MxRollupSection* section);

// A line of <smtp-pattern>, for each of `penalties`.
std::optional<LineError> AddPenaltyLine(const Directive& directive, const Statement& statement,
                                        const std::vector<policy::v1::Penalty*>& penalties);

// Of a directive whose whole value is a regex: what is wrong with it, or doubtful.
std::optional<LineError> CheckRegex(const Statement& statement);

}  // namespace sluice::config
