#include "tools/ctl/completion.h"

#include <set>
#include <string_view>
#include <utility>

#include "services/config/registry.h"

namespace sluice::ctl {
namespace {

const CLI::App* FindCommand(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : app.get_subcommands({})) {
    if (command->get_name() == name) return command;
  }
  return nullptr;
}

const CLI::Option* FindOption(const CLI::App* command, const std::string& name) {
  for (; command != nullptr; command = command->get_parent()) {
    for (const CLI::Option* option : command->get_options()) {
      if (option->check_name(name)) return option;
    }
  }
  return nullptr;
}

void AddOptions(const CLI::App* command, std::set<std::string>* found) {
  for (; command != nullptr; command = command->get_parent()) {
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) found->insert("--" + name);
    }
  }
}

// Values that are known: names of the language, and what an option is one of.
void AddValues(const std::string& option, std::set<std::string>* found) {
  if (option == "--section") {
    found->insert("global");
    for (const auto& section : config::AllSections()) found->emplace(section.name);
  } else if (option == "--accept-unsupported") {
    for (const auto& directive : config::AllDirectives()) {
      if (directive.status == config::Status::kRefused || directive.restricts) {
        found->emplace(directive.name);
      }
    }
    for (const auto& section : config::AllSections()) {
      if (section.status == config::Status::kRefused) found->emplace(section.name);
    }
  } else if (option == "--output" || option == "-o") {
    found->insert({"table", "json"});
  }
}

}  // namespace

std::vector<std::string> Complete(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* command = &app;
  std::string option;  // whose value is next
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (!std::exchange(option, "").empty()) continue;
    if (words[i].starts_with('-')) {
      const CLI::Option* const known = FindOption(command, words[i]);
      if (known != nullptr && known->get_items_expected_max() > 0) option = words[i];
    } else if (const CLI::App* const next = FindCommand(*command, words[i])) {
      command = next;
    }
  }
  const std::string last = words.empty() ? "" : words.back();
  std::set<std::string> found;
  if (!option.empty()) {
    AddValues(option, &found);
  } else if (last.starts_with('-')) {
    AddOptions(command, &found);
  } else {
    for (const CLI::App* next : command->get_subcommands({})) found.insert(next->get_name());
    if (command->get_name() == "directives") {
      for (const auto& directive : config::AllDirectives()) {
        found.emplace(directive.name);
        for (const std::string_view alias : directive.aliases) found.emplace(alias);
      }
    }
  }
  std::erase_if(found, [&](const std::string& name) { return !name.starts_with(last); });
  return {found.begin(), found.end()};
}

std::string CompletionScript() {
  return "_sluicectl() {\n"
         "  local IFS=$'\\n'\n"
         "  COMPREPLY=($(\"${COMP_WORDS[0]}\" __complete \"${COMP_WORDS[@]:1:COMP_CWORD}\" "
         "2>/dev/null))\n"
         "}\n"
         "# Files, where nothing is known.\n"
         "complete -o default -F _sluicectl sluicectl\n";
}

}  // namespace sluice::ctl
