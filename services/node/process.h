// What every daemon does as a Unix process: signals, and the file that says it is ready.
#pragma once

#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace sluice::node {

// Blocks SIGTERM, SIGINT and SIGHUP in the calling thread and all it starts later, and ignores
// SIGPIPE. Called first in main: the signals are then taken by WaitForSignal alone.
// Lifetime: until the process ends.
class Signals {
 public:
  Signals();

  // Blocks. SIGHUP calls `reload` and waits on; SIGTERM and SIGINT return.
  void WaitForStop(absl::FunctionRef<void()> reload);

  // After the stop has begun: a second SIGTERM or SIGINT ends the process at once (exit code 1).
  // Called from a thread of its own; returns never.
  [[noreturn]] void ExitOnNext();

 private:
  sigset_t set_;
};

// Lets the process have as many files and sockets open as it may at all, up to a million: shells
// and service managers give 1,024 unless asked, and one idle client takes one.
void RaiseFileLimit();

// Writes `fields` as a JSON object to `path`, whole or not at all.
absl::Status WriteReadyFile(const std::string& path,
                            const std::vector<std::pair<std::string, std::string>>& fields);

}  // namespace sluice::node
