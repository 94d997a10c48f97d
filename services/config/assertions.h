// Config tests: what operators say must hold, kept beside a configuration and run in their CI.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "services/config/compiler.h"
#include "services/config/files.h"

namespace sluice::config {

struct AssertionFailure {
  int line = 0;  // of the test file
  std::string message;
};

struct AssertionResult {
  int passed = 0;
  std::vector<AssertionFailure> failures;
  // Of the configuration.
  std::vector<Diagnostic> diagnostics;

  bool ok() const { return failures.empty(); }
};

// One assertion a line:
//   config FILE ...                  the files under test, relative to the test file
//   accept-unsupported NAME ...
//   loads | refused                  whether they compile
//   queue DOMAIN/VMTA: max-smtp-out == 20
//   queue DOMAIN/POOL: ...           for each virtual MTA of the pool
//   client IP: require-auth == yes
//   source IP: max-msg-rate <= 100/h
//   vmta NAME: max-smtp-out >= 5
//   pool NAME: max-smtp-out <= 200
//   global: host-name != localhost
// Operators: == != < <= > >=; the value is written as in a directive file. `#` starts a comment.
// `config_files` go before those of the file, `accept_unsupported` beside its lines.
AssertionResult RunAssertions(const std::string& test_file, std::string_view text,
                              const std::vector<std::string>& config_files, FileSource& files,
                              const std::set<std::string>& accept_unsupported = {});

}  // namespace sluice::config
