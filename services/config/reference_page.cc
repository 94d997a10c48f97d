#include "services/config/reference_page.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "services/config/registry.h"

namespace sluice::config {
namespace {

std::string Cell(const std::string& text) { return absl::StrReplaceAll(text, {{"|", "\\|"}}); }

std::string Code(const std::string& text) {
  return text.empty() ? "" : absl::StrCat("`", Cell(text), "`");
}

std::string Remark(const Directive& directive) {
  const std::string_view reason = directive.reason;
  switch (directive.status) {
    case Status::kActive:
      if (!directive.unsupported_choice.empty()) {
        return absl::StrCat(" *`", std::string(directive.unsupported_choice),
                            "` is unsupported: ", std::string(directive.unsupported_choice_reason),
                            ".*");
      }
      return directive.needs_restart ? " A change takes a restart." : "";
    case Status::kNotYet:
      return absl::StrCat(" *Planned, with ", std::string(reason),
                          ": checked, without effect in this version; a warning says so.*");
    case Status::kRefused:
      return absl::StrCat(
          " *Planned, with ", std::string(reason),
          ": an error in this version, since going on without it would not be safe.*");
    case Status::kNoEffect:
      return " *No meaning here; a warning says so.*";
    case Status::kUnsupported:
      return absl::StrCat(" *Unsupported: ", std::string(reason), ".*");
  }
  return "";
}

std::string Heading(Scope scope) {
  if (scope == kGlobal) return "Outside of sections";
  if (scope == kSource) {
    return "`<source NETWORK | NAME>`, `<accepted-connect NETWORK>`: clients, and outbound "
           "addresses";
  }
  for (const SectionKind& section : AllSections()) {
    if (section.scope != scope) continue;
    std::string help(section.help);
    help.pop_back();
    return absl::StrCat("`<", std::string(section.name), section.argument.empty() ? "" : " ",
                        std::string(section.argument), ">`: ", help,
                        section.status == Status::kActive ? "" : " (planned)");
  }
  return "";
}

}  // namespace

std::string ReferencePage() {
  std::string page =
      "# Directives\n\n"
      "Made from the registry by `bazel run //services/config:write_reference`; a test compares "
      "it. How files are written: [README.md](README.md).\n";
  for (const Scope scope : kAllScopes) {
    std::vector<const Directive*> directives;
    for (const Directive& directive : AllDirectives()) {
      if ((directive.scopes & scope) != 0) directives.push_back(&directive);
    }
    std::sort(directives.begin(), directives.end(),
              [](const auto* a, const auto* b) { return a->name < b->name; });
    absl::StrAppend(&page, "\n## ", Heading(scope),
                    "\n\n| Directive | Value | Default | Meaning |\n", "|---|---|---|---|\n");
    for (const Directive* directive : directives) {
      std::string names = Code(std::string(directive->name));
      for (const std::string_view alias : directive->aliases) {
        absl::StrAppend(&names, ", ", Code(std::string(alias)));
      }
      absl::StrAppend(&page, "| ", names, " | ", Code(SyntaxOf(*directive)), " | ",
                      Code(DefaultOf(*directive)), " | ",
                      absl::StrReplaceAll(Cell(std::string(directive->help)), {{"<", "&lt;"}}),
                      directive->appends ? " May be repeated." : "", Remark(*directive), " |\n");
    }
  }
  return page;
}

}  // namespace sluice::config
