#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/config/cluster_rates.h"
#include "services/config/domain_pattern.h"
#include "services/config/explain.h"
#include "services/config/explain_layers.h"
#include "services/config/printer.h"
#include "services/config/settings_defaults.h"
#include "services/config/value.h"

namespace sluice::config {
namespace {

using policy::v1::DomainSection;

std::string Lower(std::string_view text) {
  return absl::AsciiStrToLower(absl::string_view(text.data(), text.size()));
}

// The sections of `domains` that match, from general to particular.
void AddDomainLayers(std::vector<const DomainSection*> domains, std::string_view domain,
                     const std::string& place, const std::string& shown,
                     std::vector<Layer>* layers) {
  std::erase_if(domains, [&](const DomainSection* section) {
    return !PatternMatches(section->pattern(), domain);
  });
  std::stable_sort(domains.begin(), domains.end(),
                   [](const DomainSection* a, const DomainSection* b) {
                     return PatternRank(a->pattern(), a->from_macro()) <
                            PatternRank(b->pattern(), b->from_macro());
                   });
  for (const DomainSection* section : domains) {
    layers->push_back({&section->settings(),
                       absl::StrCat(place, section->from_macro() ? "macro-domain/" : "domain/",
                                    section->pattern()),
                       absl::StrCat(shown, "<domain ", section->pattern(), ">",
                                    section->from_macro() ? " of a macro" : "")});
  }
}

template <class Sections>
std::vector<const DomainSection*> PointersTo(const Sections& sections) {
  std::vector<const DomainSection*> pointers;
  for (const auto& section : sections) pointers.push_back(&section);
  return pointers;
}

// <smtp-pattern> sections, as one setting.
void AddPenalties(const Compiled& compiled, const std::vector<Layer>& layers,
                  std::vector<ExplainedSetting>* settings) {
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    const auto& said = dynamic_cast<const policy::v1::QueueSettings&>(*layer->settings);
    if (!said.has_penalties()) continue;
    std::string value;
    for (const auto& penalty : said.penalties().entries()) {
      absl::StrAppend(&value, value.empty() ? "" : "; ", penalty.name());
      for (const std::string& pattern : penalty.patterns()) absl::StrAppend(&value, " ", pattern);
      const auto time = [](int64_t us, const char* otherwise) {
        return us == 0 ? std::string(otherwise) : DurationText(static_cast<uint64_t>(us));
      };
      absl::StrAppend(&value, " ", time(penalty.initial_us(), "1m"), " to ",
                      time(penalty.max_us(), "1h"));
    }
    const std::string where =
        WhereOf(compiled, layer->place, policy::v1::QueueSettings::kPenaltiesFieldNumber);
    settings->push_back({"smtp-pattern", std::move(value), layer->section, where, false});
    return;
  }
}

// Lines of <limits>: the last layer that says each.
void AddClusterRates(const Compiled& compiled, const std::vector<Layer>& layers,
                     std::vector<ExplainedSetting>* settings) {
  std::vector<std::pair<Span, std::string_view>> seen;
  for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
    const auto& said = dynamic_cast<const policy::v1::QueueSettings&>(*layer->settings);
    for (const ClusterRateLine& line : ClusterRates(said)) {
      const std::pair<Span, std::string_view> key(line.span, line.directive);
      if (std::find(seen.begin(), seen.end(), key) != seen.end()) continue;
      seen.push_back(key);
      const std::string of = line.span == Span::kDomain ? "all mail to the domain"
                             : line.span == Span::kPool ? "the pool's"
                                                        : "the virtual MTA's";
      settings->push_back(
          {absl::StrCat("limits ", std::string(line.directive)),
           absl::StrCat(PrintClusterRate(*line.said), " (", of, ", by the whole cluster)"),
           layer->section,
           WhereOf(compiled, layer->place, ClusterRateField(line.span, line.directive)->number()),
           false});
    }
  }
}

// The domain that a pattern is about: d of *.d and [*.]d; nothing where it is about any, or about
// addresses.
std::string_view BaseOf(std::string_view pattern) {
  if (pattern.starts_with("*.")) return pattern.substr(2);
  if (pattern.starts_with("[*.]")) return pattern.substr(4);
  return pattern == "*" || pattern.starts_with('[') ? std::string_view() : pattern;
}

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

QueueExplainer::QueueExplainer(const Compiled& compiled) : compiled_(compiled) {
  size_t order = 0;
  for (const auto& section : compiled.snapshot.sections()) {
    const auto& content = section.content();
    ++order;
    if (content.has_global()) queue_defaults_ = &content.global().queue_defaults();
    if (content.has_virtual_mta() || content.has_pool()) named_.emplace(section.name(), &content);
    if (!content.has_domain()) continue;
    const DomainSection& domain = content.domain();
    by_base_[std::string(BaseOf(domain.pattern()))].emplace_back(order, &domain);
  }
}

std::vector<const DomainSection*> QueueExplainer::DomainsOf(std::string_view domain) const {
  std::vector<std::pair<size_t, const DomainSection*>> found;
  const auto add = [&](std::string_view base) {
    const auto sections = by_base_.find(View(base));
    if (sections == by_base_.end()) return;
    found.insert(found.end(), sections->second.begin(), sections->second.end());
  };
  add("");
  for (std::string_view rest = domain; !rest.empty();) {
    add(rest);
    const size_t dot = rest.find('.');
    rest.remove_prefix(dot == rest.npos ? rest.size() : dot + 1);
  }
  std::sort(found.begin(), found.end());
  std::vector<const DomainSection*> domains;
  for (const auto& [order, section] : found) domains.push_back(section);
  return domains;
}

std::vector<ExplainedSetting> QueueExplainer::Explain(std::string_view domain_name,
                                                      std::string_view vmta,
                                                      std::string_view pool) const {
  const std::string domain = Lower(domain_name);
  std::vector<Layer> layers = {{&DefaultQueueSettings(), "", "", true}};
  if (queue_defaults_ != nullptr) layers.push_back({queue_defaults_, "global queue", ""});
  AddDomainLayers(DomainsOf(domain), domain, "", "", &layers);
  const std::string pool_name = absl::StrCat("pool/", Lower(pool));
  if (const auto found = named_.find(pool_name); found != named_.end()) {
    const auto& content = *found->second;
    AddDomainLayers(PointersTo(content.pool().domains()), domain, pool_name + " ",
                    absl::StrCat("<virtual-mta-pool ", content.pool().name(), "> "), &layers);
  }
  const std::string vmta_name = absl::StrCat("vmta/", Lower(vmta));
  if (const auto found = named_.find(vmta_name); found != named_.end()) {
    const auto& content = *found->second;
    const std::string shown = absl::StrCat("<virtual-mta ", content.virtual_mta().name(), ">");
    layers.push_back({&content.virtual_mta().queue_defaults(), vmta_name + " queue", shown});
    AddDomainLayers(PointersTo(content.virtual_mta().domains()), domain, vmta_name + " ",
                    shown + " ", &layers);
  }
  auto settings = Resolve(compiled_, Target::kQueueSettings, layers);
  AddPenalties(compiled_, layers, &settings);
  AddClusterRates(compiled_, layers, &settings);
  return settings;
}

std::vector<ExplainedSetting> ExplainQueue(const Compiled& compiled, std::string_view domain,
                                           std::string_view vmta, std::string_view pool) {
  return QueueExplainer(compiled).Explain(domain, vmta, pool);
}

}  // namespace sluice::config
