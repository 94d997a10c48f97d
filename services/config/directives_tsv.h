// The table of PowerMTA's directives (testdata/directives.tsv), for tests.
#pragma once

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace sluice::config {

// Cells of each row: section, names, syntax, default.
inline std::vector<std::vector<std::string>> DirectivesTsv() {
  std::vector<std::vector<std::string>> rows;
  std::ifstream file("services/config/testdata/directives.tsv");
  std::string line;
  std::getline(file, line);  // the heading
  while (std::getline(file, line)) rows.push_back(absl::StrSplit(line, '\t'));
  return rows;
}

}  // namespace sluice::config
