// The command line of sluicectl.
#pragma once

#include <string>
#include <vector>

#include "tools/ctl/environment.h"

namespace sluice::ctl {

// Runs one command; `arguments` without the program's name. Returns the exit code.
// Thread-safety: one thread at a time.
int Run(const std::vector<std::string>& arguments, Environment& env);

}  // namespace sluice::ctl
