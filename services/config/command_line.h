// The `command` of type pipe as a list of words; there is no shell.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice::config {

// Blanks separate, double quotes and backslashes group.
std::vector<std::string> SplitCommand(std::string_view command);

// Whether a shell or another interpreter would run what a sender chose: ${local}, ${domain},
// ${rcpt} or ${from} stands in the program text behind its -c or -e. As an argument of its own
// behind that text a variable is harmless.
bool RunsVariables(const std::vector<std::string>& words);

}  // namespace sluice::config
