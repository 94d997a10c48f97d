#include "services/ingest/core/pattern_list.h"

#include <algorithm>
#include <utility>

#include "services/mail/header_fields.h"

namespace sluice::ingest {
PatternList::PatternList(const policy::v1::PatternListSection& section,
                         const config::PolicyView& policy) {
  using Rule1 = policy::v1::PatternRule;
  for (const Rule1& said : section.rules()) {
    const std::optional<Route> route = LookupRoute(policy, said.virtual_mta());
    std::vector<Rule>* const rules = said.subject() == Rule1::SUBJECT_MAIL_FROM ? &senders_
                                     : said.subject() == Rule1::SUBJECT_RCPT_TO ? &recipients_
                                     : said.subject() == Rule1::SUBJECT_HEADER  ? &headers_
                                                                                : nullptr;
    auto regex = config::RegexMatcher::Compile(said.regex());
    if (!route || rules == nullptr || !regex.ok()) continue;
    rules->push_back({routes_.size(), said.header(), *std::move(regex)});
    routes_.push_back(*route);
  }
}

size_t PatternList::Match(const std::vector<Rule>& rules, std::string_view text, size_t before) {
  for (const Rule& rule : rules) {
    if (rule.line >= before) break;
    if (rule.regex.Matches(text)) return rule.line;
  }
  return before;
}

size_t PatternList::MatchSender(std::string_view address, size_t before) const {
  return Match(senders_, address, before);
}

size_t PatternList::MatchRecipient(std::string_view address, size_t before) const {
  return Match(recipients_, address, before);
}

size_t PatternList::MatchHeader(std::string_view name, std::string_view unfolded,
                                size_t before) const {
  for (const Rule& rule : headers_) {
    if (rule.line >= before) break;
    if (mail::HeaderNameEquals(rule.header, name) && rule.regex.Matches(unfolded)) {
      return rule.line;
    }
  }
  return before;
}

bool PatternList::WantsHeader(std::string_view name) const {
  return std::any_of(headers_.begin(), headers_.end(),
                     [&](const Rule& rule) { return mail::HeaderNameEquals(rule.header, name); });
}

}  // namespace sluice::ingest
