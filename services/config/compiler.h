// From directive files to the snapshot that every service gets.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "services/config/compile_cache.h"
#include "services/config/diagnostic.h"
#include "services/config/files.h"
#include "services/config/origin.h"
#include "sluice/policy/v1/snapshot.pb.h"

namespace sluice::config {

struct CompileOptions {
  // Names of directives and sections that restrict, are not effective, and may be gone without.
  std::set<std::string> accept_unsupported;
  // Keep where everything was said; it costs memory.
  bool keep_origins = false;
  // Of the compilation before, for this one and the next; not with keep_origins.
  CompileCache* cache = nullptr;
};

// Lines by the status of their directive, for `config check`.
struct Tally {
  uint32_t effective = 0;
  uint32_t aliases = 0;  // effective, under another name than the registry's first one
  uint32_t no_meaning = 0;
  uint32_t planned = 0;
  uint32_t unsupported = 0;
};

struct Directive;

// One directive line, as it was written.
struct ConfigLine {
  const Directive* directive = nullptr;
  std::string value;
  Location where;
  size_t section = 0;  // number of the section that was open; 0: none
};

// A line that gives addresses to a virtual MTA.
struct HostLine {
  std::string vmta;     // lower case
  std::string network;  // as ParseNetwork gives it
  Location where;
};

struct Compiled {
  // Of use only where ok(). Sections are in order of name; version and time are not set.
  policy::v1::PolicySnapshot snapshot;
  std::vector<Diagnostic> diagnostics;
  // Every file that was read, for messages.
  std::vector<std::string> files;
  Tally tally;
  // With keep_origins.
  Origins origins;
  std::vector<ConfigLine> lines;
  std::vector<HostLine> host_lines;                // the later one of an address holds
  std::map<std::string, Location> section_places;  // of "vmta/NAME" and "pool/NAME"

  bool ok() const { return !HasErrors(diagnostics); }
};

// The files are read one after the other as if they were one. Bounds: 10,000 files and
// 256 MiB together, includes 20 deep, 1,000,000 sections, 1,000 diagnostics. Takes any bytes.
Compiled Compile(const std::vector<std::string>& paths, FileSource& files,
                 const CompileOptions& options = {});

// One text that is not on disk; its includes are read through `files`.
Compiled CompileText(const std::string& name, std::string_view text, FileSource& files,
                     const CompileOptions& options = {});

}  // namespace sluice::config
