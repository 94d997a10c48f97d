// Disk space held back by a file that is given up when the volume is full.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace sluice::queue {

// Thread-safety: none.
class Ballast {
 public:
  // Reserves `bytes` in `folder`; zero: none. A volume too small for it gets none, which is no
  // error: status() of the shard shows the free space.
  absl::Status Open(const std::string& folder, uint64_t bytes);
  // Gives the space up. True where there was any.
  bool Release();
  bool held() const { return held_; }

 private:
  std::string path_;
  bool held_ = false;
};

}  // namespace sluice::queue
