// From directive files to the snapshot that every service gets.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "services/config/diagnostic.h"
#include "services/config/files.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

struct Compiled {
  // Of use only where ok(). Sections are in order of name; version and time are not set.
  policy::v1::PolicySnapshot snapshot;
  std::vector<Diagnostic> diagnostics;
  // Every file that was read, for messages.
  std::vector<std::string> files;

  bool ok() const { return !HasErrors(diagnostics); }
};

// The files are read one after the other as if they were one. Bounds: 10,000 files, includes 20
// deep, 1,000 diagnostics. Takes any bytes.
Compiled Compile(const std::vector<std::string>& paths, FileSource& files);

// One text that is not on disk; its includes are read through `files`.
Compiled CompileText(const std::string& name, std::string_view text, FileSource& files);

}  // namespace sluice::config
