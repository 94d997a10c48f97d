// Completion of sluicectl's command line in a shell: commands and options from the command line's
// own declarations, directives and sections from the registry.
#pragma once

#include <string>
#include <vector>

#include "CLI/App.hpp"

namespace sluice::ctl {

// What the last of `words`, which may be empty, could become; in order of name. Pure.
std::vector<std::string> Complete(const CLI::App& app, const std::vector<std::string>& words);

// What to source in bash, or in zsh after bashcompinit; it calls `sluicectl __complete WORDS`.
std::string CompletionScript();

}  // namespace sluice::ctl
