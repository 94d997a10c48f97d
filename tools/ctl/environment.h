// What a command may touch besides its arguments, so that tests can stand in for a terminal.
#pragma once

#include <cstdint>
#include <functional>
#include <istream>
#include <ostream>
#include <string>

namespace sluice::ctl {

struct Environment {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool out_is_terminal = false;
  std::string user;                       // author of what is changed, unless --author is given
  std::function<int64_t()> now_us;        // wall clock, microseconds
  std::function<void(int64_t)> sleep_us;  // blocks for that long
};

// Exit codes; `sluicectl --help` tells them.
enum ExitCode : int {
  kExitOk = 0,
  kExitRefused = 1,      // the server answered with an error
  kExitUsage = 2,        // wrong arguments, unreadable file
  kExitUnreachable = 3,  // no answer from the server
  kExitNotFound = 4,     // no such queue, message or pause
  kExitPartly = 5,       // done in part: a shard or worker did not answer, or some messages refused
};

}  // namespace sluice::ctl
