// One life of a victim process: started, listened to, killed.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "tests/powercut/ledger.h"
#include "tests/powercut/victim.h"

namespace sluice::powercut {

// Thread-safety: none. The destructor kills the process.
class Life {
 public:
  // Starts this program again as a victim. Its stderr goes to `errors_path`: RocksDB complains
  // there when its disk fails.
  Life(const VictimOptions& options, const std::string& errors_path, Ledger& ledger);
  ~Life();
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;

  enum class Ended { kLines, kTime, kProcess, kError };
  // Reads lines into the ledger until there were `most` of them, the time is over, the process
  // ended, or the ledger has errors.
  Ended Listen(std::chrono::microseconds time, uint64_t most = UINT64_MAX);
  // Until `done` says so about the ledger after some line; false: it never did.
  template <class Condition>
  bool ListenUntil(std::chrono::seconds limit, Condition done) {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (!done()) {
      if (std::chrono::steady_clock::now() >= end) return false;
      const Ended ended = Listen(std::chrono::milliseconds(100), 1);
      if (ended == Ended::kProcess || ended == Ended::kError) return done();
    }
    return true;
  }
  // Kills the process and reads what is left in the pipe. Complaints in it are not believed: the
  // process may have written them after its disk was taken away.
  void Kill();

 private:
  void Take();
  Ledger& ledger_;
  const uint64_t incarnation_;
  pid_t pid_ = -1;
  int pipe_ = -1;
  bool dying_ = false;
  std::string rest_;
};

// The exit code where this process was started as a victim.
std::optional<int> RunIfVictim(int argc, char** argv);

}  // namespace sluice::powercut
