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

const char* Remark(Status status) {
  switch (status) {
    case Status::kActive:
      return "";
    case Status::kNotYet:
      return " *Read and kept, without effect in this version; a warning says so.*";
    case Status::kRefused:
      return " *Not possible in this version: an error, since going on without it would not be "
             "safe.*";
    case Status::kNoEffect:
      return " *Accepted; a warning says that it is not needed.*";
  }
  return "";
}

const char* Heading(Scope scope) {
  switch (scope) {
    case kGlobal:
      return "Outside of sections";
    case kSource:
      return "`<source NETWORK | NAME>`, `<accepted-connect NETWORK>`: clients, and outbound "
             "addresses";
    case kVirtualMta:
      return "`<virtual-mta NAME>`";
    case kPool:
      return "`<virtual-mta-pool NAME>`";
    case kSourcePool:
      return "`<source-pool NETWORK>`";
    case kDomain:
      return "`<domain PATTERN>`: how mail of a queue is sent";
    case kListener:
      return "`<smtp-listener IP:PORT>`: an address that takes SMTP connections";
    case kPatternList:
      return "`<pattern-list NAME>`: the first line that matches chooses the virtual MTA";
    case kSourceGroup:
      return "`<source-group NAME>`: client networks that share a limit";
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
      absl::StrAppend(
          &page, "| ", names, " | ", Code(SyntaxOf(*directive)), " | ", Code(DefaultOf(*directive)),
          " | ", absl::StrReplaceAll(Cell(std::string(directive->help)), {{"<", "&lt;"}}),
          directive->appends ? " May be repeated." : "", Remark(directive->status), " |\n");
    }
  }
  return page;
}

}  // namespace sluice::config
