// The parts of the registry, one file each. Private to it.
#pragma once

#include <string_view>
#include <vector>

#include "services/config/registry.h"

namespace sluice::config {

std::vector<Directive> GlobalDirectives();
std::vector<Directive> SourceDirectives();
std::vector<Directive> VirtualMtaDirectives();
std::vector<Directive> QueueDirectives();
std::vector<Directive> TlsDirectives();
std::vector<Directive> ListenerDirectives();
std::vector<Directive> AuthDirectives();
std::vector<Directive> LocalDirectives();
std::vector<Directive> EgressDirectives();
std::vector<Directive> BackoffDirectives();
std::vector<Directive> ReportDirectives();

// What is not effective yet, and sections of their own. A name that one of the tables above
// declares for the same scope is left to that table.
std::vector<Directive> PlannedGlobalDirectives();
std::vector<Directive> PlannedClientDirectives();
std::vector<Directive> PlannedQueueDirectives();
std::vector<Directive> SectionDirectives();
std::vector<Directive> AccountingDirectives();

std::vector<SectionKind> Sections();

// By letter, and in words.
inline constexpr std::string_view kAccountingRecords =
    "d,b,t,tq,r,rb,rs,f,p,h,w,delivered,delivery,bounces,bounce,transient,feedback,received,"
    "remote-bounce,queued";

// {"name", scopes, grammar, help} with value checking and without effect.
inline Directive Planned(std::string_view name, uint32_t scopes, Grammar grammar,
                         std::string_view help, Status status = Status::kNotYet) {
  Directive directive;
  directive.name = name;
  directive.scopes = scopes;
  directive.target = Target::kNone;
  directive.grammar = grammar;
  directive.help = help;
  if (grammar == Grammar::kDuration || grammar == Grammar::kDurationList ||
      grammar == Grammar::kSize) {
    directive.max = UINT64_MAX >> 1;
  }
  directive.status = status;
  return directive;
}

// Names the capability that what is planned from `first` on comes with, where nothing is named.
inline void ComesWith(std::string_view capability, std::vector<Directive>* all, size_t first) {
  for (size_t i = first; i < all->size(); ++i) {
    Directive& directive = (*all)[i];
    const bool planned =
        directive.status == Status::kNotYet || directive.status == Status::kRefused;
    if (planned && directive.reason.empty()) directive.reason = capability;
  }
}

}  // namespace sluice::config
