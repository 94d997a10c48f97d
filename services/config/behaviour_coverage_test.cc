// Every directive that says it is effective has a test of what it does, outside of this folder: one
// that writes its name in a configuration, or sets its field. What the compiler alone does has it
// here. Those without one are listed in testdata/effective_without_test.txt, and that list may only
// get shorter.
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "services/config/registry.h"

namespace {

using sluice::config::AllDirectives;
using sluice::config::Directive;
using sluice::config::Status;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

bool IsNameByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
}

// As the name of a directive in a file: where a line or a text begins, and before a value.
bool StartsALine(const std::string& text, size_t at, size_t end) {
  if (end == text.size() || text[end] != ' ') return false;
  while (at > 0 && (text[at - 1] == ' ' || text[at - 1] == '\t')) --at;
  if (at == 0) return true;
  const char before = text[at - 1];
  return before == '"' || before == '\'' || before == '\n' ||
         (before == 'n' && at > 1 && text[at - 2] == '\\');
}

// As a word of its own: max-smtp-out is not in total-max-smtp-out. What is also a common word
// (type, source) counts only as a directive.
bool HasName(const std::string& text, std::string_view name) {
  const bool common = name.find('-') == name.npos;
  for (size_t at = text.find(name); at != text.npos; at = text.find(name, at + 1)) {
    // In a string a line may begin with \n.
    const bool starts = at == 0 || !IsNameByte(text[at - 1]) ||
                        (at > 1 && text[at - 1] == 'n' && text[at - 2] == '\\');
    const size_t end = at + name.size();
    if (starts && (end == text.size() || !IsNameByte(text[end])) &&
        (!common || StartsALine(text, at, end))) {
      return true;
    }
  }
  return false;
}

bool SetsField(const std::string& text, std::string_view field) {
  if (field.empty()) return false;
  // A field of one word may be another message's, unless settings() or defaults() are its own.
  const bool common = field.find('_') == field.npos;
  for (const char* of : {"s()->", "s()."}) {
    for (const char* verb : {"set_", "mutable_", "add_"}) {
      const std::string call = absl::StrCat(common ? of : "", verb, std::string(field), "(");
      if (text.find(call) != text.npos) return true;
    }
  }
  return false;
}

bool IsCovered(const std::string& tests, const Directive& directive) {
  if (SetsField(tests, directive.field) || HasName(tests, directive.name)) return true;
  for (const std::string_view alias : directive.aliases) {
    if (HasName(tests, alias)) return true;
  }
  return false;
}

}  // namespace

// Arguments: the list, the tests, "--", the compiler's tests.
int main(int argc, char** argv) {
  if (argc < 10) {
    std::cerr << "no tests to read\n";
    return 1;
  }
  std::set<std::string> listed;
  std::istringstream list(ReadFile(argv[1]));
  for (std::string line; std::getline(list, line);) listed.insert(line);
  std::string tests;
  int i = 2;
  for (; i < argc && std::string_view(argv[i]) != "--"; ++i) tests += ReadFile(argv[i]);
  std::string with_compiler = tests;
  for (++i; i < argc; ++i) with_compiler += ReadFile(argv[i]);

  int grown = 0;
  std::set<std::string> without;
  std::set<std::string> missing = listed;  // that the list should no longer have
  for (const Directive& directive : AllDirectives()) {
    const bool compiled = directive.target == sluice::config::Target::kCompiler;
    if (directive.status != Status::kActive ||
        IsCovered(compiled ? with_compiler : tests, directive)) {
      continue;
    }
    const std::string name(directive.name);
    missing.erase(name);
    if (!without.insert(name).second) continue;
    std::cout << name << (listed.contains(name) ? "" : "  <- not listed") << "\n";
    if (!listed.contains(name)) ++grown;
  }
  for (const std::string& name : missing) {
    std::cerr << name << " has a test by now, or is not effective: take it out of the list\n";
  }
  if (!missing.empty()) return 1;
  if (grown > 0) {
    std::cerr << grown << " effective directives have no test of what they do, and are not in the "
              << "list; write the test\n";
    return 1;
  }
  return 0;
}
