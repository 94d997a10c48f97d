// Disk space held back by a file that is given up when the volume is full.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace sluice::queue {

// Thread-safety: none.
class Ballast {
 public:
  // Before the database is opened, which writes: takes over the file of the last run, and gives it
  // up where the volume has less than `give_up_below` bytes left.
  void Adopt(const std::string& folder, uint64_t give_up_below);
  // Reserves `bytes`; zero: none. A volume that would have less than twice `give_up_below` left
  // gets none, which is no error: the shard's status shows the free space.
  absl::Status Reserve(uint64_t bytes);
  // Gives the space up where the volume has less than `give_up_below` bytes left. True where it
  // did.
  bool ReleaseIfFull(uint64_t available_bytes);
  // Gives it up. True where there was any.
  bool Release();
  bool held() const { return held_; }

 private:
  std::string folder_;
  std::string path_;
  uint64_t give_up_below_ = 0;
  bool held_ = false;
};

}  // namespace sluice::queue
