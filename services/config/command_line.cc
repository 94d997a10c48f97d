#include "services/config/command_line.h"

#include <algorithm>
#include <iterator>

namespace sluice::config {
namespace {

bool IsInterpreter(std::string_view program) {
  static constexpr std::string_view kNames[] = {"sh",      "ash",  "bash", "dash", "ksh", "zsh",
                                                "busybox", "perl", "ruby", "node", "php", "lua"};
  const size_t slash = program.rfind('/');
  if (slash != program.npos) program.remove_prefix(slash + 1);
  return program.starts_with("python") ||
         std::find(std::begin(kNames), std::end(kNames), program) != std::end(kNames);
}

bool HoldsVariable(std::string_view text) {
  static constexpr std::string_view kVariables[] = {"${local}", "${domain}", "${rcpt}", "${from}"};
  return std::any_of(std::begin(kVariables), std::end(kVariables),
                     [&](std::string_view name) { return text.find(name) != text.npos; });
}

}  // namespace

std::vector<std::string> SplitCommand(std::string_view command) {
  std::vector<std::string> words;
  bool in_word = false;
  bool quoted = false;
  for (size_t i = 0; i < command.size(); ++i) {
    char c = command[i];
    if (!quoted && (c == ' ' || c == '\t')) {
      in_word = false;
      continue;
    }
    if (!in_word) words.emplace_back();
    in_word = true;
    if (c == '"') {
      quoted = !quoted;
      continue;
    }
    if (c == '\\' && i + 1 < command.size()) c = command[++i];
    words.back() += c;
  }
  return words;
}

bool RunsVariables(const std::vector<std::string>& words) {
  bool interpreter = false;
  for (size_t i = 0; i < words.size(); ++i) {
    interpreter |= IsInterpreter(words[i]);
    // "-c", "-ec", "-ne".
    const std::string& word = words[i];
    const bool option = interpreter && word.size() >= 2 && word[0] == '-' && word[1] != '-' &&
                        (word.find('c') != word.npos || word.find('e') != word.npos);
    if (option && (HoldsVariable(word) || (i + 1 < words.size() && HoldsVariable(words[i + 1])))) {
      return true;
    }
  }
  return false;
}

}  // namespace sluice::config
