// A PowerMTA configuration, rewritten in this system's names: comments and order stay, every line
// that has no effect here says so.
#pragma once

#include <string>
#include <vector>

#include "services/config/compiler.h"
#include "services/config/files.h"

namespace sluice::config {

struct MigratedFile {
  std::string path;  // as read
  std::string text;
};

struct Migration {
  std::vector<MigratedFile> files;  // the root first, then in order of inclusion
  std::vector<std::string> report;  // "file:line: what was done", in order
  Tally tally;
  std::vector<Diagnostic> diagnostics;  // of the original
  // The rewritten files compile to the same snapshot, and say no more than the original.
  bool equivalent = false;
};

// Old names become the registry's first ones, lines are indented by section, what has no meaning
// here or is unsupported becomes a comment with its reason, and what is planned gets a remark above
// it. An include by its whole path of what lies in the root's folder becomes a relative one. Lines
// that cannot be read are kept as they are.
Migration Migrate(const std::string& root, FileSource& files);

}  // namespace sluice::config
