#include "services/config/explain_layers.h"

#include <algorithm>
#include <string_view>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/config/printer.h"

namespace sluice::config {
namespace {

using google::protobuf::Message;

size_t MarkOf(const Directive& directive, const Message& settings) {
  if (!directive.secret) return 0;
  return SecretMark(absl::StrJoin(PrintValues(directive, settings, /*with_secrets=*/true), "\n"));
}

}  // namespace

size_t SecretMark(std::string_view secret) {
  // Seeded anew by each process.
  return absl::HashOf(absl::string_view(secret.data(), secret.size()));
}

uint32_t TextMark(std::string_view text) {
  uint32_t hash = 0x811c9dc5;  // FNV-1a
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x01000193;
  return hash;
}

std::string WhereOf(const Compiled& compiled, const std::string& place, int field) {
  const auto fields = compiled.origins.find(place);
  if (fields == compiled.origins.end()) return "";
  const auto origin = fields->second.find(field);
  if (origin == fields->second.end()) return "";
  return absl::StrCat(*origin->second.file, ":", origin->second.line);
}

std::vector<ExplainedSetting> Resolve(const Compiled& compiled, Target target,
                                      const std::vector<Layer>& layers) {
  std::vector<ExplainedSetting> settings;
  std::vector<std::string_view> seen;
  for (const Directive& directive : AllDirectives()) {
    if (directive.target != target) continue;
    if (std::find(seen.begin(), seen.end(), directive.field) != seen.end()) continue;
    seen.push_back(directive.field);
    for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
      const std::vector<std::string> values = PrintValues(directive, *layer->settings);
      if (values.empty()) continue;
      const int field =
          layer->settings->GetDescriptor()->FindFieldByName(std::string(directive.field))->number();
      settings.push_back({std::string(directive.name), absl::StrJoin(values, "; "), layer->section,
                          WhereOf(compiled, layer->place, field), layer->is_default,
                          MarkOf(directive, *layer->settings)});
      break;
    }
  }
  return settings;
}

}  // namespace sluice::config
