#include "services/config/config_diff.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "services/config/domain_pattern.h"
#include "services/config/explain.h"
#include "services/config/policy_view.h"
#include "services/config/printer.h"
#include "services/config/registry.h"
#include "services/config/snapshot_delta.h"

namespace sluice::config {
namespace {

using policy::v1::Section;

constexpr size_t kMaxChanges = 10'000;

std::map<std::string, const ExplainedSetting*> ByName(const std::vector<ExplainedSetting>& all) {
  std::map<std::string, const ExplainedSetting*> by_name;
  for (const ExplainedSetting& setting : all) by_name.emplace(setting.directive, &setting);
  return by_name;
}

std::string Where(const ExplainedSetting* setting) {
  if (setting == nullptr) return "";
  return setting->is_default ? "default" : setting->where;
}

std::vector<ChangedSetting> Compare(const std::vector<ExplainedSetting>& before,
                                    const std::vector<ExplainedSetting>& after) {
  const auto old_settings = ByName(before);
  const auto new_settings = ByName(after);
  std::set<std::string> names;
  for (const auto& [name, setting] : old_settings) names.insert(name);
  for (const auto& [name, setting] : new_settings) names.insert(name);
  std::vector<ChangedSetting> changes;
  for (const std::string& name : names) {
    const auto found_before = old_settings.find(name);
    const auto found_after = new_settings.find(name);
    const auto* const b = found_before == old_settings.end() ? nullptr : found_before->second;
    const auto* const a = found_after == new_settings.end() ? nullptr : found_after->second;
    if (a != nullptr && b != nullptr && a->value == b->value) {
      if (a->secret_mark == b->secret_mark) continue;
      changes.push_back({name, b->value, "(changed secret)", Where(b), Where(a)});
      continue;
    }
    changes.push_back(
        {name, b == nullptr ? "" : b->value, a == nullptr ? "" : a->value, Where(b), Where(a)});
  }
  return changes;
}

// A queue's virtual MTA and the pool that mail came by.
using Route = std::pair<std::string, std::string>;

std::set<Route> RoutesOf(const policy::v1::PolicySnapshot& snapshot) {
  std::set<Route> routes;
  for (const Section& section : snapshot.sections()) {
    if (section.content().has_virtual_mta()) {
      routes.emplace(section.content().virtual_mta().name(), "");
    }
    for (const std::string& vmta : section.content().pool().virtual_mtas()) {
      routes.emplace(vmta, section.content().pool().name());
    }
  }
  return routes;
}

class Differ {
 public:
  Differ(const Compiled& before, const Compiled& after)
      : before_(before), after_(after), explain_before_(before), explain_after_(after) {}

  absl::StatusOr<std::vector<ConfigChange>> Diff() {
    for (const auto& [compiled, view] :
         {std::pair(&before_, &before_view_), std::pair(&after_, &after_view_)}) {
      auto built = PolicyView::Build(compiled->snapshot);
      if (!built.ok()) return built.status();
      *view = *std::move(built);
    }
    const auto delta = MakeDelta(before_.snapshot, after_.snapshot);
    for (const Section& section : delta.changed()) changed_.insert(section.name());
    for (const std::string& name : delta.removed()) changed_.insert(name);
    if (changed_.empty()) return std::move(changes_);
    auto global = Compare(ExplainGlobal(before_), ExplainGlobal(after_));
    for (ChangedSetting& setting : global) {
      const Directive* const directive = FindDirective(kGlobal, setting.directive);
      setting.needs_restart = directive != nullptr && directive->needs_restart;
    }
    Add("outside of sections", std::move(global));
    Add("clients that no <source> names",
        Compare(ExplainClient(before_, ""), ExplainClient(after_, "")));
    Named();
    Queues();
    if (dropped_ > 0) changes_.push_back({absl::StrCat("and ", dropped_, " more"), {}});
    return std::move(changes_);
  }

 private:
  void Add(const std::string& subject, std::vector<ChangedSetting> settings) {
    if (settings.empty()) return;
    if (changes_.size() >= kMaxChanges) {
      ++dropped_;
      return;
    }
    changes_.push_back({subject, std::move(settings)});
  }

  // Virtual MTAs, pools, sources, clients.
  void Named() {
    for (const std::string& name : changed_) {
      const size_t slash = name.find('/');
      if (slash == name.npos) {
        if (name != "global") Add(name, {WholeSection(name)});
        continue;
      }
      const std::string kind = name.substr(0, slash);
      const std::string rest = name.substr(slash + 1);
      if (kind == "vmta") {
        auto changes = Compare(VirtualMta(before_, rest), VirtualMta(after_, rest));
        // One that comes or goes takes its queues with it.
        if (Has(before_, name) != Has(after_, name)) {
          changes.insert(changes.begin(), WholeSection(name));
        }
        Add(absl::StrCat("virtual-mta ", rest), std::move(changes));
      } else if (kind == "source") {
        Add(absl::StrCat("source ", rest),
            Compare(ExplainSource(before_, rest), ExplainSource(after_, rest)));
      } else if (kind == "client") {
        const std::string ip = rest.substr(0, rest.find('/'));
        Add(absl::StrCat("client ", rest),
            Compare(ExplainClient(before_, ip), ExplainClient(after_, ip)));
      } else if (kind != "domain" && kind != "macro-domain") {
        auto changes = Compare(ExplainSection(before_, name), ExplainSection(after_, name));
        // Of a list, or of a pool whose domains say something else.
        if (changes.empty() && kind == "pool") continue;
        if (changes.empty()) changes.push_back(WholeSection(name));
        Add(absl::StrCat(kind == "pool" ? "virtual-mta-pool" : kind, " ", rest),
            std::move(changes));
      }
    }
  }

  static bool Has(const Compiled& compiled, const std::string& name) {
    const auto& sections = compiled.snapshot.sections();
    return std::any_of(sections.begin(), sections.end(),
                       [&](const auto& section) { return section.name() == name; });
  }

  // Sections that may hold secrets are not compared line by line.
  ChangedSetting WholeSection(const std::string& name) const {
    const bool before = Has(before_, name);
    const bool after = Has(after_, name);
    return {"section", before ? "there" : "", !after ? "" : before ? "changed" : "there", "", ""};
  }

  // Addresses as one value, so that a new one shows as a change of it.
  static std::vector<ExplainedSetting> VirtualMta(const Compiled& compiled,
                                                  const std::string& name) {
    std::vector<ExplainedSetting> settings;
    std::string hosts;
    size_t mark = 0;
    for (ExplainedSetting& setting : ExplainVirtualMta(compiled, name)) {
      if (setting.directive == "smtp-source-host") {
        absl::StrAppend(&hosts, hosts.empty() ? "" : "; ", setting.value);
        mark = mark * 31 + setting.secret_mark;
      } else {
        settings.push_back(std::move(setting));
      }
    }
    if (!hosts.empty()) settings.push_back({"smtp-source-host", hosts, "", "", false, mark});
    return settings;
  }

  bool QueueDefaultsChanged() const {
    const auto defaults = [](const Compiled& compiled) {
      for (const Section& section : compiled.snapshot.sections()) {
        if (section.content().has_global()) {
          return section.content().global().queue_defaults().SerializeAsString();
        }
      }
      return std::string();
    };
    return defaults(before_) != defaults(after_);
  }

  void Queues() {
    std::set<std::string> patterns = {"*"};
    std::vector<std::string> changed_patterns;
    for (const Compiled* compiled : {&before_, &after_}) {
      for (const Section& section : compiled->snapshot.sections()) {
        if (section.content().has_domain()) {
          patterns.insert(section.content().domain().pattern());
          if (changed_.contains(section.name())) {
            changed_patterns.push_back(section.content().domain().pattern());
          }
        }
        for (const auto& d : section.content().virtual_mta().domains())
          patterns.insert(d.pattern());
        for (const auto& d : section.content().pool().domains()) patterns.insert(d.pattern());
      }
    }
    std::set<Route> routes = RoutesOf(before_.snapshot);
    for (const Route& route : RoutesOf(after_.snapshot)) routes.insert(route);
    const bool all = QueueDefaultsChanged();
    for (const std::string& pattern : patterns) {
      const std::string domain = ExampleOf(pattern);
      bool domain_changed = all;
      for (const std::string& changed : changed_patterns) {
        if (domain_changed) break;
        domain_changed = PatternMatches(changed, domain);
      }
      Domain(pattern, domain, domain_changed, routes);
    }
  }

  void Domain(const std::string& pattern, const std::string& domain, bool domain_changed,
              const std::set<Route>& routes) {
    // Routes with the same changes are one line.
    std::vector<std::pair<std::vector<ChangedSetting>, std::vector<Route>>> groups;
    std::map<std::pair<std::string, std::string>, size_t> known;  // settings to group
    for (const Route& route : routes) {
      const auto& [vmta, pool] = route;
      const bool route_changed =
          changed_.contains("vmta/" + absl::AsciiStrToLower(vmta)) ||
          (!pool.empty() && changed_.contains("pool/" + absl::AsciiStrToLower(pool)));
      if (!domain_changed && !route_changed) continue;
      if (before_view_->FindVirtualMta(vmta) == nullptr ||
          after_view_->FindVirtualMta(vmta) == nullptr) {
        continue;  // said as a whole
      }
      std::pair settings(before_view_->ForQueue(domain, vmta, pool)->SerializeAsString(),
                         after_view_->ForQueue(domain, vmta, pool)->SerializeAsString());
      if (settings.first == settings.second) continue;
      if (changes_.size() >= kMaxChanges) {
        ++dropped_;  // of this pattern at least one
        return;
      }
      const auto [group, is_new] = known.emplace(std::move(settings), groups.size());
      if (!is_new) {
        groups[group->second].second.push_back(route);
        continue;
      }
      auto changes = Compare(explain_before_.Explain(domain, vmta, pool),
                             explain_after_.Explain(domain, vmta, pool));
      const auto same = std::find_if(groups.begin(), groups.end(),
                                     [&](const auto& each) { return Same(each.first, changes); });
      group->second = static_cast<size_t>(same - groups.begin());
      if (same == groups.end()) groups.emplace_back(std::move(changes), std::vector<Route>());
      groups[group->second].second.push_back(route);
    }
    for (auto& [changes, list] : groups) {
      if (list.size() == routes.size()) {
        Add(absl::StrCat("queue ", pattern, "/*"), std::move(changes));
        continue;
      }
      std::string names;
      for (const auto& [vmta, pool] : list) {
        absl::StrAppend(&names, names.empty() ? "" : ",", vmta);
        if (!pool.empty()) absl::StrAppend(&names, "(", pool, ")");
      }
      Add(absl::StrCat("queue ", pattern, "/", names), std::move(changes));
    }
  }

  static bool Same(const std::vector<ChangedSetting>& a, const std::vector<ChangedSetting>& b) {
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); ++i) {
      if (a[i].directive != b[i].directive || a[i].before != b[i].before ||
          a[i].after != b[i].after) {
        return false;
      }
    }
    return true;
  }

  const Compiled& before_;
  const Compiled& after_;
  const QueueExplainer explain_before_;
  const QueueExplainer explain_after_;
  std::shared_ptr<const PolicyView> before_view_;
  std::shared_ptr<const PolicyView> after_view_;
  std::set<std::string> changed_;
  std::vector<ConfigChange> changes_;
  size_t dropped_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<ConfigChange>> DiffConfigs(const Compiled& before,
                                                      const Compiled& after) {
  return Differ(before, after).Diff();
}

std::string RenderChanges(const std::vector<ConfigChange>& changes) {
  if (changes.empty()) return "nothing changes\n";
  std::string text;
  for (const ConfigChange& change : changes) {
    absl::StrAppend(&text, change.subject, "\n");
    for (const ChangedSetting& setting : change.settings) {
      absl::StrAppend(&text, "  ", setting.directive, "  ",
                      setting.before.empty() ? "(none)" : setting.before, " -> ",
                      setting.after.empty() ? "(none)" : setting.after);
      const std::string& where =
          setting.where_after.empty() ? setting.where_before : setting.where_after;
      if (!where.empty()) absl::StrAppend(&text, "  ", where);
      if (setting.needs_restart) text += "  (takes a restart)";
      text += "\n";
    }
  }
  return text;
}

}  // namespace sluice::config
