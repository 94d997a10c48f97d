// Real peers for tests: Debian's programs, started on loopback and ended with the test.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::delivery::testing {

// Where a program is (PATH, then the folders of daemons); empty where the package is missing.
std::string FindProgram(const std::string& name);

// Runs to its end. True where it exited with 0. Its output goes to `output`.
bool RunProgram(const std::vector<std::string>& command, std::string* output,
                const std::string& folder = ".");

// A TCP and UDP port of loopback that is free now.
uint16_t FreePort();

// A daemon in the foreground. Thread-safety: none.
class ChildProcess {
 public:
  explicit ChildProcess(const std::vector<std::string>& command);
  ~ChildProcess();  // kills
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Until its output has `text`; false where it ended, or after 20 seconds.
  bool WaitForOutput(const std::string& text);
  const std::string& output() const { return output_; }

 private:
  pid_t pid_ = -1;
  int pipe_ = -1;
  std::string output_;
};

// Until something listens on the TCP port of loopback; false after 20 seconds.
bool WaitForPort(uint16_t port);

}  // namespace sluice::delivery::testing
