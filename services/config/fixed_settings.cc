#include "services/config/fixed_settings.h"

#include <algorithm>

#include "services/config/printer.h"
#include "services/config/registry.h"

namespace sluice::config {
namespace {

std::string_view ServiceOf(const Directive& directive) {
  const std::string_view name = directive.name;
  if (name == "name-server" || name == "edns-udp-length") return "delivery";
  return name == "disk-queue" || name == "queue-shards" ? "queue" : "ingest";
}

bool IsFixed(const Directive& directive) {
  // smtp-port and smtp-ip are listeners in the end.
  return directive.needs_restart && directive.target == Target::kGlobalSettings &&
         directive.field != "smtp_port";
}

std::vector<std::string> ValuesOf(const Directive& directive,
                                  const policy::v1::GlobalSettings& settings) {
  policy::v1::GlobalSettings ordered = settings;
  // Listeners are a set; the order of name servers is that in which they are asked.
  for (auto* const list :
       {ordered.mutable_smtp_listeners(), ordered.mutable_smtp_proxy_listeners()}) {
    std::sort(list->mutable_values()->begin(), list->mutable_values()->end());
  }
  if (ordered.smtp_listeners().values().empty()) ordered.clear_smtp_listeners();
  if (ordered.smtp_proxy_listeners().values().empty()) ordered.clear_smtp_proxy_listeners();
  return PrintValues(directive, ordered, true);
}

}  // namespace

policy::v1::GlobalSettings FixedSettings(const policy::v1::GlobalSettings& settings) {
  policy::v1::GlobalSettings fixed = settings;
  const auto* const reflection = fixed.GetReflection();
  const auto* const type = fixed.GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const auto& directives = AllDirectives();
    const bool keep = std::any_of(directives.begin(), directives.end(), [&](const auto& directive) {
      return IsFixed(directive) && directive.field == type->field(i)->name();
    });
    if (!keep) reflection->ClearField(&fixed, type->field(i));
  }
  return fixed;
}

std::vector<std::string> NeedRestart(std::string_view service,
                                     const policy::v1::GlobalSettings& started_with,
                                     const policy::v1::GlobalSettings& now) {
  std::vector<std::string> names;
  for (const Directive& directive : AllDirectives()) {
    if (!IsFixed(directive) || ServiceOf(directive) != service) continue;
    if (ValuesOf(directive, started_with) == ValuesOf(directive, now)) continue;
    names.emplace_back(directive.name);
  }
  return names;
}

}  // namespace sluice::config
